//! Who sends translated packets on: the host's routing, or the program at once (direct forwarding).
//!
//! The program looks each route up in the kernel's tables (`lb-ebpf/src/forward.rs`); the agent only says, for each
//! interface, whether it may. Direct forwarding goes past whatever rules the host has for packets that it forwards, so
//! unless asked otherwise it is for hosts without any. See `docs/adr/0002-forwarding.md`.

mod nftables;
mod rules;

use clap::ValueEnum;
use lb_common::abi::{forwarding_reason, iface_flag};
use serde::Serialize;

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
    /// At tc, to the next hop at once, past the host's rules.
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
    /// The program is not at tc.
    Hook,
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
            Self::Hook => "the program is not at tc",
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

    /// The same on an interface whose program is at `hook`.
    #[must_use]
    pub const fn at(self, hook: Hook) -> Self {
        if self.direct && hook.is_xdp() { Self { direct: false, reason: Reason::Hook } } else { self }
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
            _ => Reason::Unknown,
        };
        Self { direct: flags & iface_flag::DIRECT != 0, reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REASONS: [Reason; 6] =
        [Reason::Unknown, Reason::Asked, Reason::NoRules, Reason::Rules, Reason::Unseen, Reason::Hook];

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
    fn only_tc_forwards_directly() {
        let direct = Forwarding { direct: true, reason: Reason::Asked };
        assert_eq!(direct.at(Hook::Tcx), direct);
        assert_eq!(direct.at(Hook::Xdp), Forwarding { direct: false, reason: Reason::Hook });
        let kernel = Forwarding { direct: false, reason: Reason::Asked };
        assert_eq!(kernel.at(Hook::Xdp), kernel);
    }
}
