//! The kernel programs, embedded: `lb` needs no file beside it.

use std::sync::OnceLock;

use crate::dataplane::kernel_at_least;

/// The object file with all programs, maps and BTF, as built by the build script. Aligned to 8 bytes, as the ELF reader
/// wants it.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lb.bpf.o"));

/// The first kernel whose atomic instructions return something: it takes the object as it was built.
pub const ATOMICS: (u8, u8) = (5, 12);

/// The object as the running kernel takes it.
///
/// Kernels before 5.12 refuse instructions that they do not know wherever these stand, also where the verifier never
/// gets to (`BPF_STX uses reserved fields`; seen on 5.10). The programs do not get to them either when
/// [`config_flag::NO_FETCH`](lb_common::abi::config_flag::NO_FETCH) is set, so something harmless takes their places.
pub fn for_this_kernel() -> &'static [u8] {
    static WITHOUT_FETCH: OnceLock<Vec<u8>> = OnceLock::new();
    if kernel_at_least(ATOMICS.0, ATOMICS.1) {
        return OBJECT;
    }
    WITHOUT_FETCH.get_or_init(|| {
        let mut object = OBJECT.to_vec();
        remove_fetch(&mut object);
        object
    })
}

/// Turns every atomic instruction that returns something into an atomic addition; how many there were.
fn remove_fetch(object: &mut [u8]) -> usize {
    let mut count = 0;
    for section in instructions(object) {
        let Some(code) = object.get_mut(section) else { continue };
        let mut wide = false;
        for instruction in code.chunks_exact_mut(8) {
            // The second half of a wide instruction holds a number.
            if std::mem::take(&mut wide) {
                continue;
            }
            wide = instruction[0] == LOAD_WIDE;
            let is_atomic = instruction[0] & CLASS == STORE && instruction[0] & MODE == ATOMIC;
            if is_atomic && instruction[4..] != ADD {
                instruction[4..].copy_from_slice(&ADD);
                count += 1;
            }
        }
    }
    count
}

// Operation codes, linux/bpf.h and linux/bpf_common.h.
const CLASS: u8 = 0x07;
const MODE: u8 = 0xe0;
const LOAD_WIDE: u8 = 0x18;
const STORE: u8 = 0x03;
const ATOMIC: u8 = 0xc0;
/// What an atomic instruction does, for those that kernels before 5.12 know.
const ADD: [u8; 4] = [0; 4];

/// Where instructions are in an ELF file of 64 bits, least byte first (System V ABI, chapter 4).
fn instructions(object: &[u8]) -> Vec<std::ops::Range<usize>> {
    const PROGBITS: usize = 1;
    const EXECINSTR: usize = 4;
    let number = |at: usize, bytes: usize| {
        let bytes = object.get(at..at.checked_add(bytes)?)?;
        Some(bytes.iter().rev().fold(0_usize, |number, byte| number << 8 | usize::from(*byte)))
    };
    let header = || Some((number(0x28, 8)?, number(0x3a, 2)?, number(0x3c, 2)?));
    let Some((table, size, count)) = header() else { return Vec::new() };
    let section = |index: usize| {
        let field = |offset: usize| table.checked_add(index * size + offset);
        let is_code = number(field(0x04)?, 4)? == PROGBITS && number(field(0x08)?, 8)? & EXECINSTR != 0;
        let (offset, length) = (number(field(0x18)?, 8)?, number(field(0x20)?, 8)?);
        is_code.then_some(offset..offset.checked_add(length)?)
    };
    (0..count).filter_map(section).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loader_finds_programs_maps_and_types_in_it() {
        let object = aya_obj::Object::parse(OBJECT).expect("the loader reads the object");
        assert!(!object.programs.is_empty(), "no programs");
        assert!(!object.maps.is_empty(), "no maps");
        assert!(object.btf.is_some(), "no BTF: was it linked with --btf?");
        assert!(object.btf_ext.is_some(), "no source lines: was it compiled with debug information?");
    }

    #[test]
    fn what_old_kernels_do_not_know_is_taken_out_and_nothing_else() {
        let mut old = OBJECT.to_vec();
        let count = remove_fetch(&mut old);
        // The lock of a set is taken and given back, a turn is taken: one of each at the least.
        assert!(count >= 3, "{count} instructions changed");
        assert_eq!(remove_fetch(&mut old), 0);
        let changed = OBJECT.iter().zip(&old).filter(|(before, after)| before != after).count();
        assert!(changed >= count && changed <= 4 * count, "{changed} bytes, {count} instructions");
        aya_obj::Object::parse(&old).expect("the loader reads what is left");
    }

    #[test]
    fn what_is_no_object_has_no_instructions() {
        assert!(instructions(&[]).is_empty());
        assert!(instructions(&[0xff; 64]).is_empty());
        assert_eq!(remove_fetch(&mut [0xdb; 200]), 0);
    }
}
