//! The life of a flow: what its packets tell about it, and how long it may be idle (C2, RFC 5382, RFC 4787).

use super::parse::tcp_flag;
use crate::abi::{Config, flow_state, protocol};

/// State bits that a packet adds to what is known of its flow.
#[inline(always)]
pub fn learned(state: u8, protocol: u8, tcp_flags: u8, reply: bool) -> u8 {
    let mut bits = if reply { flow_state::REPLIED } else { 0 };
    if protocol == protocol::UDP {
        return bits & !state;
    }
    if tcp_flags & tcp_flag::RST != 0 {
        bits |= flow_state::RESET;
    }
    if tcp_flags & tcp_flag::FIN != 0 {
        bits |= if reply { flow_state::FIN_BACKEND } else { flow_state::FIN_CLIENT };
    }
    if !reply && state & flow_state::REPLIED != 0 && tcp_flags & (tcp_flag::SYN | tcp_flag::RST) == 0 {
        bits |= flow_state::CONFIRMED;
    }
    bits & !state
}

/// Whether a flow has ended: reset, or FIN seen both ways.
#[inline(always)]
pub fn is_closing(state: u8) -> bool {
    const BOTH_FINS: u8 = flow_state::FIN_CLIENT | flow_state::FIN_BACKEND;
    state & flow_state::RESET != 0 || state & BOTH_FINS == BOTH_FINS
}

/// Ticks that a flow may be idle.
#[inline(always)]
pub fn lifetime(config: &Config, protocol: u8, state: u8) -> u32 {
    if protocol == protocol::UDP {
        if state & flow_state::REPLIED != 0 { config.lifetime_udp_replied } else { config.lifetime_udp }
    } else if is_closing(state) {
        config.lifetime_closing
    } else if state & flow_state::CONFIRMED != 0 {
        config.lifetime_established
    } else {
        config.lifetime_opening
    }
}

/// Ticks from `then` to `now`; the clock wraps. A `then` slightly ahead of `now` (another CPU's clock) counts as no time.
#[inline(always)]
pub fn elapsed(now: u32, then: u32) -> u32 {
    let ticks = now.wrapping_sub(then);
    if ticks > u32::MAX / 2 { 0 } else { ticks }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYN: u8 = tcp_flag::SYN;
    const ACK: u8 = tcp_flag::ACK;
    const FIN: u8 = tcp_flag::FIN;

    #[test]
    fn c2_tcp_life() {
        let config = Config::with_ticks_per_second(100);
        let mut state = 0;
        for (flags, reply, seconds) in [
            (SYN, false, 60),
            (SYN | ACK, true, 60),
            (ACK, false, 8000),
            (ACK, true, 8000),
            (FIN | ACK, false, 8000),
            (ACK, true, 8000),
            (FIN | ACK, true, 10),
            (ACK, false, 10),
        ] {
            state |= learned(state, protocol::TCP, flags, reply);
            assert_eq!(
                lifetime(&config, protocol::TCP, state),
                seconds * 100,
                "after {flags:#x} reply {reply}"
            );
        }
    }

    #[test]
    fn c2_a_flood_of_answered_syns_does_not_become_established() {
        let mut state = 0;
        for (flags, reply) in [(SYN, false), (SYN | ACK, true), (SYN, false), (SYN | ACK, true)] {
            state |= learned(state, protocol::TCP, flags, reply);
        }
        assert_eq!(state & flow_state::CONFIRMED, 0);
    }

    #[test]
    fn c2_udp_life() {
        let config = Config::with_ticks_per_second(100);
        assert_eq!(lifetime(&config, protocol::UDP, 0), 3000);
        let state = learned(0, protocol::UDP, 0, true);
        assert_eq!(lifetime(&config, protocol::UDP, state), 12_000);
    }

    #[test]
    fn c2_reset_closes_from_either_side() {
        for reply in [false, true] {
            assert!(is_closing(learned(0, protocol::TCP, tcp_flag::RST, reply)));
        }
    }
}
