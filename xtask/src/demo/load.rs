//! Requests, by the real curl.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::Context;

use super::lab::{Lab, NAME};

/// Requests of a client that keeps its connection, and how many in a second: eight seconds of load.
const KEPT: usize = 40;
const RATE: &str = "5/s";

/// How one request ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Visit {
    /// Who answered. `None`: nobody.
    pub(super) pod: Option<String>,
    /// Whether a connection had to be opened for it.
    pub(super) dialled: bool,
}

/// Clients at work.
pub(super) struct Load {
    kept: Vec<Client>,
    fresh: Client,
}

impl Load {
    /// Starts `clients` that keep their connection, and one that opens a new one for each request.
    pub(super) fn start(lab: &Lab, url: &str, clients: usize) -> anyhow::Result<Self> {
        let many = format!("{url}?[1-{KEPT}]");
        let curl = [
            "curl",
            "-sS",
            "--max-time",
            "1",
            "--rate",
            RATE,
            "-w",
            "%{num_connects} %{exitcode} #\\n",
            many.as_str(),
        ];
        let kept = (0..clients).map(|_| Client::start(lab, &curl)).collect::<anyhow::Result<_>>()?;
        let script = "end=$(($(date +%s) + 7)); while [ $(date +%s) -lt $end ]; do \
                      curl -sS --max-time 1 -w '%{num_connects} %{exitcode} #\\n' \"$0\"; sleep 0.05; done";
        Ok(Self { kept, fresh: Client::start(lab, &["sh", "-c", script, url])? })
    }

    /// Waits for all; what each of the clients saw, and what the coming and going ones saw.
    pub(super) fn finish(self) -> anyhow::Result<(Vec<Vec<Visit>>, Vec<Visit>)> {
        let kept = self.kept.into_iter().map(Client::finish).collect::<anyhow::Result<_>>()?;
        Ok((kept, self.fresh.finish()?))
    }

    /// The pod that most of the clients that keep their connection are with, so far.
    pub(super) fn busiest(&self) -> Option<String> {
        let mut clients: BTreeMap<String, usize> = BTreeMap::new();
        for pod in self.kept.iter().filter_map(|client| client.visits().into_iter().next()?.pod) {
            *clients.entry(pod).or_default() += 1;
        }
        clients.into_iter().max_by_key(|(_, count)| *count).map(|(pod, _)| pod)
    }
}

/// `count` requests, one after the other, a new connection each.
pub(super) fn fresh(lab: &Lab, url: &str, count: usize) -> anyhow::Result<Vec<Visit>> {
    let script = "for i in $(seq \"$1\"); do \
                  curl -sS --max-time 2 -w '%{num_connects} %{exitcode} #\\n' \"$0\"; done";
    Client::start(lab, &["sh", "-c", script, url, &count.to_string()])?.finish()
}

/// A command inside the lab's client whose output can be looked at while it runs.
struct Client {
    child: Child,
    output: Arc<Mutex<String>>,
    reader: JoinHandle<()>,
}

impl Client {
    fn start(lab: &Lab, command: &[&str]) -> anyhow::Result<Self> {
        let exec = ["lab", "exec", "--name", NAME, "client", "--"];
        let mut child = lab
            .command(&[&exec, command].concat())
            .stdout(Stdio::piped())
            // What curl says of failures is told by its exit code, too.
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start lb lab exec")?;
        let pipe = child.stdout.take().context("lb lab exec has no output")?;
        let output = Arc::new(Mutex::new(String::new()));
        let copy = Arc::clone(&output);
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                let mut output = copy.lock().unwrap_or_else(PoisonError::into_inner);
                output.push_str(&line);
                output.push('\n');
            }
        });
        Ok(Self { child, output, reader })
    }

    fn visits(&self) -> Vec<Visit> {
        parse(&self.output.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn finish(mut self) -> anyhow::Result<Vec<Visit>> {
        let status = self.child.wait().context("wait for curl")?;
        // The pipe ends with the command; what it held is read by then.
        self.reader.join().map_err(|_| anyhow::anyhow!("reading what curl said failed"))?;
        let visits = parse(&self.output.lock().unwrap_or_else(PoisonError::into_inner));
        anyhow::ensure!(!visits.is_empty(), "curl ended without a request: {status}");
        Ok(visits)
    }
}

/// What curl prints: the pod's line, `NAME ADDRESS NAMESPACE`, if it answered, then `CONNECTIONS EXITCODE #`.
fn parse(output: &str) -> Vec<Visit> {
    let mut visits = Vec::new();
    let mut body = None;
    for line in output.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [connections, code, "#"] => {
                let pod = body.take().filter(|_| *code == "0");
                visits.push(Visit { pod, dialled: *connections != "0" });
            }
            [pod, _, _] => body = Some((*pod).to_owned()),
            _ => {}
        }
    }
    visits
}

/// Whether a client was answered by one pod, on one connection, all the time.
pub(super) fn undisturbed(visits: &[Visit]) -> bool {
    let first = visits.first().and_then(|visit| visit.pod.as_ref());
    first.is_some() && visits.iter().skip(1).all(|visit| !visit.dialled && visit.pod.as_ref() == first)
}

/// In words: who answered how often, in order.
pub(super) fn told(visits: &[Visit]) -> String {
    let mut runs: Vec<(&str, usize)> = Vec::new();
    for visit in visits {
        let who = visit.pod.as_deref().unwrap_or("no answer");
        match runs.last_mut() {
            Some((last, count)) if *last == who && !(visit.dialled && visit.pod.is_some()) => *count += 1,
            _ => runs.push((who, 1)),
        }
    }
    runs.iter().map(|(who, count)| format!("{who} ×{count}")).collect::<Vec<_>>().join(", then ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEPT_ALIVE: &str = "a 10.0.0.1 default\n1 0 #\na 10.0.0.1 default\n0 0 #\n";
    const BROKEN: &str = "a 10.0.0.1 default\n1 0 #\n0 28 #\nb 10.0.0.2 default\n1 0 #\n";

    #[test]
    fn curls_output_is_read() {
        let (kept, broken) = (parse(KEPT_ALIVE), parse(BROKEN));
        assert_eq!((kept.len(), broken.len()), (2, 3));
        assert_eq!(broken[1], Visit { pod: None, dialled: false });
        assert!(undisturbed(&kept) && !undisturbed(&broken) && !undisturbed(&[]));
        assert_eq!(told(&kept), "a ×2");
        assert_eq!(told(&broken), "a ×1, then no answer ×1, then b ×1");
    }

    #[test]
    fn a_second_connection_to_the_same_pod_is_a_disturbance() {
        let visits = parse("a 10.0.0.1 default\n1 0 #\na 10.0.0.1 default\n1 0 #\n");
        assert!(!undisturbed(&visits));
        assert_eq!(told(&visits), "a ×1, then a ×1");
    }

    #[test]
    fn an_answer_cut_short_is_none() {
        assert_eq!(parse("a 10.0.0.1 default\n1 18 #\n"), [Visit { pod: None, dialled: true }]);
    }
}
