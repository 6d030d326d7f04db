//! How the slots of a list are shared among its backends (S1–S3).

use std::net::IpAddr;

use super::words::wide;

/// Slots of a weighted list at most, unless it has more backends: shares are then right to about 0.1 % of the whole.
pub const WEIGHTED_SLOTS: u64 = 1024;
/// Size of a Maglev table unless asked otherwise (S3): a prime, and over 100 times the backends of all but huge services.
pub const MAGLEV_SLOTS: u32 = 16_381;

/// Slots by weight, each backend's as far apart as can be. Gives indices into `weights`.
///
/// Weight 0 gets no slot, unless all weights are 0: then all are alike.
pub fn weighted(weights: &[u16]) -> Vec<usize> {
    let counts = slot_counts(weights);
    // The k-th of n slots of a backend belongs at (2k + 1) / 2n of the way round.
    let mut places: Vec<(u64, u64, usize)> = Vec::new();
    for (backend, &count) in counts.iter().enumerate() {
        places.extend((0..count).map(|k| (2 * k + 1, count, backend)));
    }
    places.sort_by(|a, b| (a.0 * b.1).cmp(&(b.0 * a.1)).then(a.2.cmp(&b.2)));
    places.into_iter().map(|(_, _, backend)| backend).collect()
}

fn slot_counts(weights: &[u16]) -> Vec<u64> {
    let weights: Vec<u64> = if weights.iter().all(|weight| *weight == 0) {
        vec![1; weights.len()]
    } else {
        weights.iter().map(|weight| u64::from(*weight)).collect()
    };
    let divisor = weights.iter().copied().fold(0, gcd).max(1);
    let counts: Vec<u64> = weights.iter().map(|weight| weight / divisor).collect();
    let total: u64 = counts.iter().sum();
    let room = WEIGHTED_SLOTS.max(counts.len() as u64);
    if total <= room {
        return counts;
    }
    // Too many: everyone's share rounded down (but to no less than one slot), what is left over to the largest remainders.
    let mut scaled: Vec<u64> =
        counts.iter().map(|count| if *count == 0 { 0 } else { (count * room / total).max(1) }).collect();
    let mut order: Vec<usize> = (0..counts.len()).filter(|i| counts[*i] > 0).collect();
    order.sort_by_key(|i| std::cmp::Reverse(counts[*i] * room % total));
    let left = room.saturating_sub(scaled.iter().sum());
    for i in order.into_iter().take(left as usize) {
        scaled[i] += 1;
    }
    scaled
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// A Maglev table of `size` slots (the next prime, if it is none): indices into `backends`.
///
/// After section 3.4 of "Maglev: A Fast and Reliable Software Network Load Balancer" (Eisenbud et al., NSDI 2016): every
/// backend walks the table in an order of its own, (offset + j · skip) mod size, and in turn they take the first free slot on
/// their way. The walk depends on address and port alone, so all nodes build the same table; it is at least as large as
/// the number of backends.
pub fn maglev(backends: &[(IpAddr, u16)], size: u32) -> Vec<usize> {
    if backends.is_empty() {
        return Vec::new();
    }
    let size = next_prime(u64::from(size).max(backends.len() as u64).max(2)) as usize;
    // In the order of their identities, not in that of the list.
    let mut order: Vec<usize> = (0..backends.len()).collect();
    order.sort_by_key(|i| backends[*i]);
    let mut walks: Vec<(usize, usize)> = order
        .iter()
        .map(|i| {
            let offset = identity_hash(backends[*i], 0) % size as u64;
            let skip = identity_hash(backends[*i], 1) % (size as u64 - 1) + 1;
            (offset as usize, skip as usize)
        })
        .collect();
    const FREE: usize = usize::MAX;
    let mut table = vec![FREE; size];
    let mut filled = 0;
    loop {
        for (position, (next, skip)) in walks.iter_mut().enumerate() {
            while table[*next] != FREE {
                *next = (*next + *skip) % size;
            }
            table[*next] = order[position];
            filled += 1;
            if filled == size {
                return table;
            }
        }
    }
}

/// FNV-1a over address and port, from one of two starting points, mixed at the end since FNV alone spreads the last
/// bytes badly. Fixed for ever: tables of different versions must agree (S3).
fn identity_hash((addr, port): (IpAddr, u16), which: u64) -> u64 {
    const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let mut hash = OFFSET_BASIS ^ which.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for word in wide(addr) {
        for byte in word.to_ne_bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(PRIME);
        }
    }
    for byte in port.to_be_bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(PRIME);
    }
    // The finaliser of MurmurHash3 (public domain).
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

