//! What is timed.

use lb_common::reason::Reason;
use lb_tests::rows::net::At;

use super::driver::{Fresh, Headers};
use super::world::{Kind, elsewhere, flags};
use crate::sample::Random;

/// Most flows of a case.
pub(crate) const FLOWS: u32 = 65_536;
/// Where network headers begin.
const NETWORK: usize = 14;
/// Port of a packet that is for no Service.
const OTHER_PORT: u16 = 4321;

/// A case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Case {
    /// Packets for no Service, so many different ones.
    NotOurs(u32),
    /// Client to backend on so many established flows.
    Established(u32),
    /// Backend to client on so many established flows.
    Reply(u32),
    /// A flow's first packet, with room in the table.
    NewFlow,
    /// A flow's first packet, when another flow must go for it.
    NewFlowFull,
}

impl Case {
    /// Those that leave the tables as they were.
    pub(crate) const STEADY: [Self; 7] = [
        Self::NotOurs(1),
        Self::NotOurs(FLOWS),
        Self::Established(1),
        Self::Established(1024),
        Self::Established(FLOWS),
        Self::Reply(1),
        Self::Reply(FLOWS),
    ];

    /// Its name in results.
    pub(crate) fn name(self) -> String {
        match self {
            Self::NotOurs(flows) => format!("not-ours-{flows}"),
            Self::Established(flows) => format!("established-{flows}"),
            Self::Reply(flows) => format!("reply-{flows}"),
            Self::NewFlow => "new-flow".to_owned(),
            Self::NewFlowFull => "new-flow-full".to_owned(),
        }
    }

    /// What each packet must be counted as.
    pub(crate) const fn reason(self) -> Reason {
        match self {
            Self::NotOurs(_) => Reason::NotOurs,
            Self::Established(_) => Reason::ToBackend,
            Self::Reply(_) => Reason::FromBackend,
            Self::NewFlow | Self::NewFlowFull => Reason::NewFlow,
        }
    }

    /// Its packets in random order. `backends` has the backend of each flow that was established.
    pub(crate) fn headers(
        self,
        kind: Kind,
        backends: &[At],
        random: &mut Random,
    ) -> std::io::Result<Headers> {
        let (network, transport) = kind.headers();
        let service = kind.service();
        let (count, fresh) = match self {
            Self::NotOurs(flows) | Self::Established(flows) | Self::Reply(flows) => (flows, None),
            Self::NewFlow | Self::NewFlowFull => {
                // The source address ends 8 bytes before the network header's end in IPv4, 20 in IPv6.
                let address = NETWORK + network - if network == 20 { 6 } else { 18 };
                (1, Some(Fresh { port: NETWORK + network, address }))
            }
        };
        let frame = |flow: u32| {
            let client = kind.client(flow);
            match self {
                Self::NotOurs(_) => kind.packet(client, (elsewhere(kind.net, 9), OTHER_PORT), flags::ACK),
                Self::Established(_) => kind.packet(client, service, flags::ACK),
                Self::Reply(_) => {
                    kind.packet(backends.get(flow as usize).copied().unwrap_or(service), client, flags::ACK)
                }
                Self::NewFlow | Self::NewFlowFull => kind.packet(client, service, flags::SYN),
            }
            .frame()
        };
        let mut frames: Vec<Vec<u8>> = (0..count).map(frame).collect();
        random.shuffle(&mut frames);
        Headers::new(&frames, network + transport, fresh)
    }
}
