//! Fuzzing: what may arrive on a wire, in a file or from a damaged map, as plain bytes.
//!
//! A [`Target`] takes any bytes and says what does not hold. The same targets are run by `cargo fuzz` (see `fuzz/`), by
//! [`grow`], which needs nothing installed, and by a test with a fixed number of inputs. What was found lies in
//! `tests/crashes/<target>/` and is run by that test as well.

pub mod grow;
mod input;
mod manifests;
mod names;
mod packets;
mod pins;
mod sequences;

use std::any::Any;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

pub use sequences::Played;

/// Something that takes any bytes.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// What the bytes are.
    pub about: &'static str,
    /// Takes them, and says what does not hold; it may also panic.
    pub run: fn(&[u8]) -> Result<(), String>,
    /// Inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Inputs longer than this are cut.
    pub longest: usize,
}

/// All targets.
pub const TARGETS: [Target; 5] = [
    Target {
        name: "packets",
        about: "one packet, to an engine with services of both families",
        run: packets::run,
        seeds: packets::seeds,
        longest: 2_048,
    },
    Target {
        name: "sequences",
        about: "packets one after another, while backends come and go and time passes",
        run: sequences::run,
        seeds: sequences::seeds,
        longest: 1_024,
    },
    Target {
        name: "manifests",
        about: "a file of manifests, up to the tables",
        run: manifests::run,
        seeds: manifests::seeds,
        longest: 8_192,
    },
    Target { name: "names", about: "a DNS message", run: names::run, seeds: names::seeds, longest: 1_024 },
    Target {
        name: "pins",
        about: "pinned maps of another version, or damaged",
        run: pins::run,
        seeds: pins::seeds,
        longest: 2_048,
    },
];

impl Target {
    /// The target of this name.
    pub fn named(name: &str) -> Option<Self> {
        TARGETS.into_iter().find(|target| target.name == name)
    }

    /// Takes some bytes. A panic is something that does not hold, too.
    ///
    /// # Errors
    /// What does not hold.
    pub fn check(&self, bytes: &[u8]) -> Result<(), String> {
        let text = |panic: Box<dyn Any + Send>| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            format!("panicked: {}", text.unwrap_or("for no reason that has a text"))
        };
        let run = AssertUnwindSafe(|| (self.run)(&bytes[..bytes.len().min(self.longest)]));
        catch_unwind(run).unwrap_or_else(|panic| Err(text(panic)))
    }

    /// Where inputs lie that something was found with.
    pub fn crashes(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("crashes").join(self.name)
    }

    /// Those inputs, by file.
    ///
    /// # Panics
    /// When one cannot be read.
    pub fn found(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let Ok(entries) = fs::read_dir(self.crashes()) else { return Vec::new() };
        let paths = entries.map(|entry| entry.expect("reads").path());
        let mut found: Vec<_> = paths.map(|path| (path.clone(), fs::read(path).expect("reads"))).collect();
        found.sort();
        found
    }
}
