//! The programs, run on a packet that is on no wire, without any trace in what is pinned.
//!
//! A fresh copy of the programs reads the pinned maps that the agent writes. The maps that programs write are private, with
//! the same contents to begin with.

use std::os::fd::AsFd;

use aya::maps::{Map, MapData};
use aya::programs::{Program, ProgramError, TestRun, TestRunOptions};
use aya::{Ebpf, EbpfLoader};
use lb_common::abi::{Config, Counter, IfaceEntry, iface_flag};
use lb_common::reason::{REASON_SLOTS, Reason};
use lb_common::tables::{SPECS, Table, Writer};

use super::load::{explain, refused};
use super::{DataplaneError, PinDir};
use crate::maps::{Entry, KernelStore, MapStore, per_cpu};
use crate::object;

/// The interface that packets of a test run are at: the network namespace's loopback.
const IFINDEX: u32 = 1;
/// Room behind a frame in the buffer for what comes out.
const GROWTH: usize = 256;

/// What a program did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What it counted the packet as; `None` if it did not.
    pub reason: Option<Reason>,
    /// The packet afterwards.
    pub frame: Vec<u8>,
}

/// Programs with private state.
#[derive(Debug)]
pub struct Rehearsal {
    ebpf: Ebpf,
    private: KernelStore,
}

/// Whether a rehearsal has a map of its own in place of the pinned one. `IFACES`: the packet of a test run is at the loopback,
/// whatever interface is meant.
fn is_private(table: Table) -> bool {
    table.spec().writer == Writer::Kernel || table == Table::Ifaces
}

impl Rehearsal {
    /// Loads the programs beside those that are at work. `pinned` are the maps of `pins`, `state` the contents of
    /// the private ones.
    ///
    /// # Errors
    /// [`DataplaneError`] when maps or programs cannot be made: not root, or too little memory.
    pub fn load(
        pins: &PinDir,
        pinned: &KernelStore,
        config: &Config,
        state: &[(Table, Vec<Entry>)],
        external: bool,
    ) -> Result<Self, DataplaneError> {
        let mut loader = EbpfLoader::new();
        let config_bytes: &[u8] = bytemuck::bytes_of(config);
        loader.override_global("CONFIG", config_bytes, true);
        for spec in SPECS {
            if is_private(spec.table) {
                loader.map_max_entries(spec.name, pinned.capacity(spec.table)?);
            } else {
                loader.map_pin_path(spec.name, pins.map(spec.table));
            }
        }
        let ebpf = loader
            .load(object::for_this_kernel())
            .map_err(|error| DataplaneError::Object { reason: explain(&error) })?;
        let mut private = KernelStore::empty();
        for spec in SPECS.iter().filter(|spec| is_private(spec.table)) {
            let data = ebpf.map(spec.name).and_then(map_data);
            let missing = || DataplaneError::Object { reason: format!("map {} is missing", spec.name) };
            let fd = data.ok_or_else(missing)?.fd().as_fd().try_clone_to_owned();
            let fd = fd.map_err(|error| DataplaneError::Object { reason: error.to_string() })?;
            private.insert(spec.table, fd)?;
        }
        for (table, entries) in state.iter().filter(|(table, _)| is_private(*table)) {
            let keys: Vec<u8> = entries.iter().flat_map(|(key, _)| key.iter().copied()).collect();
            let values: Vec<u8> = entries.iter().flat_map(|(_, value)| value.iter().copied()).collect();
            if !entries.is_empty() {
                private.update_batch(*table, &keys, &values)?;
            }
        }
        let entry = IfaceEntry::new("lo", 0, if external { iface_flag::EXTERNAL } else { 0 });
        private.update(Table::Ifaces, bytemuck::bytes_of(&IFINDEX), bytemuck::bytes_of(&entry))?;
        Ok(Self { ebpf, private })
    }

    /// Gives a packet, with its Ethernet header, to a program.
    ///
    /// # Errors
    /// [`DataplaneError::Program`] when the kernel refuses the program or the packet (the shortest are not for test runs).
    pub fn run(&mut self, name: &'static str, frame: &[u8]) -> Result<Outcome, DataplaneError> {
        let before = self.packets()?;
        let mut out = vec![0; frame.len() + GROWTH];
        let options =
            TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::new() };
        let program = self.ebpf.program_mut(name).ok_or_else(|| DataplaneError::Object {
            reason: format!("program {name} is missing from the object"),
        })?;
        let result = run(program, options).map_err(|error| refused(name, &error))?;
        out.truncate(result as usize);
        let after = self.packets()?;
        let counted = before.iter().zip(&after).position(|(before, after)| before != after);
        let reason = counted.and_then(|number| Reason::from_number(u8::try_from(number).ok()?));
        Ok(Outcome { reason, frame: out })
    }

    /// Packets by reason.
    fn packets(&self) -> Result<Vec<u64>, DataplaneError> {
        let mut packets = vec![0; REASON_SLOTS as usize];
        self.private.scan(Table::IfaceStats, &mut |key, value| {
            let index: u32 = bytemuck::pod_read_unaligned(key);
            if let Some(sum) = packets.get_mut(index as usize) {
                *sum += per_cpu::<Counter>(value).map(|counter| counter.packets).sum::<u64>();
            }
        })?;
        Ok(packets)
    }
}

/// Loads a program if need be and runs it; gives the length of what came out.
fn run(program: &mut Program, options: TestRunOptions<'_>) -> Result<u32, ProgramError> {
    let result = match program {
        Program::Xdp(program) => {
            if program.fd().is_err() {
                program.load()?;
            }
            program.test_run(options)?
        }
        Program::SchedClassifier(program) => {
            if program.fd().is_err() {
                program.load()?;
            }
            program.test_run(options)?
        }
        _ => return Err(ProgramError::UnexpectedProgramType),
    };
    Ok(result.data_size_out)
}

/// The data of a map of any kind that we use.
pub fn map_data(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::LpmTrie(data)
        | Map::PerCpuArray(data)
        | Map::DevMapHash(data) => Some(data),
        _ => None,
    }
}
