//! The kernel's maps against the memory's: the same operations give the same contents. Needs root (CAP_BPF), and fails
//! without it.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lb_common::tables::{Kind, SPECS, Spec, Table};
use lb_userspace::maps::{KernelMap, KernelStore, MapError, MapStore, MemoryStore};
use lb_userspace::model::desired::*;
use lb_userspace::plan::{Limits, Numbers, Options, Planner, Tables, apply, steady_clock};
use nix::time::{ClockId, clock_gettime};

/// Small enough to make and scan in no time.
fn small(spec: &Spec) -> u32 {
    // Places in the filter follow from its size.
    if spec.table == Table::Filter { spec.max_entries } else { spec.max_entries.min(1024) }
}

fn store() -> KernelStore {
    KernelStore::create(small).expect("making maps needs root (CAP_BPF)")
}

/// A directory on a bpffs of its own, gone with it.
struct PinDir {
    dir: PathBuf,
    mounted: bool,
}

impl PinDir {
    fn new(name: &str) -> Self {
        let root = Path::new("/sys/fs/bpf");
        // bpffs may not be mounted: then the directory of the test is one for its time.
        let dir = root.join(format!("lb-test-{name}-{}", std::process::id()));
        if std::fs::create_dir(&dir).is_ok() {
            return Self { dir, mounted: false };
        }
        let dir = std::env::temp_dir().join(format!("lb-test-{name}-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        nix::mount::mount(Some("bpf"), &dir, Some("bpf"), nix::mount::MsFlags::empty(), None::<&str>)
            .expect("mounting a bpffs needs root");
        Self { dir, mounted: true }
    }
}

impl Drop for PinDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.dir.join("maps"));
        if self.mounted {
            let _ = nix::mount::umount(&self.dir);
        }
        let _ = std::fs::remove_dir(&self.dir);
    }
}

fn key(spec: &Spec, number: u32) -> Vec<u8> {
    let mut key = vec![0; spec.key_size as usize];
    if spec.kind == Kind::LpmTrie {
        // All bits count.
        let bits = (spec.key_size - 4) * 8;
        key[..4].copy_from_slice(&bits.to_ne_bytes());
        key[4..8].copy_from_slice(&number.to_be_bytes());
    } else {
        key[..4].copy_from_slice(&number.to_ne_bytes());
    }
    key
}

fn value(spec: &Spec, number: u32) -> Vec<u8> {
    if spec.kind == Kind::DeviceHash {
        // A device that there is, the loopback, and no program.
        return [1_u32, 0].map(u32::to_ne_bytes).concat();
    }
    vec![(number % 200) as u8 + 1; spec.value_size as usize]
}

#[test]
fn kernel_and_memory_agree_on_every_table() {
    let mut kernel = store();
    let mut memory = MemoryStore::new();
    let cpus = |value: Vec<u8>, spec: &Spec| {
        // Every CPU has the value that was written.
        let one = (spec.value_size as usize).next_multiple_of(8);
        if spec.kind == Kind::PerCpuArray {
            assert!(value.chunks_exact(one).all(|cpu| cpu == &value[..one]));
            value[..one].to_vec()
        } else {
            value
        }
    };
    for spec in SPECS {
        let count = kernel.capacity(spec.table).unwrap().min(300);
        assert_eq!(kernel.capacity(spec.table).unwrap(), small(spec));
        for number in 0..count {
            let value = value(spec, number);
            kernel.update(spec.table, &key(spec, number), &value).unwrap();
            memory.update(spec.table, &key(spec, number), &value).unwrap();
        }
        for number in (0..count).step_by(3) {
            let there = memory.delete(spec.table, &key(spec, number)).unwrap();
            assert_eq!(kernel.delete(spec.table, &key(spec, number)).unwrap(), there, "{}", spec.name);
            assert!(!kernel.delete(spec.table, &key(spec, number)).unwrap(), "{}", spec.name);
        }
        let mut found: Vec<_> = kernel
            .dump(spec.table)
            .unwrap()
            .into_iter()
            .map(|(key, value)| (key, cpus(value, spec)))
            .collect();
        found.sort();
        assert_eq!(found, memory.dump(spec.table).unwrap(), "{}", spec.name);
        for number in 0..count {
            assert_eq!(
                kernel.lookup(spec.table, &key(spec, number)).unwrap().map(|value| cpus(value, spec)),
                memory.lookup(spec.table, &key(spec, number)).unwrap(),
                "{} {number}",
                spec.name
            );
        }
    }
}

