//! The kernel programs, by `BPF_PROG_TEST_RUN`. Needs root.

use std::os::fd::AsFd;

use aya::programs::{Program, TestRun, TestRunOptions};
use aya::{Ebpf, EbpfLoader};
use lb_common::abi::{AffinityEntry, Config, Counter, FragmentEntry, IfaceEntry, iface_flag};
use lb_common::engine::Position;
use lb_common::family::{V4Addr, V6Addr};
use lb_common::reason::{REASON_SLOTS, Reason};
use lb_common::tables::{SPECS, Spec, Table};
use lb_userspace::dataplane::{self, map_data};
use lb_userspace::maps::{KernelStore, MapStore, change_flows, lift_locked_memory, per_cpu};
use lb_userspace::object;

use super::Error;
use super::body::{Body, Hook, Outcome};
use super::written::Written;

/// The interface that packets of a test run are at: the namespace's loopback.
const IFINDEX: u32 = 1;
/// The program for packets that leave the host, the same beside every hook.
const EGRESS: &str = "lb_tc_egress";
/// Room behind a frame in the buffer for what comes out.
const GROWTH: usize = 256;

/// Ticks as the programs are told: as many as any kernel's clock makes, so that the time that really passes counts for less.
const CONFIG: Config = Config::with_ticks_per_second(1000);

/// Small maps: rows need little, and emptying them is looking at all of their entries.
pub fn small(spec: &Spec) -> u32 {
    match spec.table {
        Table::Settings | Table::Meta => 1,
        Table::IfaceStats => REASON_SLOTS,
        Table::Ifaces => 16,
        Table::Backends | Table::BackendStats | Table::OpenFlows | Table::Turns => 512,
        Table::FlowsV4 | Table::FlowsV6 => 256,
        // Places in it follow from its size.
        Table::Filter => spec.max_entries,
        _ => 4_096,
    }
}

/// A loader of the object, with `capacity` giving the number of entries of each map.
///
/// Where the kernel counts maps to the process's locked memory (before 5.11), the limit is lifted: aya does so once in a process, and
/// checks in a machine begin with the usual limit each.
pub fn loader<'a>(config: &'a Config, capacity: impl Fn(&Spec) -> u32) -> EbpfLoader<'a> {
    if !dataplane::kernel_at_least(5, 11) {
        // What cannot be lifted shows as maps that cannot be made.
        let _lifted = lift_locked_memory();
    }
    let mut loader = EbpfLoader::new();
    for spec in SPECS {
        loader.map_max_entries(spec.name, capacity(spec));
    }
    let config: &[u8] = bytemuck::bytes_of(config);
    loader.override_global("CONFIG", config, true);
    loader
}

/// Programs of the object, loaded, with maps of their own.
#[derive(Debug)]
pub struct Loaded {
    /// The object.
    pub ebpf: Ebpf,
    /// Its maps.
    pub store: KernelStore,
}

impl Loaded {
    /// Loads these programs, with `capacity` giving the number of entries of each map: a power of two for flow tables.
    ///
    /// # Errors
    /// The kernel refuses: not root, too old, or the verifier objects.
    pub fn new(
        programs: &[&'static str],
        config: &Config,
        capacity: impl Fn(&Spec) -> u32,
    ) -> Result<Self, Error> {
        let mask = |table: Table| capacity(table.spec()) - 1;
        // What this kernel has and lacks, it has and lacks in tests as well.
        let flags = config.flags | dataplane::config().flags;
        let config = Config {
            flags,
            flow_mask_v4: mask(Table::FlowsV4),
            flow_mask_v6: mask(Table::FlowsV6),
            ..*config
        };
        let mut ebpf = loader(&config, capacity).load(object::for_this_kernel())?;
        let mut store = KernelStore::empty();
        for spec in SPECS {
            let map = ebpf.map(spec.name).ok_or(Error::NoMap(spec.name))?;
            let fd = map_data(map).ok_or(Error::NoMap(spec.name))?.fd().as_fd().try_clone_to_owned()?;
            store.insert(spec.table, fd)?;
        }
        for &name in programs {
            match ebpf.program_mut(name).ok_or(Error::NoProgram(name))? {
                Program::Xdp(program) => program.load()?,
                Program::SchedClassifier(program) => program.load()?,
                _ => return Err(Error::NoProgram(name)),
            }
        }
        Ok(Self { ebpf, store })
    }

    /// What was counted so far at interfaces without a slot of their own, by the reasons' numbers.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn reasons(&self) -> Result<Vec<Counter>, Error> {
        reasons(&self.store)
    }
}

fn reasons(store: &dyn MapStore) -> Result<Vec<Counter>, Error> {
    let mut counters = vec![Counter::default(); REASON_SLOTS as usize];
    store.scan(Table::IfaceStats, &mut |key, value| {
        let index: u32 = bytemuck::pod_read_unaligned(key);
        let Some(counter) = counters.get_mut(index as usize) else { return };
        for cpu in per_cpu::<Counter>(value) {
            counter.packets += cpu.packets;
            counter.bytes += cpu.bytes;
        }
    })?;
    Ok(counters)
}

/// A kernel program with maps of its own.
#[derive(Debug)]
pub struct Kernel {
    hook: Hook,
    ebpf: Ebpf,
    store: Written,
    /// Flags of the interface in all runs.
    flags: u16,
    /// Its flags as they are in the map.
    marked: u16,
}

