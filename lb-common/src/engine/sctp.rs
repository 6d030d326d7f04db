//! SCTP's checksum (RFC 9260 section 6.8, CRC32c as in RFC 3309) when ports change.
//!
//! CRC is linear: the CRC of the changed packet is the old one, XOR the CRC (without initial value and final
//! complement) of the difference, which is four bytes followed by as many zeros as the packet has behind its ports.
//! Appending zeros multiplies by powers of x modulo the polynomial, and these are squared up in a fixed table.

use super::packet::Packet;
use super::parse::{Met, join_ports};
use crate::family::Address;

/// CRC32c polynomial (Castagnoli), bits reflected.
const POLYNOMIAL: u32 = 0x82f6_3b78;
/// Lengths up to 2^17 bytes.
const POWERS: usize = 17;

/// Product of two polynomials modulo [`POLYNOMIAL`], bits reflected: bit 31 is x^0.
#[inline(always)]
const fn multiply(a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    let mut bit = 0;
    while bit < 32 {
        // All ones when the coefficient is set: no branch, so the verifier has one path.
        product ^= b & (0u32.wrapping_sub((a >> (31 - bit)) & 1));
        b = (b >> 1) ^ (POLYNOMIAL & (0u32.wrapping_sub(b & 1)));
        bit += 1;
    }
    product
}

/// `x^(8 * 2^i)`: what `2^i` zero bytes multiply by.
const ZERO_BYTES: [u32; POWERS] = {
    let mut powers = [0; POWERS];
    // x^8, bits reflected.
    powers[0] = 1 << (31 - 8);
    let mut i = 1;
    while i < POWERS {
        powers[i] = multiply(powers[i - 1], powers[i - 1]);
        i += 1;
    }
    powers
};

/// Products with each of [`ZERO_BYTES`], by nibble of the other factor: `[power][nibble position][nibble]`.
///
/// 8.5 KiB of read-only data instead of 32 steps a product, which the verifier would walk one by one.
static PRODUCTS: [[[u32; 16]; 8]; POWERS] = {
    let mut products = [[[0; 16]; 8]; POWERS];
    let mut power = 0;
    while power < POWERS {
        let mut bit = 0;
        while bit < 32 {
            let product = multiply(1 << bit, ZERO_BYTES[power]);
            let mut nibble = 0;
            while nibble < 16 {
                if nibble >> (bit % 4) & 1 != 0 {
                    products[power][bit / 4][nibble] ^= product;
                }
                nibble += 1;
            }
            bit += 1;
        }
        power += 1;
    }
    products
};

/// `crc` followed by `2^power` zero bytes.
#[inline(always)]
fn append_zeros(crc: u32, power: usize) -> u32 {
    let mut product = 0;
    for (position, nibbles) in PRODUCTS[power].iter().enumerate() {
        product ^= nibbles[(crc >> (position * 4)) as usize & 0xf];
    }
    product
}

/// CRC of four bytes (as they lie in the packet) followed by `zeros` zero bytes, initial value and complement left out.
#[inline(always)]
fn difference_crc(difference: u32, zeros: usize) -> u32 {
    // Four bytes go in first byte first, least significant bit first; they count x^32 in front of the remainder.
    let mut crc = append_zeros(u32::from_le(difference), 2);
    for power in 0..POWERS {
        if zeros >> power & 1 != 0 {
            crc = append_zeros(crc, power);
        }
    }
    crc
}

/// Corrects the checksum of an SCTP packet whose ports become `sport_be` and `dport_be`. A zero field (a device is
/// to fill it in, or nobody checks it) stays.
///
/// Never inlined: its loops are long, and SCTP packets are few.
#[inline(never)]
pub(super) fn fix_checksum<A: Address, P: Packet>(
    packet: &mut P,
    met: &Met<A>,
    sport_be: u16,
    dport_be: u16,
) -> Option<()> {
    let at = met.transport;
    let difference = join_ports(met.key.sport_be, met.key.dport_be) ^ join_ports(sport_be, dport_be);
    if difference == 0 {
        return Some(());
    }
    let [field] = packet.words::<1>(at + 8)?;
    if field == 0 {
        return Some(());
    }
    // The checksum is sent least significant byte first (RFC 9260 appendix A).
    let crc = u32::from_le(field) ^ difference_crc(difference, met.end - at - 4);
    packet.set_words(at + 8, [crc.to_le()])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bit by bit, from the definition.
    fn crc32c(bytes: &[u8]) -> u32 {
        let mut crc = !0u32;
        for byte in bytes {
            crc ^= u32::from(*byte);
            for _ in 0..8 {
                crc = (crc >> 1) ^ (POLYNOMIAL & 0u32.wrapping_sub(crc & 1));
            }
        }
        !crc
    }

    #[test]
    fn check_value_of_rfc_3720() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn ports_change_as_if_recomputed() {
        for length in [12usize, 13, 16, 99, 1400, 65_000] {
            let mut bytes: Vec<u8> = (0..length).map(|i| (i * 7) as u8).collect();
            bytes[8..12].fill(0);
            let before = crc32c(&bytes);
            let old = u32::from_ne_bytes(bytes[0..4].try_into().unwrap());
            bytes[0..4].copy_from_slice(&[0x12, 0x34, 0xab, 0xcd]);
            let new = u32::from_ne_bytes(bytes[0..4].try_into().unwrap());
            assert_eq!(before ^ difference_crc(old ^ new, length - 4), crc32c(&bytes), "length {length}");
        }
    }
}
