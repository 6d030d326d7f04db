//! Who sends translated packets on: the host's routing, or the program at once (direct forwarding).
//!
//! The program looks each route up in the kernel's tables (`lb-ebpf/src/forward.rs`); the agent only says, for each
//! interface, whether it may. Direct forwarding goes past whatever rules the host has for packets that it forwards, so
//! unless asked otherwise it is for hosts without any. See `docs/adr/0002-forwarding.md`.

mod devices;
mod nftables;
mod rules;

use clap::ValueEnum;
use lb_common::abi::{forwarding_reason, iface_flag};
use serde::Serialize;

pub use devices::{Devices, Features};
pub use rules::{Rules, RulesError, Watcher, look};

use crate::dataplane::Hook;

/// What the user asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ForwardingChoice {
    /// Direct where no rules of this host see forwarded packets.
    #[default]
    Auto,
    /// The host routes them, and its rules see them.
    Kernel,
    /// To the next hop at once, past the host's rules. At native XDP as far as checksums and devices allow.
    Direct,
}

/// Why an interface has the forwarding it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Not written down: the interface has just appeared.
    Unknown,
    /// `--forwarding` says so.
    Asked,
    /// No rules see forwarded packets.
    NoRules,
    /// Rules see forwarded packets.
    Rules,
    /// The rules could not be looked at.
    Unseen,
    /// Generic XDP leaves it to the host.
    Hook,
    /// At native XDP on a device made of software, where it is not asked for.
    Software,
    /// At native XDP on a device with others on top of it.
    Stacked,
    /// At native XDP on a kernel that does not say which devices take redirected packets.
    Untold,
}

impl Reason {
    /// For people.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Unknown => "not decided yet",
            Self::Asked => "as --forwarding says",
            Self::NoRules => "no rules of this host see forwarded packets",
            Self::Rules => "rules of this host see forwarded packets (`lb doctor` names them)",
            Self::Unseen => "this host's rules could not be looked at",
            Self::Hook => "the program is at generic XDP",
            Self::Software => "at native XDP on a device made of software (--forwarding direct asks for it)",
            Self::Stacked => "other devices are on top of it",
            Self::Untold => "before 6.3 the kernel does not say which devices take redirected packets",
        }
    }

    const fn bits(self) -> u16 {
        match self {
            Self::Unknown => 0,
            Self::Asked => forwarding_reason::ASKED,
            Self::NoRules => forwarding_reason::NO_RULES,
            Self::Rules => forwarding_reason::RULES,
            Self::Unseen => forwarding_reason::UNSEEN,
            Self::Hook => forwarding_reason::HOOK,
            Self::Software => forwarding_reason::SOFTWARE,
            Self::Stacked => forwarding_reason::STACKED,
            Self::Untold => forwarding_reason::UNTOLD,
        }
    }
}

/// What is done with translated packets of an interface. The field names are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Forwarding {
    /// By the program, not by the host's routing.
    pub direct: bool,
    /// Why.
    pub reason: Reason,
}

/// What of a device matters to forwarding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// It has a driver of its own.
    pub physical: bool,
    /// Others are on top of it (VLAN, bridge, bond, macvlan): packets may be theirs.
    pub stacked: bool,
    /// The kernel has said what it does at XDP.
    pub told: bool,
}

impl Forwarding {
    /// Decides, as far as the interface does not matter.
    #[must_use]
    pub fn choose(choice: ForwardingChoice, rules: &Result<Rules, RulesError>) -> Self {
        let (direct, reason) = match (choice, rules) {
            (ForwardingChoice::Kernel, _) => (false, Reason::Asked),
            (ForwardingChoice::Direct, _) => (true, Reason::Asked),
            (ForwardingChoice::Auto, Ok(rules)) if rules.is_empty() => (true, Reason::NoRules),
            (ForwardingChoice::Auto, Ok(_)) => (false, Reason::Rules),
            (ForwardingChoice::Auto, Err(_)) => (false, Reason::Unseen),
        };
        Self { direct, reason }
    }

    /// Looks at the host's rules, where they matter, and decides.
    pub fn decide(choice: ForwardingChoice) -> (Self, Result<Rules, RulesError>) {
        let rules = if choice == ForwardingChoice::Auto { look() } else { Ok(Rules::default()) };
        (Self::choose(choice, &rules), rules)
    }