#[test]
fn batches_do_what_single_operations_do() {
    let (mut singly, mut batched) = (store(), store());
    for spec in SPECS {
        let count = small(spec).min(700);
        let keys: Vec<u8> = (0..count).flat_map(|number| key(spec, number)).collect();
        let values: Vec<u8> = (0..count).flat_map(|number| value(spec, number)).collect();
        batched.update_batch(spec.table, &keys, &values).unwrap();
        for (key, value) in
            keys.chunks_exact(spec.key_size as usize).zip(values.chunks_exact(spec.value_size as usize))
        {
            singly.update(spec.table, key, value).unwrap();
        }
        let sorted = |store: &KernelStore| {
            let mut entries = store.dump(spec.table).unwrap();
            entries.sort();
            entries
        };
        assert_eq!(sorted(&batched).len(), count as usize, "{}", spec.name);
        assert_eq!(sorted(&batched), sorted(&singly), "{}", spec.name);
        // Half of them, and some that are not there.
        let gone: Vec<u8> =
            (0..count).step_by(2).chain(count..small(spec)).flat_map(|n| key(spec, n)).collect();
        batched.delete_batch(spec.table, &gone).unwrap();
        for key in gone.chunks_exact(spec.key_size as usize) {
            singly.delete(spec.table, key).unwrap();
        }
        assert_eq!(sorted(&batched), sorted(&singly), "{}", spec.name);
    }
}

#[test]
fn a_full_table_says_what_to_do() {
    let mut kernel = KernelStore::create(|spec| small(spec).min(8)).unwrap();
    for (table, option) in [
        (Table::FrontendsV4, "--max-frontends"),
        (Table::ServiceNames, "--max-services"),
        (Table::SourceRanges, "--max-source-ranges"),
        (Table::Classes, "--max-classes"),
    ] {
        let spec = table.spec();
        let error = (0..9)
            .find_map(|n| kernel.update(table, &key(spec, n), &vec![1; spec.value_size as usize]).err())
            .unwrap_or_else(|| panic!("{} takes more than it has room for", spec.name));
        assert!(error.is_full(), "{error}");
        let text = error.to_string();
        assert!(text.contains(spec.name) && text.contains(option), "{text}");
    }
    let error = kernel.update(Table::Slots, &8_u32.to_ne_bytes(), &[0; 4]).unwrap_err();
    assert!(error.to_string().contains("cannot write entry 8 in table SLOTS"), "{error}");
    let error = kernel.update(Table::Slots, &[0; 3], &[0; 4]).unwrap_err();
    assert!(matches!(error, MapError::Length { .. }), "{error}");
}

#[test]
fn pins_are_checked() {
    let pins = PinDir::new("shapes");
    let error = KernelStore::open_pinned(&pins.dir).unwrap_err();
    assert!(error.to_string().contains("`lb run` fills it"), "{error}");

    let mut kernel = store();
    kernel.pin(&pins.dir).unwrap();
    kernel.update(Table::Slots, &5_u32.to_ne_bytes(), &7_u32.to_ne_bytes()).unwrap();
    let again = KernelStore::open_pinned(&pins.dir).unwrap();
    assert_eq!(again.lookup(Table::Slots, &5_u32.to_ne_bytes()).unwrap(), Some(vec![7, 0, 0, 0]));
    again.check_capacities(small).unwrap();
    let error = again.check_capacities(|spec| spec.max_entries).unwrap_err();
    assert!(matches!(error, MapError::Shape { what: "entries", .. }), "{error}");

    for (kind, key_size, value_size, what) in
        [(Kind::Array, 4, 8, "value size"), (Kind::Hash, 4, 4, "type"), (Kind::Hash, 8, 4, "type")]
    {
        let path = pins.dir.join("maps/SLOTS");
        std::fs::remove_file(&path).unwrap();
        KernelMap::create("SLOTS", kind, key_size, value_size, 16).unwrap().pin(&path).unwrap();
        let error = KernelStore::open_pinned(&pins.dir).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("SLOTS") && text.contains(what) && text.contains("lb detach"), "{text}");
    }
    let not_a_map = std::fs::File::open("/dev/null").unwrap();
    assert!(KernelStore::empty().insert(Table::Slots, not_a_map.into()).is_err());
}

