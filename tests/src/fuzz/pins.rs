//! Pinned maps of another version, or damaged: whatever is found, the agent ends with the tables of a fresh start.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lb_userspace::maps::{MapStore, MemoryStore};
use lb_userspace::model::desired::{Desired, Protocol};
use lb_userspace::plan::{Limits, Numbers, Options, Planner, Tables};

use super::input::Input;
use crate::rows::net::{Net, surroundings};
use crate::rows::service::Svc;

fn wrong(error: impl std::error::Error) -> String {
    error.to_string()
}

fn desired() -> Desired {
    let services = Net::BOTH.into_iter().flat_map(|net| {
        let first = Svc::new(net, Protocol::Tcp, (net.vip(1), 80), &[1, 2, 3]).load_balancer(net.public(1));
        let second = Svc::new(net, Protocol::Udp, (net.vip(2), 53), &[2]).node_port(30_053).affinity(60);
        [first.only_from(net.outside(1)).finish(), second.finish()]
    });
    Desired { services: services.collect(), surroundings: surroundings() }
}

fn sync(store: &mut MemoryStore, desired: &Desired, time: &Arc<AtomicU64>) -> Result<bool, String> {
    let clock = Arc::clone(time);
    let clock = Arc::new(move || Duration::from_millis(clock.load(Ordering::Relaxed)));
    let options = Options { maglev_slots: 31, ..Options::default() };
    let limits = Limits::of(store).map_err(wrong)?;
    let mut planner = Planner::adopt(store, limits, options, clock).map_err(wrong)?;
    Ok(planner.sync(store, desired).map_err(wrong)?.retry_after.is_none())
}

/// Each step damages an entry that is there, or makes one of any bytes.
pub(super) fn run(bytes: &[u8]) -> Result<(), String> {
    let (desired, time) = (desired(), Arc::new(AtomicU64::new(0)));
    let mut fresh = MemoryStore::new();
    sync(&mut fresh, &desired, &time)?;
    let mut store = fresh.clone();
    let mut input = Input(bytes);
    while !input.is_empty() {
        let table = input.pick(&Tables::ALL);
        let spec = table.spec();
        let entries = store.dump(table).map_err(wrong)?;
        let how = input.byte();
        let (key, value) = if how & 1 == 0 && !entries.is_empty() {
            let (mut key, mut value) = entries[input.below(entries.len())].clone();
            let at = input.below(key.len() + value.len());
            let byte = input.byte();
            match at.checked_sub(key.len()) {
                None => key[at] = byte,
                Some(at) => value[at] = byte,
            }
            (key, value)
        } else {
            let mut all = input.take((spec.key_size + spec.value_size) as usize).to_vec();
            all.resize((spec.key_size + spec.value_size) as usize, 0);
            let value = all.split_off(spec.key_size as usize);
            (all, value)
        };
        // An index past the end is refused, as the kernel does it, and damages nothing.
        let _refused = match how & 6 {
            6 => store.delete(table, &key).map(drop),
            _ => store.update(table, &key, &value),
        };
    }
    // What people see is made of the same bytes.
    let _text = Tables::read(&store).map_err(wrong)?.dump(Numbers::Shown);
    // What was damaged may have claimed all of a table; then it goes in several steps.
    for _ in 0..4 {
        time.fetch_add(1_000, Ordering::Relaxed);
        if sync(&mut store, &desired, &time)? {
            break;
        }
    }
    let text =
        |store: &MemoryStore| Ok::<_, String>(Tables::read(store).map_err(wrong)?.dump(Numbers::Hidden));
    let (found, wanted) = (text(&store)?, text(&fresh)?);
    if found == wanted { Ok(()) } else { Err(format!("--- found\n{found}\n--- wanted\n{wanted}")) }
}

/// Some damage to each table.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![Vec::new()];
    for table in 0..Tables::ALL.len() as u8 {
        seeds.push(vec![table, 0, 0, 3, 0xff, table, 0, 1, 12, 1]);
        seeds.push([&[table, 1][..], &[1; 48]].concat());
        seeds.push(vec![table, 6, 0, 0, 0]);
    }
    seeds
}