    /// The same on a device whose program is at `hook`.
    ///
    /// Packets from other devices made of software may have checksums that a socket has left unfinished. The program
    /// leaves such packets to the host, and so the packets of one connection may go by two ways: only who asks gets that.
    #[must_use]
    pub const fn at(self, hook: Hook, device: Device) -> Self {
        let reason = match hook {
            Hook::XdpGeneric => Reason::Hook,
            Hook::Xdp if device.stacked => Reason::Stacked,
            Hook::Xdp if !device.told => Reason::Untold,
            Hook::Xdp if !device.physical && !matches!(self.reason, Reason::Asked) => Reason::Software,
            Hook::Xdp | Hook::Tcx | Hook::Clsact => return self,
        };
        if self.direct { Self { direct: false, reason } } else { self }
    }

    /// As bits of an interface's flags.
    #[must_use]
    pub const fn flags(self) -> u16 {
        self.reason.bits() | if self.direct { iface_flag::DIRECT } else { 0 }
    }

    /// From an interface's flags.
    #[must_use]
    pub const fn of(flags: u16) -> Self {
        let reason = match flags & forwarding_reason::MASK {
            forwarding_reason::ASKED => Reason::Asked,
            forwarding_reason::NO_RULES => Reason::NoRules,
            forwarding_reason::RULES => Reason::Rules,
            forwarding_reason::UNSEEN => Reason::Unseen,
            forwarding_reason::HOOK => Reason::Hook,
            forwarding_reason::SOFTWARE => Reason::Software,
            forwarding_reason::STACKED => Reason::Stacked,
            forwarding_reason::UNTOLD => Reason::Untold,
            _ => Reason::Unknown,
        };
        Self { direct: flags & iface_flag::DIRECT != 0, reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REASONS: [Reason; 9] = [
        Reason::Unknown,
        Reason::Asked,
        Reason::NoRules,
        Reason::Rules,
        Reason::Unseen,
        Reason::Hook,
        Reason::Software,
        Reason::Stacked,
        Reason::Untold,
    ];

    #[test]
    fn flags_tell_what_was_decided_and_nothing_else() {
        for reason in REASONS {
            for direct in [false, true] {
                let forwarding = Forwarding { direct, reason };
                let others = iface_flag::EXTERNAL | iface_flag::PEER;
                assert_eq!(forwarding.flags() & others, 0);
                assert_eq!(Forwarding::of(forwarding.flags() | others), forwarding);
            }
        }
    }

    #[test]
    fn direct_unless_there_are_rules_or_may_be() {
        let chosen = |choice, rules| {
            let Forwarding { direct, reason } = Forwarding::choose(choice, &rules);
            (direct, reason)
        };
        let rules = || Ok(Rules::of(["inet filter forward".to_owned()]));
        let unseen = || Err(RulesError { operation: "ask", source: std::io::Error::other("no") });
        use ForwardingChoice::{Auto, Direct, Kernel};
        assert_eq!(chosen(Auto, Ok(Rules::default())), (true, Reason::NoRules));
        assert_eq!(chosen(Auto, rules()), (false, Reason::Rules));
        assert_eq!(chosen(Auto, unseen()), (false, Reason::Unseen));
        assert_eq!(chosen(Direct, rules()), (true, Reason::Asked));
        assert_eq!(chosen(Kernel, Ok(Rules::default())), (false, Reason::Asked));
    }

    #[test]
    fn at_xdp_it_depends_on_the_device() {
        let asked = Forwarding { direct: true, reason: Reason::Asked };
        let auto = Forwarding { direct: true, reason: Reason::NoRules };
        let nic = Device { physical: true, stacked: false, told: true };
        let left = |reason| Forwarding { direct: false, reason };
        for (device, by_auto, by_wish) in [
            (nic, auto, asked),
            (Device { physical: false, ..nic }, left(Reason::Software), asked),
            (Device { stacked: true, ..nic }, left(Reason::Stacked), left(Reason::Stacked)),
            (Device { told: false, ..nic }, left(Reason::Untold), left(Reason::Untold)),
        ] {
            assert_eq!(auto.at(Hook::Xdp, device), by_auto, "{device:?}");
            assert_eq!(asked.at(Hook::Xdp, device), by_wish, "{device:?}");
            assert_eq!(asked.at(Hook::Tcx, device), asked);
            assert_eq!(asked.at(Hook::XdpGeneric, device), left(Reason::Hook));
            let kernel = left(Reason::Asked);
            assert_eq!(kernel.at(Hook::Xdp, device), kernel);
        }
    }
}
