//! What the kernel's verifier says of each program, against what is recorded.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, bail};
use aya::VerifierLogLevel;
use aya::programs::{Program, ProgramError, ProgramInfo};
use lb_userspace::dataplane;
use lb_userspace::object::OBJECT;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

use crate::rows::kernel;

/// Growth that is let pass, in percent.
const TOLERANCE: u64 = 5;
/// How the record is renewed.
const REMEDY: &str = "`cargo xtask verifier --update` records what it is now";

/// What one program costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// Instructions that the verifier walks; the kernel allows a million.
    pub verified_instructions: u64,
    /// Bytes of stack of the function that takes most, 512 allowed for it and its callers together.
    pub stack_bytes: u64,
    /// Bytes of the program as the kernel keeps it, before it is compiled.
    pub translated_bytes: u64,
}

/// What all programs cost, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// The kernel's major and minor version: each verifier walks in its own way.
    pub kernel: String,
    /// The compiler, as it calls itself: each makes other code.
    pub compiler: String,
    /// By name.
    pub programs: BTreeMap<String, Cost>,
}

/// Where the record is.
pub fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/verifier.json")
}

impl Budget {
    /// Loads all programs and asks. Nothing else in this process may open a file meanwhile.
    ///
    /// # Errors
    /// The kernel refuses a program, or does not say what it costs.
    pub fn measure() -> anyhow::Result<Self> {
        let config = dataplane::config();
        let mut loader = kernel::loader(&config, kernel::small);
        let mut ebpf = loader.verifier_log_level(VerifierLogLevel::STATS).load(OBJECT)?;
        let mut programs = BTreeMap::new();
        for (name, program) in ebpf.programs_mut() {
            let cost = cost(program).with_context(|| format!("program {name}"))?;
            programs.insert(name.to_owned(), cost);
        }
        Ok(Self { kernel: kernel_version()?, compiler: compiler(), programs })
    }

    /// The record.
    ///
    /// # Errors
    /// It is not there, or something else.
    pub fn recorded() -> anyhow::Result<Self> {
        let path = path();
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("read {}: {REMEDY}", path.display()))
    }

    /// Makes this the record.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn record(&self) -> anyhow::Result<()> {
        let path = path();
        let text = serde_json::to_string_pretty(self)? + "\n";
        std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))
    }

    /// Whether numbers of the two may be compared: only those of the same kernel and compiler.
    pub fn is_comparable(&self, other: &Self) -> bool {
        self.kernel == other.kernel && self.compiler == other.compiler
    }

    /// What has grown by more than is let pass, or is not recorded, a line each.
    pub fn grown_since(&self, recorded: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        for (name, cost) in &self.programs {
            let Some(before) = recorded.programs.get(name) else {
                lines.push(format!("{name} is not recorded: {REMEDY}"));
                continue;
            };
            for (what, before, now) in [
                ("verified instructions", before.verified_instructions, cost.verified_instructions),
                ("bytes of stack", before.stack_bytes, cost.stack_bytes),
                ("translated bytes", before.translated_bytes, cost.translated_bytes),
            ] {
                if now * 100 > before * (100 + TOLERANCE) {
                    lines.push(format!(
                        "{name}: {before} {what} have become {now}, more than {TOLERANCE}% on top: {REMEDY}"
                    ));
                }
            }
        }
        lines
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut text = format!("kernel {}, {}\n", self.kernel, self.compiler);
        text += "program                 verified  stack  translated\n";
        for (name, cost) in &self.programs {
            let Cost { verified_instructions, stack_bytes, translated_bytes } = cost;
            text += &format!("{name:22} {verified_instructions:9} {stack_bytes:6} {translated_bytes:11}\n");
        }
        text
    }
}

fn kernel_version() -> anyhow::Result<String> {
    let release =
        std::fs::read_to_string("/proc/sys/kernel/osrelease").context("read the kernel's release")?;
    Ok(release.trim().split('.').take(2).collect::<Vec<_>>().join("."))
}

/// The compiler's name in the object's debug information.
fn compiler() -> String {
    const MARK: &[u8] = b"rustc version ";
    let found = OBJECT.windows(MARK.len()).position(|bytes| bytes == MARK);
    let text = found.map(|at| String::from_utf8_lossy(&OBJECT[at..OBJECT.len().min(at + 64)]).into_owned());
    let words = text.as_deref().map(|text| text.split([' ', ')']).take(3).collect::<Vec<_>>().join(" "));
    words.unwrap_or_else(|| "an unknown compiler".to_owned())
}

