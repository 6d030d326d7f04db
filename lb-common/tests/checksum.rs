//! Corrected checksums are what computing them anew gives.

use lb_common::engine::checksum::{
    add, addr_delta, fix_complete, fix_keeping_kind, half_delta, negate, update,
};
use lb_common::engine::packet::TransportFix;
use proptest::prelude::*;

/// From the definition (RFC 1071), in native byte order as the engine has it.
fn sum(bytes: &[u8]) -> u16 {
    let mut sum: u64 = 0;
    for pair in bytes.chunks(2) {
        sum += u64::from(u16::from_ne_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn bytes(addrs: [[u32; 4]; 2], ports: [u16; 2], data: &[u8]) -> Vec<u8> {
    let mut bytes: Vec<u8> = addrs.concat().iter().flat_map(|word| word.to_ne_bytes()).collect();
    bytes.extend(ports.iter().flat_map(|port| port.to_ne_bytes()));
    bytes.extend(data);
    bytes
}

/// A word, with the ones at which carries go wrong more often than chance has it.
fn word() -> impl Strategy<Value = u32> {
    prop_oneof![any::<u32>(), Just(0), Just(u32::MAX), Just(0xffff), Just(0xffff_0000)]
}

fn addrs() -> impl Strategy<Value = [[u32; 4]; 2]> {
    [[word(), word(), word(), word()], [word(), word(), word(), word()]]
}

fn half() -> impl Strategy<Value = u16> {
    prop_oneof![any::<u16>(), Just(0), Just(u16::MAX)]
}

proptest! {
    #[test]
    fn corrected_is_recomputed(
        old in addrs(), new in addrs(), old_ports in [half(), half()], new_ports in [half(), half()],
        data in prop::collection::vec(any::<u8>(), 1..64), udp: bool,
    ) {
        // A header is never all zero, so its sum is never the other zero.
        prop_assume!(data.iter().any(|byte| *byte != 0));
        let computed = |field: u16| if udp && field == 0 { 0xffff } else { field };
        let before = computed(!sum(&bytes(old, old_ports, &data)));
        let after = computed(!sum(&bytes(new, new_ports, &data)));
        let fix = TransportFix {
            addr_delta: addr_delta(old, new),
            port_delta: half_delta(old_ports, new_ports),
            // Anything but the field itself: it is complete.
            pseudo_header: !before,
            start: 0,
            end: 0,
            udp,
            ipv6: true,
        };
        prop_assert_eq!(fix_complete(before, &fix), after);
        prop_assert_eq!(fix_keeping_kind(before, &fix), after);
    }

    #[test]
    fn a_partial_sum_is_that_of_the_new_addresses(old in addrs(), new in addrs(), length in 1u16..) {
        let pseudo = |addrs| sum(&bytes(addrs, [length.to_be(), 6u16.to_be()], &[]));
        let fix = TransportFix {
            addr_delta: addr_delta(old, new),
            port_delta: 0x1234,
            pseudo_header: pseudo(old),
            start: 0,
            end: 0,
            udp: false,
            ipv6: true,
        };
        prop_assert_eq!(fix_keeping_kind(pseudo(old), &fix), pseudo(new));
    }

    #[test]
    fn deltas_add_up_and_take_back(old in addrs(), mid in addrs(), new in addrs(), field: u16) {
        let (first, second) = (addr_delta(old, mid), addr_delta(mid, new));
        prop_assert_eq!(add(first, second), addr_delta(old, new));
        prop_assert_eq!(negate(first), addr_delta(mid, old));
        prop_assert_eq!(addr_delta(old, old), 0);
        // Both zeros mean the same; a field that is neither comes back as it was.
        prop_assume!(field != 0 && field != 0xffff);
        prop_assert_eq!(update(update(field, first), negate(first)), field);
    }
}