fn next_prime(mut number: u64) -> u64 {
    while (2..).take_while(|d| d * d <= number).any(|d| number.is_multiple_of(d)) {
        number += 1;
    }
    number
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn backends(n: u32) -> Vec<(IpAddr, u16)> {
        (0..n).map(|i| (IpAddr::V4(Ipv4Addr::from(0x0a01_0001 + i * 7)), 8080)).collect()
    }

    fn shares(slots: &[usize], n: usize) -> Vec<usize> {
        let mut shares = vec![0; n];
        for slot in slots {
            shares[*slot] += 1;
        }
        shares
    }

    #[test]
    fn weights_are_kept() {
        assert_eq!(weighted(&[1, 1, 1]), [0, 1, 2]);
        assert_eq!(shares(&weighted(&[10, 20, 30]), 3), [1, 2, 3]);
        assert_eq!(weighted(&[3, 1]), [0, 0, 1, 0]);
        assert_eq!(weighted(&[0, 2]), [1]);
        assert_eq!(weighted(&[0, 0]), [0, 1]);
        assert!(weighted(&[]).is_empty());
    }

    #[test]
    fn odd_weights_are_right_within_five_percent() {
        for weights in [vec![997, 499, 251], vec![65_535, 65_534, 40_001, 30_011], vec![100, 101, 103, 107]] {
            let total: f64 = weights.iter().map(|w| f64::from(*w)).sum();
            let slots = weighted(&weights);
            assert!(slots.len() as u64 <= WEIGHTED_SLOTS, "{}", slots.len());
            for (weight, share) in weights.iter().zip(shares(&slots, weights.len())) {
                let (want, got) = (f64::from(*weight) / total, share as f64 / slots.len() as f64);
                assert!((got / want - 1.0).abs() < 0.05, "{weights:?}: {weight} got {got}, want {want}");
            }
        }
    }

    #[test]
    fn every_weight_above_zero_has_a_slot() {
        let shares = shares(&weighted(&[65_535, 1, 65_535]), 3);
        assert!(shares[1] >= 1, "{shares:?}");
    }

    #[test]
    fn weighted_slots_interleave() {
        let slots = weighted(&[5, 5]);
        assert_eq!(slots, [0, 1], "divided by the common factor");
        let slots = weighted(&[4, 2, 1]);
        // The heaviest never comes three times in a row.
        let doubled: Vec<usize> = slots.iter().chain(&slots).copied().collect();
        assert!(!doubled.windows(3).any(|w| w == [0, 0, 0]), "{slots:?}");
    }

    #[test]
    fn maglev_is_even_and_the_same_everywhere() {
        for n in [1, 2, 3, 10, 100] {
            let backends = backends(n);
            let table = maglev(&backends, MAGLEV_SLOTS);
            assert_eq!(table.len() as u32, MAGLEV_SLOTS);
            let shares = shares(&table, n as usize);
            let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
            assert!(most - least <= 1, "{n}: {least} to {most}");
            // A node that lists them in another order has the same table of identities.
            let reversed: Vec<_> = backends.iter().rev().copied().collect();
            let other = maglev(&reversed, MAGLEV_SLOTS);
            assert!(table.iter().zip(&other).all(|(a, b)| backends[*a] == reversed[*b]), "{n}");
        }
    }

    #[test]
    fn maglev_moves_little() {
        for n in [2_u32, 3, 5, 10, 30, 100] {
            let all = backends(n);
            let before = maglev(&all, MAGLEV_SLOTS);
            for gone in [0, n as usize / 2, n as usize - 1] {
                let mut left = all.clone();
                left.remove(gone);
                let after = maglev(&left, MAGLEV_SLOTS);
                let moved = before.iter().zip(&after).filter(|(a, b)| all[**a] != left[**b]).count();
                let share = moved as f64 / f64::from(MAGLEV_SLOTS);
                let promise = 1.0 / f64::from(n) + 0.02;
                assert!(share <= promise, "1 of {n} gone: {share:.4} moved, promised {promise:.4}");
            }
        }
    }

    #[test]
    fn maglev_takes_the_next_prime() {
        assert_eq!(maglev(&backends(3), 10).len(), 11);
        assert_eq!(maglev(&backends(20), 7).len(), 23);
        assert!(maglev(&[], 7).is_empty());
    }
}
