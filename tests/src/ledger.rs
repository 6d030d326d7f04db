//! Every packet is accounted for: per interface, packets in = forwarded + passed + answered + dropped.
//!
//! What came in is the kernel's own count of the interface, `rx_packets` of `/proc/net/dev` (`/sys/class/net` shows the
//! namespace it was mounted in, whoever looks). On the veth pairs of the tests this counter is exact at every hook: at
//! tc and generic XDP it counts what was put into the queue that the hook is the end of, a packet that was to be
//! segmented as one, as the hook sees it (drivers/net/veth.c of kernel 6.18, `veth_xmit`); at native XDP it counts
//! what the program was run on (`veth_xdp_rcv`). It would not be exact at tc behind a device that merges packets (GRO):
//! `rx_packets` counts them as they were on the wire. veth does not, unless asked to.
//!
//! Packets that came in before the programs were attached are in one count and not in the other, so what counts is
//! that the difference stays what it was when the agent was ready.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Output;
use std::thread;
use std::time::{Duration, Instant};

use aya::maps::MapInfo;
use lb_common::tables::Table;
use lb_userspace::lab::netns::Namespace;
use serde_json::Value;

use crate::patience::PATIENCE;

/// Looks in a row that must agree.
const LOOKS: usize = 3;
/// Between two looks. A packet is on its way from one counter to the other for some microseconds.
const PAUSE: Duration = Duration::from_millis(20);
/// Classes of packets that came in.
const CLASSES: [&str; 4] = ["forwarded", "passed", "answered", "dropped"];
/// The reason of packets that did not come in, though they are forwarded.
const FROM_HOST: &str = "from-host";

/// Packets by interface.
type Counts = BTreeMap<String, u64>;

/// Where to look.
pub struct Place<'a> {
    /// The node's namespace.
    pub node: &'a Namespace,
    /// Where the agents of the node pin.
    pub pins: &'a Path,
    /// Runs `lb` on the node, with the pin directory in question.
    pub lb: &'a dyn Fn(&[&str]) -> Output,
}

/// An interface when the books were opened.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Opened {
    /// Number of the balancing program's link: while it is there, no packet passes by unseen, and none is seen twice.
    link: u64,
    /// Number of the map with the counters: a start may make all maps anew.
    map: u32,
    /// Packets in that were not counted by the program.
    uncounted: i128,
}

/// The counters of the interfaces that had the programs when the books were opened.
#[derive(Clone, Debug, Default)]
pub struct Ledger(BTreeMap<String, Opened>);

impl Ledger {
    /// Notes where the counters stand. No traffic may be under way.
    ///
    /// # Panics
    /// When `lb` cannot tell.
    pub fn open(place: &Place<'_>) -> Self {
        let links = links(place).expect("lb status");
        let map = map(place).expect("a pinned map");
        let uncounted = settled(place, PATIENCE, |_| true).expect("lb get stats");
        let opened = |(name, link): (String, u64)| {
            let uncounted = *uncounted.get(&name)?;
            Some((name, Opened { link, map, uncounted }))
        };
        Self(links.into_iter().filter_map(opened).collect())
    }

