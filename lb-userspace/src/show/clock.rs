//! The clock of flows: the low 32 bits of `jiffies`, as the kernel programs read it.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// The clock now, in ticks; `None` when this machine tells neither jiffies nor uptime.
pub(crate) fn now(ticks_per_second: u32) -> Option<u32> {
    from_timer_list().or_else(|| from_uptime(ticks_per_second))
}

/// From `/proc/timer_list`, which only root may read.
fn from_timer_list() -> Option<u32> {
    let text = std::fs::read_to_string("/proc/timer_list").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("jiffies: "))?;
    Some(line.trim().parse::<u64>().ok()? as u32)
}

/// From the time since boot. The kernel starts its count 300 s before it wraps (`INITIAL_JIFFIES` in linux/jiffies.h), so that
/// mistakes with that show early.
fn from_uptime(ticks_per_second: u32) -> Option<u32> {
    let since_boot = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).ok()?);
    let hz = u128::from(ticks_per_second);
    let ticks = (since_boot.as_nanos() * hz / 1_000_000_000) as u32;
    Some(ticks.wrapping_sub(300 * ticks_per_second))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_agree() {
        let Some(jiffies) = from_timer_list() else {
            // Only root may read it, and some kernels do not have it.
            assert!(!nix::unistd::geteuid().is_root() || !std::path::Path::new("/proc/timer_list").exists());
            return;
        };
        // The rate is what makes them agree: it is one of the four that kernels are built with.
        let close = [100, 250, 300, 1000].into_iter().any(|hz| {
            let derived = from_uptime(hz).unwrap();
            derived.wrapping_sub(jiffies).wrapping_add(2 * hz) < 4 * hz
        });
        assert!(close, "jiffies are {jiffies}");
    }
}
