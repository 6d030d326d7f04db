//! What a machine finds when it starts: an archive in the kernel's `newc` format (Documentation/driver-api/early-userspace).

use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::Context;

use super::{kernel::Kernel, modules};

/// Where Debian puts busybox.
const BUSYBOX: &str = "/bin/busybox";

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const FILE: u32 = 0o100_644;
/// A character device.
const DEVICE: u32 = 0o020_600;

/// Writes the archive: the program as `/init`, busybox, the kernel's modules.
pub(crate) fn write(to: &Path, program: &Path, kernel: &Kernel) -> anyhow::Result<()> {
    let mut archive = Archive::default();
    for folder in ["bin", "dev", "modules", "proc", "run", "sys", "tmp", "etc"] {
        archive.add(folder, FOLDER, &[]);
    }
    // The kernel opens it for PID 1, before anything is mounted.
    archive.add("dev/console", DEVICE, &[]);
    archive.add("init", PROGRAM, &fs::read(program).with_context(|| format!("read {}", program.display()))?);
    archive.add("bin/busybox", PROGRAM, &fs::read(BUSYBOX).with_context(|| format!("read {BUSYBOX}"))?);
    for (number, module) in modules::of(kernel)?.iter().enumerate() {
        archive.add(&format!("modules/{number:02}-{}.ko", module.name), FILE, &module.contents);
    }
    archive.add("TRAILER!!!", 0, &[]);
    fs::write(to, archive.bytes).with_context(|| format!("write {}", to.display()))
}

#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    files: u32,
}

impl Archive {
    fn add(&mut self, name: &str, mode: u32, contents: &[u8]) {
        self.files += 1;
        // The console is device 5:1.
        let (major, minor) = if mode == DEVICE { (5, 1) } else { (0, 0) };
        let length = contents.len() as u32;
        let name_length = name.len() as u32 + 1;
        let fields = [self.files, mode, 0, 0, 1, 0, length, 0, 0, major, minor, name_length, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            // Writing to memory does not fail.
            let _infallible = write!(self.bytes, "{field:08x}");
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend_from_slice(contents);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_as_the_kernel_reads_them() {
        let mut archive = Archive::default();
        archive.add("a", FILE, b"hello");
        let text = String::from_utf8(archive.bytes).unwrap();
        let header = "070701 00000001 000081a4 00000000 00000000 00000001 00000000 00000005 00000000 00000000 \
                      00000000 00000000 00000002 00000000";
        // 110 bytes of header and two of name, then the contents, each filled up to four.
        assert_eq!(text, header.replace(' ', "") + "a\0hello\0\0\0");
    }
}
