//! The kernel programs, embedded: `lb` needs no file beside it.

/// The object file with all programs, maps and BTF, as built by the build script. Aligned to 8 bytes, as the ELF reader
/// wants it.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lb.bpf.o"));

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
}
