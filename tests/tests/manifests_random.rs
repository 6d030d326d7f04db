//! A thousand random edits of the manifests, after which the maps say what those of a fresh start say. In one process,
//! from the files to the kernel's maps. Needs root, for the maps.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lb_common::tables::Spec;
use lb_tests::edits::{Edits, Random};
use lb_userspace::maps::KernelStore;
use lb_userspace::model::allocate::{Allocator, Ranges};
use lb_userspace::model::{Basis, Interface, Model, ModelConfig, News, build};
use lb_userspace::plan::{Limits, Numbers, Options, Planner, SyncReport, Tables};
use lb_userspace::source::{Severity, Source};
use tempfile::TempDir;

const EDITS: u32 = 1000;
/// Edits between two comparisons with a fresh start.
const STRIDE: u32 = 50;

fn size(spec: &Spec) -> u32 {
    // Maglev tables are long; all else is short, and read often here.
    match spec.name {
        "SLOTS" => 65_536,
        // Places in it follow from its size.
        "FILTER" => spec.max_entries,
        _ => spec.max_entries.min(8192),
    }
}

fn config() -> ModelConfig {
    ModelConfig {
        node_name: "here".to_owned(),
        interfaces: vec![Interface {
            name: "eth0".to_owned(),
            addresses: vec!["192.0.2.1/24".parse().unwrap(), "2001:db8::1/64".parse().unwrap()],
        }],
        primary: vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
        service_cidrs: vec!["10.96.0.0/16".parse().unwrap(), "fd00:96::/108".parse().unwrap()],
        pod_cidrs: vec!["10.77.0.0/16".parse().unwrap(), "fd00:77::/64".parse().unwrap()],
        ..ModelConfig::default()
    }
}

/// What an agent has in its memory.
struct Mind {
    source: Source,
    allocator: Allocator,
    model: Model,
    planner: Planner,
}

impl Mind {
    fn new(folder: &Path, state: PathBuf, store: &KernelStore, time: &Arc<AtomicU64>) -> Self {
        let (allocator, complaint) = Allocator::open(
            Ranges { service_cidrs: config().service_cidrs, ..Ranges::default() },
            Some(state),
        );
        assert!(complaint.is_none(), "{complaint:?}");
        let time = time.clone();
        let clock = Arc::new(move || Duration::from_millis(time.load(Ordering::Relaxed)));
        // Short Maglev tables: it is the numbers' coming and going that is of interest.
        let options = Options { maglev_slots: 251, ..Options::default() };
        let planner = Planner::adopt(store, Limits::of(store).unwrap(), options, clock).unwrap();
        Self { source: Source::new([folder]), allocator, model: Model::default(), planner }
    }

    fn errors(&self) -> usize {
        self.source.problems().iter().filter(|problem| problem.severity == Severity::Error).count()
    }

    /// Takes in what has changed, as the agent does.
    fn sync(&mut self, store: &mut KernelStore) -> (SyncReport, usize) {
        let changes = self.source.look();
        let objects = self.source.store();
        self.allocator.allocate(&objects.services());
        let basis = Basis { config: &config(), store: objects, allocations: self.allocator.given() };
        let news = News { changes: &changes, reallocated: self.allocator.reallocated() };
        let edits = self.model.update(basis, news);
        self.allocator.save().unwrap();
        (self.planner.sync_edits(store, self.model.surroundings(), &edits).unwrap(), self.errors())
    }

    /// Makes everything of all objects.
    fn sync_all(&mut self, store: &mut KernelStore) {
        let objects = self.source.load().objects;
        let (allocations, _) = self.allocator.allocate(&objects);
        let built = build(&config(), &objects, allocations);
        self.planner.sync(store, &built.desired).unwrap();
    }
}

fn dump(store: &KernelStore) -> String {
    Tables::read(store).unwrap().dump(Numbers::Hidden)
}

#[test]
fn after_a_thousand_edits_the_maps_are_those_of_a_fresh_start() {
    let seed = std::env::var("LB_SEED").map_or(20_261_123, |seed| seed.parse().unwrap());
    let (files, states) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let state = states.path().join("state.json");
    let time = Arc::new(AtomicU64::new(0));
    let mut store = KernelStore::create(size).expect("making maps needs root (CAP_BPF)");
    let mut mind = Mind::new(files.path(), state.clone(), &store, &time);
    let mut edits = Edits::new(files.path(), seed);
    let mut random = Random::new(seed);
    let (mut written, mut refused, mut longest) = (0, 0, 0);
    for number in 1..=EDITS {
        let edit = edits.next_edit();
        // Freed numbers rest for 100 ms.
        time.fetch_add(random.below(80), Ordering::Relaxed);
        if random.once_in(40) {
            mind = Mind::new(files.path(), state.clone(), &store, &time);
        }
        let (report, errors) = mind.sync(&mut store);
        let context = || format!("seed {seed}, edit {number}: {edit}");
        assert!(report.problems.is_empty(), "{}: {:?}", context(), report.problems);
        written += report.applied.operations;
        refused += usize::from(errors > 0);
        let text = mind.planner.tables().dump(Numbers::Hidden);
        assert!(
            !text.contains("(dead)") && !text.contains("unknown") && !text.contains("out of"),
            "{}\n{text}",
            context()
        );
        if number % STRIDE == 0 {
            edits.mend();
            // Two changes within a tick of the clock may share a time stamp; a look after it sees both.
            std::thread::sleep(Duration::from_millis(60));
            let (_, errors) = mind.sync(&mut store);
            assert_eq!(errors, 0, "{}", context());
            let copy = states.path().join("copy.json");
            fs::copy(&state, &copy).unwrap();
            let mut fresh = KernelStore::create(size).unwrap();
            Mind::new(files.path(), copy, &fresh, &time).sync_all(&mut fresh);
            let (edited, fresh) = (dump(&store), dump(&fresh));
            assert!(edited == fresh, "{}\n--- edited\n{edited}\n--- fresh\n{fresh}", context());
            longest = longest.max(fresh.lines().count());
            // And there is nothing left to do.
            let (report, _) = mind.sync(&mut store);
            assert_eq!(report.applied.operations, 0, "{}", context());
        }
    }
    // The edits did something, and some were refused.
    assert!(written > EDITS as usize && refused > 50 && longest > 80, "{written} {refused} {longest}");
}