fn cost(program: &mut Program) -> anyhow::Result<Cost> {
    let log = statistics(program)?;
    load(program)?;
    let info: ProgramInfo = match program {
        Program::Xdp(program) => program.info()?,
        Program::SchedClassifier(program) => program.info()?,
        Program::CgroupSockAddr(program) => program.info()?,
        Program::CgroupSock(program) => program.info()?,
        _ => bail!("a type that is not known here"),
    };
    Ok(Cost {
        verified_instructions: info
            .verified_instruction_count()
            .map(u64::from)
            .context("the kernel does not say how many instructions it has verified")?,
        stack_bytes: stack(&log).with_context(|| format!("the verifier does not say the stack: {log}"))?,
        translated_bytes: info
            .size_translated()
            .map(u64::from)
            .context("the kernel does not say its size")?,
    })
}

fn load(program: &mut Program) -> Result<(), ProgramError> {
    match program {
        Program::Xdp(program) => program.load(),
        Program::SchedClassifier(program) => program.load(),
        Program::CgroupSockAddr(program) => program.load(),
        Program::CgroupSock(program) => program.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

/// What the verifier says of a program it accepts.
///
/// The loader keeps that to itself when loading succeeds. So it is made to fail after the verifier's work, when the kernel
/// wants a descriptor for the program and may not have one.
fn statistics(program: &mut Program) -> anyhow::Result<String> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("read the limit of open files")?;
    setrlimit(Resource::RLIMIT_NOFILE, 0, hard).context("lower the limit of open files")?;
    let result = load(program);
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).context("restore the limit of open files")?;
    match result {
        Err(ProgramError::LoadError { io_error, verifier_log })
            if io_error.raw_os_error() == Some(nix::libc::EMFILE) =>
        {
            Ok(verifier_log.to_string())
        }
        Err(error) => Err(error).context("the verifier refuses it"),
        Ok(()) => bail!("it was loaded without a descriptor"),
    }
}

/// The largest number of a line such as `stack depth 120+0+64`: that of the program, then those of its functions.
fn stack(log: &str) -> Option<u64> {
    let line = log.lines().find_map(|line| line.strip_prefix("stack depth "))?;
    line.trim().split('+').map(|depth| depth.parse().ok()).collect::<Option<Vec<u64>>>()?.into_iter().max()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(verified_instructions: u64, stack_bytes: u64) -> Budget {
        let cost = Cost { verified_instructions, stack_bytes, translated_bytes: 1_000 };
        let programs = [("p".to_owned(), cost)].into();
        Budget { kernel: "6.18".to_owned(), compiler: "rustc".to_owned(), programs }
    }

    #[test]
    fn growth_up_to_the_tolerance_passes() {
        let recorded = budget(1_000, 100);
        assert!(budget(1_050, 105).grown_since(&recorded).is_empty());
        assert!(budget(10, 0).grown_since(&recorded).is_empty());
        assert_eq!(budget(1_051, 106).grown_since(&recorded).len(), 2);
        let unknown = Budget { programs: BTreeMap::new(), ..recorded.clone() };
        assert_eq!(recorded.grown_since(&unknown).len(), 1);
    }

    #[test]
    fn only_the_same_kernel_and_compiler_are_compared() {
        let recorded = budget(1, 1);
        assert!(recorded.is_comparable(&budget(2, 2)));
        assert!(!recorded.is_comparable(&Budget { kernel: "6.1".to_owned(), ..recorded.clone() }));
        assert!(!recorded.is_comparable(&Budget { compiler: String::new(), ..recorded.clone() }));
    }

    #[test]
    fn the_deepest_function_counts() {
        assert_eq!(stack("verification time 5 usec\nstack depth 96+0+208\nprocessed 9 insns"), Some(208));
        assert_eq!(stack("stack depth 8"), Some(8));
        assert_eq!(stack("stack depth x"), None);
        assert_eq!(stack(""), None);
    }

    #[test]
    fn the_object_names_its_compiler() {
        let name = compiler();
        assert!(name.starts_with("rustc version ") && name.len() > "rustc version ".len(), "{name}");
    }
}
