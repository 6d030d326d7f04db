//! `cargo xtask demo`: a Service at work, without a cluster, told to somebody who has never heard of eBPF.

mod lab;
mod load;
mod tally;

use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use xshell::Shell;

use crate::step;
use lab::Lab;
use load::{Load, Visit};
use tally::Tally;

/// The manifests, from the workspace's root.
const MANIFESTS: &str = "examples/clusterip";
/// What they call the Service.
const SERVICE: &str = "default/backend-service";
/// Requests in the first round; a multiple of the three replicas.
const REQUESTS: usize = 90;
/// Clients that keep their connection while a pod dies.
const CLIENTS: usize = 6;
/// How long a change may take to reach the kernel.
const PATIENCE: Duration = Duration::from_secs(10);

/// Fails at once for users who cannot make network namespaces.
pub(crate) fn needs_root(sh: &Shell) -> anyhow::Result<()> {
    ensure!(
        step::is_root(sh)?,
        "the demo makes network namespaces: run it as root, e.g. sudo -E env \"PATH=$PATH\" cargo xtask demo"
    );
    Ok(())
}

/// Shows it, and fails when something is not as the text says.
pub(crate) fn run() -> anyhow::Result<()> {
    let lab = Lab::fresh(step::target().join("release/lb"))?;
    let told = tell(&lab);
    say("Clean up.");
    lab.shown(&["lab", "down", "--name", lab::NAME])?;
    told
}

fn tell(lab: &Lab) -> anyhow::Result<()> {
    say("Two Kubernetes manifests: three copies of a small web server, and a Service in front of them.\n\
         Nobody has given the Service an address, and there is no cluster here.");
    lab.shown(&["lab", "up", "--name", lab::NAME, "-f", MANIFESTS])?;

    say(
        "Each pod is a network of its own on this machine, and so is the client. The node in between runs lb: it gave\n\
         the Service an address and put small programs into the kernel, which send each new connection to the next pod.",
    );
    let address = wait("the Service has three backends", || {
        Ok(lab.service(SERVICE)?.filter(|service| service.backends == 3).map(|service| service.url()))
    })?;
    lab.shown(&["get", "services", "--service", "default/", "--pin-dir", &lab.pins()?])?;

    say("No interface has that address. Ask it, with an ordinary curl, from the client:");
    for _ in 0..4 {
        lab.shown(&[
            "lab",
            "exec",
            "--name",
            lab::NAME,
            "client",
            "--",
            "curl",
            "-sS",
            "--max-time",
            "2",
            &address,
        ])?;
    }

    say(format!("{REQUESTS} more, a new connection each. Who answered?"));
    let tally = Tally::of(load::fresh(lab, &address, REQUESTS)?);
    print!("{tally}");
    ensure!(tally.failed == 0, "{} requests failed", tally.failed);
    ensure!(tally.pods() == lab.pods()?, "not every pod answered");
    // Turns are taken on each CPU, so shares may differ by their number.
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    ensure!(tally.spread() <= 2 * cpus, "the shares differ by more than turns explain: {}", tally.spread());

    kill_under_load(lab, &address)?;

    say("What the kernel counted, by pod, and by what became of each packet:");
    lab.shown(&["get", "backends", "--pin-dir", &lab.pins()?])?;
    lab.shown_in_node(&["get", "stats", "--pin-dir", &lab.pins()?])
}

/// The heart of it.
fn kill_under_load(lab: &Lab, address: &str) -> anyhow::Result<()> {
    say(format!(
        "Now {CLIENTS} clients open one connection each and keep asking on it, others come and go, and one pod is killed."
    ));
    let before = lab.pods()?;
    let load = Load::start(lab, address, CLIENTS)?;
    sleep(Duration::from_millis(2500));
    let victim = load.busiest().context("no client was answered")?;
    lab.shown(&["lab", "kill", "--name", lab::NAME, &victim])?;
    let (clients, fresh) = load.finish()?;
    let replacement: BTreeSet<String> = lab.pods()?.difference(&before).cloned().collect();

    for (number, visits) in clients.iter().enumerate() {
        println!("  client {}: {}", number + 1, load::told(visits));
    }
    let to_victim =
        |visits: &&Vec<Visit>| visits.first().and_then(|visit| visit.pod.as_deref()) == Some(&victim);
    let broken: Vec<&Vec<Visit>> = clients.iter().filter(|visits| !load::undisturbed(visits)).collect();
    ensure!(clients.iter().any(|visits| to_victim(&visits)), "no client was connected to {victim}");
    ensure!(broken.iter().all(to_victim), "a connection to a pod that lives was disturbed");
    println!(
        "Only connections to {victim} broke: {} of {CLIENTS}; their clients dialled again.",
        broken.len()
    );

    let tally = Tally::of(fresh);
    say("And the clients that came and went, a new connection each:");
    print!("{tally}");
    if tally.failed > 0 {
        println!("  {} had been sent to {victim} when it died", tally.failed);
    }

    say("The pod that took its place has another address, and takes its turn:");
    let after = Tally::of(load::fresh(lab, address, 30)?);
    print!("{after}");
    ensure!(after.failed == 0, "{} requests failed after the pod was replaced", after.failed);
    ensure!(after.pods() == lab.pods()?, "not every pod answered, or one that is dead did");
    ensure!(
        replacement.is_subset(&after.pods()) && !replacement.is_empty(),
        "the new pod did not take its turn"
    );
    Ok(())
}

/// A paragraph for people.
fn say(text: impl AsRef<str>) {
    println!("\n{}", text.as_ref());
}

/// Asks until there is an answer.
fn wait<T>(what: &str, mut ask: impl FnMut() -> anyhow::Result<Option<T>>) -> anyhow::Result<T> {
    let start = Instant::now();
    loop {
        let last = match ask() {
            Ok(Some(answer)) => return Ok(answer),
            Ok(None) => anyhow::anyhow!("not yet"),
            Err(error) => error,
        };
        if start.elapsed() > PATIENCE {
            return Err(last.context(format!("waited {} s until {what}", PATIENCE.as_secs())));
        }
        sleep(Duration::from_millis(100));
    }
}
