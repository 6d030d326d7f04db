//! Why a packet met its verdict. This one list feeds the kernel programs, the counters, the CLI and the docs.

/// Room for reasons in the per-interface counters.
pub const REASON_SLOTS: u32 = 64;

/// What happened to a packet, in the terms of the accounting rule: in = forwarded + passed + answered + dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Rewritten and sent on its way.
    Forwarded,
    /// Left alone, bit for bit.
    Passed,
    /// Answered in place of a backend.
    Answered,
    /// Gone.
    Dropped,
}

impl Class {
    /// Lower-case name, stable for machines.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Forwarded => "forwarded",
            Self::Passed => "passed",
            Self::Answered => "answered",
            Self::Dropped => "dropped",
        }
    }
}

macro_rules! reasons {
    ($($variant:ident = $value:literal, $class:ident, $name:literal, $rule:literal, $text:literal;)*) => {
        /// Why a packet met its verdict. Numbers are part of the ABI: they index the counters.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Reason {
            $(#[doc = $text] $variant = $value,)*
        }

        impl Reason {
            /// All reasons.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// What happened to the packet.
            pub const fn class(self) -> Class {
                match self { $(Self::$variant => Class::$class,)* }
            }

            /// Stable name for machines.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The rule of the semantics that decided.
            pub const fn rule(self) -> &'static str {
                match self { $(Self::$variant => $rule,)* }
            }

            /// One line for people.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }

        const _: () = { $(assert!(($value as u32) < REASON_SLOTS);)* };
    };
}

reasons! {
    NewFlow = 0, Forwarded, "new-flow", "S1", "first packet of a flow, sent to the backend chosen for it";
    ToBackend = 1, Forwarded, "to-backend", "C1", "packet of a known flow, sent to its backend";
    FromBackend = 2, Forwarded, "from-backend", "C1", "reply, translated back to the frontend's address";
    IcmpError = 3, Forwarded, "icmp-error", "A4", "ICMP error about a flow, translated";
    FromHost = 4, Forwarded, "from-host", "C1", "of a socket of this host, translated on its way out: it never came in";
    NotOurs = 8, Passed, "not-ours", "V8", "neither to a frontend nor of a flow";
    NotIp = 9, Passed, "not-ip", "V8", "neither IPv4 nor IPv6";
    OtherProtocol = 10, Passed, "other-protocol", "V8", "a transport protocol that Services do not have";
    Malformed = 11, Passed, "malformed", "V9", "shorter than its own headers say, or with impossible lengths";
    HeadersTooLong = 12, Passed, "headers-too-long", "V9", "more extension headers than are walked";
    LateFragment = 13, Passed, "late-fragment", "A5", "fragment whose first fragment is not known";
    LeftToPackets = 14, Passed, "left-to-packets", "A2", "socket whose address matters and is not known: its packets are balanced";
    RejectedNoBackend = 16, Answered, "rejected-no-backend", "V1", "the service has no backend anywhere";
    RejectedPort = 17, Answered, "rejected-port", "V5", "the ClusterIP does not serve this port";
    ResetMidFlow = 18, Answered, "reset-mid-flow", "C7", "TCP packet of no known flow, answered with RST";
    Ping = 19, Answered, "ping", "V5", "ICMP echo to a ClusterIP, answered";
    DropNoLocalBackend = 24, Dropped, "drop-no-local-backend", "V2", "backends exist, but the policy leaves none here";
    DropUnowned = 25, Dropped, "drop-unowned", "V6", "inside the service range, but no service's address";
    DropSourceRange = 26, Dropped, "drop-source-range", "V7", "the source is in none of loadBalancerSourceRanges";
    DropExternal = 27, Dropped, "drop-external", "F9", "a ClusterIP dialled from outside the cluster";
    DropNoSourcePort = 28, Dropped, "drop-no-source-port", "C6", "no free source port for this client and backend";
    DropNoNodeAddress = 29, Dropped, "drop-no-node-address", "A2", "to be masqueraded, but no node address is known";
    DropStrayReset = 31, Dropped, "drop-stray-reset", "C7", "TCP RST of no known flow";
    DropTables = 30, Dropped, "drop-tables", "C5", "an entry the tables should have is missing";
}

impl Reason {
    /// The reason with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| *reason as u8 == number)
    }
}