fn state(services: u32) -> Desired {
    let mut desired = Desired::default();
    for i in 0..services {
        let address = |base: u32| IpAddr::V4((base + i * 4).into());
        let backends: Vec<Backend> = (0..3)
            .map(|pod| Backend {
                addr: IpAddr::V4((0x0a01_0000 + i * 4 + pod).into()),
                port: 8080,
                local: pod == 0,
                ready: true,
                serving: true,
                terminating: false,
                weight: 1,
                target: format!("default/web-{i}-{pod}"),
            })
            .collect();
        let name = ServicePortName {
            namespace: "default".to_owned(),
            name: format!("web-{i:05}"),
            port: "http".to_owned(),
            protocol: Protocol::Tcp,
            family: Family::V4,
        };
        let service = Service {
            frontends: vec![Frontend { addr: address(0x0a60_0000), port: 80, kind: FrontendKind::ClusterIp }],
            backends,
            cluster: Some(vec![0, 1, 2]),
            local: None,
            has_any_endpoints: true,
            internal_local: false,
            external_local: false,
            affinity_timeout_s: None,
            algorithm: Algorithm::RoundRobin,
            source_ranges: Vec::new(),
            health_check_node_port: 0,
        };
        desired.services.insert(name, service);
    }
    desired.surroundings.pod_cidrs = vec!["10.1.0.0/16".parse().unwrap()];
    desired
}

fn text(store: &dyn MapStore) -> String {
    Tables::read(store).unwrap().dump(Numbers::Hidden)
}

#[test]
fn ten_thousand_services_in_the_kernel() {
    // Room as in service, but for the kernel's own tables that this test does not fill.
    let capacity = |spec: &Spec| match spec.writer {
        lb_common::tables::Writer::Agent => spec.max_entries,
        lb_common::tables::Writer::Kernel if spec.kind == Kind::LruHash => 16,
        lb_common::tables::Writer::Kernel => spec.max_entries,
    };
    let mut kernel = KernelStore::create(capacity).unwrap();
    let limits = Limits::of(&kernel).unwrap();
    let adopt =
        |store: &dyn MapStore| Planner::adopt(store, limits, Options::default(), steady_clock()).unwrap();
    let mut planner = adopt(&kernel);
    let mut desired = state(10_000);
    let (all, report) = timed(|| planner.sync(&mut kernel, &desired).unwrap());
    assert!(report.problems.is_empty(), "{:?}", report.problems.first());

    let (adopted, again) = timed(|| adopt(&kernel));
    planner = again;
    assert!(planner.plan(&desired).unwrap().is_empty(), "a restart changes nothing");

    let name = desired.services.keys().nth(5000).unwrap().clone();
    // The first half finds out what changed, the other is told.
    let (mut compared, mut named) = (Vec::new(), Vec::new());
    for round in 1..=40_u8 {
        desired.services.get_mut(&name).unwrap().backends[1].addr = IpAddr::V4([10, 2, 0, round].into());
        let plan = if round <= 20 {
            let (time, plan) = timed(|| planner.plan(&desired).unwrap());
            compared.push(time);
            plan
        } else {
            let edit = (Arc::new(name.clone()), Some(Arc::new(desired.services[&name].clone())));
            let (time, plan) = timed(|| planner.plan_edits(&desired.surroundings, &[edit]).unwrap());
            named.push(time);
            plan
        };
        assert!(!plan.is_empty() && plan.ops.len() <= 8, "{plan}");
        apply(&mut kernel, &plan).unwrap();
        planner.commit();
    }
    compared.sort();
    named.sort();
    let mut memory = MemoryStore::new();
    adopt(&memory).sync(&mut memory, &desired).unwrap();
    assert_eq!(text(&kernel), text(&memory));
    println!(
        "processor time: 10,000 services {all:?}; adopting them {adopted:?}; one endpoint, median of planning: {:?}, \
         when named {:?}",
        compared[10], named[10]
    );
    let most = if cfg!(debug_assertions) { 5_000 } else { 400 };
    assert!(all < Duration::from_millis(most), "{all:?}");
    assert!(named[10] < Duration::from_millis(1), "{:?}", named[10]);
}