    /// Interfaces in the books.
    pub fn interfaces(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Compares again, once no packet is on its way any more. Interfaces are left out that lost their program
    /// meanwhile: detached, exchanged by one at another hook, or gone.
    ///
    /// # Errors
    /// Which interfaces have packets that are not accounted for, or more accounted for than came in.
    pub fn close(&self, place: &Place<'_>) -> Result<(), String> {
        self.close_within(place, PATIENCE)
    }

    /// The same, with less patience.
    ///
    /// # Errors
    /// As above.
    pub fn close_within(&self, place: &Place<'_>, patience: Duration) -> Result<(), String> {
        let (Some(links), Some(map)) = (links(place), map(place)) else { return Ok(()) };
        let is_kept = |name: &String, was: &Opened| links.get(name) == Some(&was.link) && map == was.map;
        let kept: Vec<_> = self.0.iter().filter(|(name, was)| is_kept(name, was)).collect();
        let unlike = |uncounted: &BTreeMap<String, i128>| -> Vec<String> {
            kept.iter()
                .filter_map(|(name, was)| {
                    let lost = uncounted.get(*name)? - was.uncounted;
                    (lost != 0).then(|| format!("{name}: {lost} more came in than are accounted for"))
                })
                .collect()
        };
        let Some(found) = settled(place, patience, |uncounted| unlike(uncounted).is_empty()) else {
            return Ok(());
        };
        let unlike = unlike(&found);
        if unlike.is_empty() { Ok(()) } else { Err(unlike.join("\n")) }
    }
}

/// Looks until enough looks in a row agree and are as wanted, or for long enough; what was seen last.
fn settled(
    place: &Place<'_>,
    patience: Duration,
    wanted: impl Fn(&BTreeMap<String, i128>) -> bool,
) -> Option<BTreeMap<String, i128>> {
    let end = Instant::now() + patience;
    let (mut last, mut alike) = (uncounted(place)?, 0);
    while alike + 1 < LOOKS || !wanted(&last) {
        if Instant::now() > end {
            break;
        }
        thread::sleep(PAUSE);
        let now = uncounted(place)?;
        alike = if now == last { alike + 1 } else { 0 };
        last = now;
    }
    Some(last)
}

/// Packets in that the program has not counted, by interface.
fn uncounted(place: &Place<'_>) -> Option<BTreeMap<String, i128>> {
    let received = received(place.node);
    let counted = counted(&json(place, &["get", "stats"])?);
    let difference = |(name, packets): (String, u64)| {
        let counted = counted.get(&name).copied().unwrap_or(0);
        (name, i128::from(packets) - i128::from(counted))
    };
    Some(received.into_iter().map(difference).collect())
}

/// What the kernel has received.
fn received(node: &Namespace) -> Counts {
    let text = node.run(|| std::fs::read_to_string("/proc/thread-self/net/dev"));
    let text = text.expect("to enter the namespace").expect("counters of interfaces");
    let packets = |line: &str| {
        let (name, counters) = line.split_once(':')?;
        // Bytes come first, then packets.
        Some((name.trim().to_owned(), counters.split_ascii_whitespace().nth(1)?.parse().ok()?))
    };
    text.lines().filter_map(packets).collect()
}

/// What the programs have counted as come in, from the rows of `lb get stats`.
fn counted(stats: &Value) -> Counts {
    let mut counts = Counts::new();
    for row in stats.as_array().expect("a list") {
        let class = row["class"].as_str().unwrap_or_default();
        if CLASSES.contains(&class) && row["reason"] != FROM_HOST {
            let name = row["interface"].as_str().expect("an interface").to_owned();
            *counts.entry(name).or_default() += row["packets"].as_u64().expect("a number");
        }
    }
    counts
}

/// Numbers of the balancing programs' links, by interface; `None` when nothing is pinned.
fn links(place: &Place<'_>) -> Option<Counts> {
    let status = json(place, &["status"])?;
    let links = status["links"].as_array().expect("a list").iter().filter(|link| {
        let hook = link["hook"].as_str().unwrap_or_default();
        link["ifindex"] != 0 && !hook.ends_with("_egress") && !hook.ends_with("_answer")
    });
    let number = |link: &Value| Some((link["interface"].as_str()?.to_owned(), link["id"].as_u64()?));
    Some(links.filter_map(number).collect())
}

fn map(place: &Place<'_>) -> Option<u32> {
    let name = Table::IfaceStats.spec().name;
    MapInfo::from_pin(place.pins.join("maps").join(name)).ok().map(|info| info.id())
}

fn json(place: &Place<'_>, arguments: &[&str]) -> Option<Value> {
    let output = (place.lb)(&[arguments, &["--output", "json"]].concat());
    output.status.success().then(|| serde_json::from_slice(&output.stdout).expect("JSON"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_by_the_host_did_not_come_in() {
        let row = |interface: &str, class: &str, reason: &str, packets: u64| serde_json::json!({"interface": interface, "class": class, "reason": reason, "packets": packets});
        let stats = Value::from(vec![
            row("a", "forwarded", "new-flow", 1),
            row("a", "forwarded", FROM_HOST, 100),
            row("a", "passed", "not-ours", 2),
            row("a", "answered", "ping", 4),
            row("a", "dropped", "drop-unowned", 8),
            row("b", "passed", "not-ip", 16),
            row("b", "unknown", "unknown", 32),
        ]);
        assert_eq!(counted(&stats), Counts::from([("a".to_owned(), 15), ("b".to_owned(), 16)]));
    }
}