impl Kernel {
    /// Loads the programs of a hook.
    ///
    /// # Errors
    /// The kernel refuses: not root, too old, or the verifier objects.
    pub fn load(hook: Hook) -> Result<Self, Error> {
        Self::with_flow_sets(hook, small(Table::FlowsV4.spec()))
    }

    /// The same with flow tables of `sets` sets, a power of two above 1.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn with_flow_sets(hook: Hook, sets: u32) -> Result<Self, Error> {
        let programs = [hook.program().ok_or(Error::NoProgram("none"))?, EGRESS];
        let capacity = |spec: &Spec| match spec.table {
            Table::FlowsV4 | Table::FlowsV6 => sets,
            _ => small(spec),
        };
        let Loaded { ebpf, store } = Loaded::new(&programs, &CONFIG, capacity)?;
        Ok(Self { hook, ebpf, store: store.into(), flags: 0, marked: 0 })
    }

    /// The same on an interface with these flags.
    #[must_use]
    pub fn with_flags(mut self, flags: u16) -> Self {
        self.flags = flags;
        self
    }

    /// Gives a frame to the program, and nothing else: several threads may. What comes out.
    ///
    /// # Errors
    /// The kernel refuses the frame.
    pub fn pass(&self, frame: &[u8]) -> Result<Vec<u8>, Error> {
        self.test_run(self.hook.program().ok_or(Error::NoProgram("none"))?, frame).map(|(_, out)| out)
    }

    /// What a program returns, and the frame it leaves.
    fn test_run(&self, name: &'static str, frame: &[u8]) -> Result<(u32, Vec<u8>), Error> {
        let mut out = vec![0; frame.len() + GROWTH];
        let options =
            TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::new() };
        let result = match self.ebpf.program(name).ok_or(Error::NoProgram(name))? {
            Program::Xdp(program) => program.test_run(options)?,
            Program::SchedClassifier(program) => program.test_run(options)?,
            _ => return Err(Error::NoProgram(name)),
        };
        out.truncate(result.data_size_out as usize);
        Ok((result.return_value, out))
    }

    fn mark(&mut self, external: bool) -> Result<(), Error> {
        let flags = self.flags | if external { iface_flag::EXTERNAL } else { 0 };
        if self.marked != flags {
            self.mark_interface(IFINDEX, flags)?;
            self.marked = flags;
        }
        Ok(())
    }

    /// Gives an interface flags, until the maps are emptied.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn mark_interface(&mut self, ifindex: u32, flags: u16) -> Result<(), Error> {
        let entry = IfaceEntry::new("test", 0, flags);
        let (key, value) = (bytemuck::bytes_of(&ifindex), bytemuck::bytes_of(&entry));
        Ok(self.store.update(Table::Ifaces, key, value)?)
    }

    /// Makes every entry of a table as much older as `age` does to its bytes.
    fn age(&mut self, table: Table, age: impl Fn(&mut [u8])) -> Result<(), Error> {
        for (key, mut value) in self.store.dump(table)? {
            age(&mut value);
            self.store.update(table, &key, &value)?;
        }
        Ok(())
    }
}

/// The one reason that was counted between two readings, and that it was counted as one packet of `bytes` bytes.
fn counted(before: &[Counter], after: &[Counter], bytes: usize) -> Result<Option<Reason>, Error> {
    let mut found = None;
    for (number, (before, after)) in before.iter().zip(after).enumerate() {
        if before == after {
            continue;
        }
        let reason = u8::try_from(number).ok().and_then(Reason::from_number);
        let one = after.packets == before.packets + 1 && after.bytes == before.bytes + bytes as u64;
        if reason.is_none() || found.is_some() || !one {
            return Err(Error::Counted(format!("number {number}: {before:?} became {after:?}")));
        }
        found = reason;
    }
    Ok(found)
}

impl Body for Kernel {
    fn hook(&self) -> Hook {
        self.hook
    }

    fn store(&mut self) -> &mut dyn MapStore {
        &mut self.store
    }

    fn run(&mut self, frame: &[u8], position: Position) -> Result<Outcome, Error> {
        self.mark(position.external)?;
        let before = reasons(&self.store)?;
        let name = if position.egress { EGRESS } else { self.hook.program().unwrap_or(EGRESS) };
        let (action, out) = self.test_run(name, frame)?;
        let reason = counted(&before, &reasons(&self.store)?, frame.len())?;
        Ok(Outcome { reason, action, frame: out })
    }

    fn advance(&mut self, seconds: u32) -> Result<(), Error> {
        let ticks = seconds * CONFIG.ticks_per_second;
        macro_rules! age_flows {
            ($($address:ty)*) => {$(
                change_flows::<$address>(&mut self.store, &mut |_, entry| {
                    entry.last_seen = entry.last_seen.wrapping_sub(ticks);
                    true
                })?;
            )*};
        }
        age_flows!(V4Addr V6Addr);
        macro_rules! age {
            ($($table:ident $entry:ty;)*) => {$(
                self.age(Table::$table, |value| {
                    let mut entry: $entry = bytemuck::pod_read_unaligned(value);
                    entry.last_seen = entry.last_seen.wrapping_sub(ticks);
                    value.copy_from_slice(bytemuck::bytes_of(&entry));
                })?;
            )*};
        }
        age! {
            Affinity AffinityEntry;
            Fragments FragmentEntry;
        }
        Ok(())
    }

    fn clear(&mut self) -> Result<(), Error> {
        self.marked = 0;
        for spec in SPECS {
            super::body::clear(&mut self.store, spec.table)?;
        }
        Ok(())
    }
}