/// Processor time of this thread, the kernel's part included: what others do on the machine does not count.
fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let now = || Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap());
    let start = now();
    let result = work();
    (now() - start, result)
}

/// Runs `lb` and gives exit code, output and errors.
fn lb(args: &[&str]) -> (Option<i32>, String, String) {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_lb")).args(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn status_and_get_read_pinned_maps() {
    let pins = PinDir::new("show");
    let dir = pins.dir.to_str().unwrap();
    for args in [&["status"][..], &["get", "services"]] {
        let (code, out, err) = lb(&[args, &["--pin-dir", dir]].concat());
        assert_eq!(code, Some(1));
        assert!(out.is_empty() && err.contains("`lb run` makes it") && err.contains(dir), "{err}");
    }
    let mut kernel = store();
    kernel.pin(&pins.dir).unwrap();
    let limits = Limits::of(&kernel).unwrap();
    let mut planner = Planner::adopt(&kernel, limits, Options::default(), steady_clock()).unwrap();
    planner.sync(&mut kernel, &state(2)).unwrap();
    let meta = lb_common::abi::Meta {
        abi_version: lb_common::abi::ABI_VERSION,
        synced: 1,
        ticks_per_second: 250,
        agent_pid: std::process::id(),
        flow_seed: 0,
    };
    kernel.update(Table::Meta, &0_u32.to_ne_bytes(), bytemuck::bytes_of(&meta)).unwrap();

    let json = |args: &[&str]| -> serde_json::Value {
        let (code, out, err) = lb(&[args, &["--pin-dir", dir, "--output", "json"]].concat());
        assert_eq!(code, Some(0), "{err}");
        serde_json::from_str(&out).unwrap()
    };
    let status = json(&["status"]);
    // It did not end in good order, and nobody holds the directory now, whoever else has the number.
    assert_eq!(status["agent"], serde_json::json!({"pid": std::process::id(), "running": false}));
    assert_eq!(status["services"], serde_json::json!({"used": 2, "capacity": 1024}));
    assert_eq!(status["synced"], true);
    let services = json(&["get", "services"]);
    assert_eq!(services[1]["service"], "default/web-00001:http/TCP");
    assert_eq!((&services[1]["address"], &services[1]["backends"]), (&"10.96.0.4".into(), &3.into()));
    assert_eq!(json(&["get", "backends", "--service", "web-00001"]).as_array().unwrap().len(), 3);
    assert_eq!(json(&["get", "flows"])["total"], 0);
    assert_eq!(json(&["get", "stats"]), serde_json::json!([]));
    for args in
        [&["status"][..], &["get", "services"], &["get", "backends"], &["get", "flows"], &["get", "stats"]]
    {
        let (code, out, err) = lb(&[args, &["--pin-dir", dir]].concat());
        assert_eq!(code, Some(0), "{err}");
        println!("{out}");
    }
    let other = lb_common::abi::Meta { abi_version: 99, ..meta };
    kernel.update(Table::Meta, &0_u32.to_ne_bytes(), bytemuck::bytes_of(&other)).unwrap();
    let (code, _, err) = lb(&["status", "--pin-dir", dir]);
    assert_eq!(code, Some(1));
    assert!(err.contains("layout version 99") && err.contains("lb detach"), "{err}");
}
