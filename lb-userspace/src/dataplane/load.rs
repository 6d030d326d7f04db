//! Loading the programs with the maps that are pinned.

use std::collections::BTreeMap;
use std::time::Duration;

use aya::programs::{Program, ProgramError, SchedClassifier, Xdp};
use aya::util::KernelVersion;
use aya::{Ebpf, EbpfError, EbpfLoader};
use aya_log::EbpfLogger;
use lb_common::abi::{Config, Meta, config_flag};
use lb_common::tables::{SPECS, Spec, Table};
use nix::time::{ClockId, clock_getres};

use super::{DataplaneError, PinDir, SocketHook};
use crate::maps::{MapError, MapStore};
use crate::object;

/// Lines of the verifier's log that are shown: its verdict and what led to it.
const VERIFIER_LINES: usize = 12;

/// Numbers of entries that differ from the defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sizes(BTreeMap<Table, u32>);

impl Sizes {
    /// Sets the number of entries of a map.
    pub fn set(&mut self, table: Table, entries: u32) {
        self.0.insert(table, entries);
    }

    /// The number of entries of a map.
    pub fn of(&self, spec: &Spec) -> u32 {
        self.0.get(&spec.table).copied().unwrap_or(spec.max_entries)
    }
}

/// Ticks of the kernel's clock in a second (`CONFIG_HZ`): the coarse clock moves once a tick.
pub fn clock_ticks_per_second() -> u32 {
    let tick = clock_getres(ClockId::CLOCK_MONOTONIC_COARSE).map_or(Duration::from_millis(4), Duration::from);
    let tick = tick.as_nanos().max(1);
    u32::try_from((1_000_000_000 + tick / 2) / tick).unwrap_or(250)
}

/// Whether the running kernel is at least `major.minor`; an unreadable version counts as old.
pub fn kernel_at_least(major: u8, minor: u8) -> bool {
    KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(major, minor, 0))
}

/// Constants for the programs on this kernel.
pub fn config() -> Config {
    let mut config = Config::with_ticks_per_second(clock_ticks_per_second());
    let (major, minor) = object::ATOMICS;
    if !kernel_at_least(major, minor) {
        config.flags |= config_flag::NO_FETCH;
    }
    // BPF_F_IPV6 came with 6.16; earlier kernels refuse flags they do not know.
    if kernel_at_least(6, 16) {
        config.flags |= config_flag::CSUM_IPV6;
    }
    if kernel_at_least(5, 18) {
        config.flags |= config_flag::SET_RETVAL;
    }
    config
}

/// The same constants with those that depend on the maps the programs will use.
///
/// # Errors
/// [`MapError`] when a map cannot be read.
pub fn for_maps(config: Config, store: &dyn MapStore) -> Result<Config, MapError> {
    let mask = |table| store.capacity(table).map(|sets| (1 << sets.max(1).ilog2()) - 1);
    let meta = store.lookup(Table::Meta, bytemuck::bytes_of(&0_u32))?;
    let meta: Meta = meta.map_or_else(Meta::default, |meta| bytemuck::pod_read_unaligned(&meta));
    Ok(Config {
        flow_mask_v4: mask(Table::FlowsV4)?,
        flow_mask_v6: mask(Table::FlowsV6)?,
        flow_seed: meta.flow_seed,
        ..config
    })
}

/// The programs, loaded one by one as they are needed.
#[derive(Debug)]
pub struct Programs {
    ebpf: Ebpf,
}

impl Programs {
    /// Takes the object apart and joins it with the pinned maps. The maps must be there.
    ///
    /// # Errors
    /// [`DataplaneError::Object`].
    pub fn load(pins: &PinDir, config: &Config) -> Result<Self, DataplaneError> {
        let mut loader = EbpfLoader::new();
        let config_bytes: &[u8] = bytemuck::bytes_of(config);
        loader.override_global("CONFIG", config_bytes, true);
        // 0 switches the log statements off where the verifier sees it, and it removes them.
        let log_level: u8 = if config.flags & config_flag::TRACE == 0 { 0 } else { u8::MAX };
        loader.override_global("AYA_LOG_LEVEL", &log_level, true);
        for spec in SPECS {
            loader.map_pin_path(spec.name, pins.map(spec.table));
        }
        let ebpf = loader
            .load(object::for_this_kernel())
            .map_err(|error| DataplaneError::Object { reason: explain(&error) })?;
        Ok(Self { ebpf })
    }

    /// An XDP program, loaded.
    ///
    /// # Errors
    /// [`DataplaneError::Program`] with the end of the verifier's log.
    pub fn xdp(&mut self, name: &'static str) -> Result<&mut Xdp, DataplaneError> {
        let program: &mut Xdp = self.program(name)?;
        if program.fd().is_err() {
            program.load().map_err(|error| refused(name, &error))?;
        }
        Ok(program)
    }

    /// A tc program, loaded.
    ///
    /// # Errors
    /// [`DataplaneError::Program`] with the end of the verifier's log.
    pub fn tc(&mut self, name: &'static str) -> Result<&mut SchedClassifier, DataplaneError> {
        let program: &mut SchedClassifier = self.program(name)?;
        if program.fd().is_err() {
            program.load().map_err(|error| refused(name, &error))?;
        }
        Ok(program)
    }

    /// A program on a cgroup, loaded.
    ///
    /// # Errors
    /// [`DataplaneError::Program`] with the end of the verifier's log.
    pub fn socket(&mut self, hook: SocketHook) -> Result<&mut Program, DataplaneError> {
        let name = hook.program();
        let program = self.find(name)?;
        let loaded = match program {
            Program::CgroupSockAddr(program) if program.fd().is_err() => program.load(),
            Program::CgroupSock(program) if program.fd().is_err() => program.load(),
            Program::CgroupSockAddr(_) | Program::CgroupSock(_) => Ok(()),
            _ => Err(ProgramError::UnexpectedProgramType),
        };
        loaded.map_err(|error| refused(name, &error))?;
        Ok(program)
    }

    /// What the programs log, for [`Config::flags`] with [`config_flag::TRACE`].
    ///
    /// # Errors
    /// [`DataplaneError::Object`] when the ring buffer of the log cannot be opened.
    pub fn kernel_log(&mut self) -> Result<EbpfLogger<&'static dyn log::Log>, DataplaneError> {
        EbpfLogger::init(&mut self.ebpf).map_err(|error| DataplaneError::Object { reason: error.to_string() })
    }

    fn find(&mut self, name: &'static str) -> Result<&mut Program, DataplaneError> {
        self.ebpf.program_mut(name).ok_or_else(|| DataplaneError::Object {
            reason: format!("program {name} is missing from the object"),
        })
    }

    fn program<'a, P>(&'a mut self, name: &'static str) -> Result<&'a mut P, DataplaneError>
    where
        &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
    {
        self.find(name)?.try_into().map_err(|error| refused(name, &error))
    }
}

/// The whole chain of causes in one line.
pub(super) fn explain(error: &EbpfError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

pub(super) fn refused(program: &'static str, error: &ProgramError) -> DataplaneError {
    let reason = match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            let lines: Vec<_> = log.lines().filter(|line| !line.trim().is_empty()).collect();
            let end = lines[lines.len().saturating_sub(VERIFIER_LINES)..].join("\n  ");
            format!("{io_error}\n  {end}")
        }
        error => error.to_string(),
    };
    DataplaneError::Program { program, reason }
}
