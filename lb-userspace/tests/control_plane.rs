//! Control plane as text: each `control_plane/NAME.yaml` in, `control_plane/NAME.txt` out, whole and exact.
//!
//! Settings are lines `#! key value` at the head of the YAML file. `UPDATE_EXPECTED=1` writes the texts anew; the
//! difference is to be reviewed like code.

mod written_down;

use std::fmt::Write;
use std::fs;
use std::path::Path;

use lb_userspace::model::allocate::{Allocator, Ranges};
use lb_userspace::model::dump::dump;
use lb_userspace::model::{Interface, ModelConfig, NodePortAddresses, build};
use lb_userspace::source::Source;

fn config(text: &str) -> (ModelConfig, Ranges) {
    let mut config = ModelConfig::default();
    let mut ranges = Ranges::default();
    for line in text.lines().filter_map(|line| line.strip_prefix("#! ")) {
        let (key, value) = line.split_once(' ').unwrap_or((line, ""));
        let nets =
            || value.split(' ').filter(|net| !net.is_empty()).map(|net| net.parse().unwrap()).collect();
        match key {
            "node-name" => config.node_name = value.to_owned(),
            "addresses" => config.interfaces.push(Interface { name: "eth0".to_owned(), addresses: nets() }),
            "nodeport-addresses" => config.nodeport_addresses = NodePortAddresses::Ranges(nets()),
            "service-cidr" => config.service_cidrs = nets(),
            "load-balancer-pool" => ranges.load_balancer_pool = nets(),
            "pod-cidr" => config.pod_cidrs = nets(),
            _ => panic!("unknown setting {key}"),
        }
    }
    ranges.service_cidrs.clone_from(&config.service_cidrs);
    (config, ranges)
}

fn run(file: &Path) -> String {
    let (config, ranges) = config(&fs::read_to_string(file).unwrap());
    let snapshot = Source::new([file]).load();
    let (mut allocator, _) = Allocator::open(ranges, None);
    let (allocations, notes) = allocator.allocate(&snapshot.objects);
    let built = build(&config, &snapshot.objects, allocations);
    let mut out = dump(&built.desired);
    let name = file.file_name().unwrap().to_str().unwrap();
    for problem in &snapshot.problems {
        let text = problem.to_string().replace(&file.display().to_string(), name);
        writeln!(out, "{:?} {text}", problem.severity).unwrap();
    }
    for note in notes.iter().chain(&built.notes) {
        writeln!(out, "Note {note}").unwrap();
    }
    if built.skipped_endpoints > 0 {
        writeln!(out, "skipped {}", built.skipped_endpoints).unwrap();
    }
    out
}

#[test]
fn desired_state_is_as_written_down() {
    written_down::check("control_plane", 8, run);
}
