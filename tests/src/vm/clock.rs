//! The wall clock jumps, as when a machine finds a time server. Only here: it is the machine's only one.

use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime, clock_settime};

use super::Check;
use super::datagrams::{self, DATAGRAMS};
use crate::node::{TestNode, VIP4, VIP6};
use crate::patience::wait_for;

const YEAR: i64 = 365 * 24 * 3600;
/// Jumps, one after the other, in seconds.
const JUMPS: [i64; 3] = [10 * YEAR, -20 * YEAR, 10 * YEAR];

/// The one there is.
pub fn checks() -> Vec<Check> {
    vec![Check::new("clock", None, clock)]
}

fn jump(seconds: i64) {
    let now = clock_gettime(ClockId::CLOCK_REALTIME).expect("the time");
    let then = TimeSpec::new(now.tv_sec() + seconds, now.tv_nsec());
    clock_settime(ClockId::CLOCK_REALTIME, then).expect("sets the clock");
}

/// Flows live on, changes arrive, and the agent goes on telling how it is.
fn clock() -> String {
    let node = TestNode::new(3);
    datagrams::serve(&node, 2);
    node.serve(&[0, 1]);
    let agent = node.agent(&["--hook", "tc"]);
    let mut talks: Vec<_> = [VIP4, VIP6, VIP4].iter().map(|to| node.connect(to).expect("connects")).collect();
    let sockets = DATAGRAMS.map(|to| node.client().run(|| datagrams::socket(to)).expect("enters"));
    let servers = sockets.each_ref().map(datagrams::ask);
    for (turn, seconds) in JUMPS.into_iter().enumerate() {
        jump(seconds);
        for talk in &mut talks {
            talk.say("after a jump").unwrap_or_else(|error| panic!("after {seconds} s: {error}"));
        }
        assert_eq!(sockets.each_ref().map(datagrams::ask), servers, "after {seconds} s: a flow has moved");
        let flows = talks.len() + sockets.len();
        assert_eq!(node.json(&["get", "flows"])["total"], flows, "after {seconds} s: flows have gone");
        // One server joins or leaves; those that have flows stay.
        let behind = 3 - turn % 2;
        node.serve(&[0, 1, 2][..behind]);
        wait_for("the change", || {
            node.json(&["get", "services", "--service", "web"])[0]["backends"] == behind
        });
        talks.push(node.connect(VIP4).unwrap_or_else(|error| panic!("after {seconds} s: {error}")));
        let status = node.lb(&["status"]);
        assert!(status.status.success(), "after {seconds} s: {}", String::from_utf8_lossy(&status.stderr));
    }
    let (ended, log) = agent.terminate();
    assert!(ended.success(), "{log}");
    format!("{} jumps; connections and UDP flows stayed", JUMPS.len())
}
