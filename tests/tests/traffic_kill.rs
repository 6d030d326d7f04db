//! A pod is killed under continuous load: its connections end, no others; its successor takes its turn. Needs root.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lb_tests::lab::examples;
use lb_tests::patience::wait_for;
use lb_tests::scene::Scene;

/// How long an answer may take that takes a millisecond on an idle machine.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long after the kill connections may still go to the dead pod: until the agent has read of it.
const CONVERGENCE: Duration = Duration::from_secs(2);
/// Connections that are kept, to each of three pods.
const KEPT: usize = 2;

/// An HTTP connection.
struct Http(BufReader<TcpStream>);

impl Http {
    fn connect(to: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// The pod that answers a request.
    fn ask(&mut self) -> std::io::Result<String> {
        let invalid = |what: &str| std::io::Error::other(what.to_owned());
        self.0.get_mut().write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")?;
        let mut length = 0;
        for number in 0.. {
            let mut line = String::new();
            if self.0.read_line(&mut line)? == 0 {
                return Err(invalid("closed"));
            }
            if number == 0 && !line.starts_with("HTTP/1.1 200") {
                return Err(invalid(&line));
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().map_err(|_| invalid(&line))?;
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        let body = String::from_utf8_lossy(&body).into_owned();
        body.split(' ').next().map(str::to_owned).ok_or_else(|| invalid("an empty answer"))
    }
}

/// What became of one request: when it began, and who answered.
type Visit = (Instant, Result<String, String>);

/// Asks again and again on one connection until it fails or the test is over.
fn keep(mut http: Http, over: &AtomicBool, visits: &Mutex<Vec<Visit>>) {
    while !over.load(Ordering::Relaxed) {
        let start = Instant::now();
        let answer = http.ask().map_err(|error| error.to_string());
        let failed = answer.is_err();
        visits.lock().unwrap().push((start, answer));
        if failed {
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// A new connection for every request.
fn dial(to: SocketAddr, over: &AtomicBool, visits: &Mutex<Vec<Visit>>) {
    while !over.load(Ordering::Relaxed) {
        let start = Instant::now();
        let answer = Http::connect(to).and_then(|mut http| http.ask()).map_err(|error| error.to_string());
        visits.lock().unwrap().push((start, answer));
        thread::sleep(Duration::from_millis(5));
    }
}

/// Says that the test is over, also when it fails: the threads must not keep it waiting.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn killed_under_load(hook: &str) {
    let scene = Scene::new(&examples().join("clusterip"), hook);
    let service = scene.get("services").remove(0);
    let vip = SocketAddr::new(service["address"].as_str().unwrap().parse().unwrap(), 80);

    // One after the other, so that each pod has its share.
    let mut connections: Vec<Http> =
        scene.inside("client", || (0..3 * KEPT).map(|_| Http::connect(vip).unwrap()).collect());
    let pods: Vec<String> = connections.iter_mut().map(|http| http.ask().unwrap()).collect();
    let victim = pods[0].clone();
    let victims = pods.iter().filter(|pod| **pod == victim).count();
    assert!(victims < pods.len(), "all connections are to {victim}: {pods:?}");

    let over = AtomicBool::new(false);
    let kept: Vec<Mutex<Vec<Visit>>> = pods.iter().map(|_| Mutex::default()).collect();
    let fresh: [Mutex<Vec<Visit>>; 2] = Default::default();
    let client = &scene.namespace("client");
    let (before, after) = thread::scope(|scope| {
        let _over = Over(&over);
        for (http, visits) in connections.into_iter().zip(&kept) {
            scope.spawn(|| keep(http, &over, visits));
        }
        for visits in &fresh {
            let over = &over;
            scope.spawn(move || client.run(|| dial(vip, over, visits)).unwrap());
        }
        let answered = |by: &dyn Fn(&str) -> bool| -> usize {
            let count = |visits: &Mutex<Vec<Visit>>| {
                visits
                    .lock()
                    .unwrap()
                    .iter()
                    .filter(|visit| visit.1.as_ref().is_ok_and(|pod| by(pod)))
                    .count()
            };
            fresh.iter().map(count).sum()
        };
        wait_for("load", || answered(&|_| true) >= 30);
        let before = Instant::now();
        scene.lab.ok("kill", &[&victim]);
        let after = Instant::now();
        let known = |pod: &str| pods.iter().any(|other| other == pod);
        wait_for("the new pod's turn", || answered(&|pod| !known(pod)) >= 20);
        wait_for("the end of the time for mishaps", || after.elapsed() > CONVERGENCE + PATIENCE);
        (before, after)
    });

    for (pod, visits) in pods.iter().zip(kept) {
        let visits = visits.into_inner().unwrap();
        assert!(visits.len() > 3, "{pod}: {visits:?}");
        let others = visits.iter().filter(|(_, answer)| answer.as_ref() != Ok(pod));
        if *pod == victim {
            let (last, answers) = visits.split_last().unwrap();
            assert!(last.1.is_err() && last.0 >= before - PATIENCE, "a connection outlived {pod}: {last:?}");
            assert!(answers.iter().all(|(_, answer)| answer.as_ref() == Ok(pod)), "{pod}: {answers:?}");
        } else {
            assert_eq!(others.collect::<Vec<_>>(), Vec::<&Visit>::new(), "{pod}'s connection was disturbed");
        }
    }
    let mut fresh: Vec<Visit> = fresh.into_iter().flat_map(|visits| visits.into_inner().unwrap()).collect();
    fresh.sort();
    for (start, answer) in &fresh {
        let mishap_is_due = *start + PATIENCE >= before && *start <= after + CONVERGENCE;
        assert!(
            answer.is_ok() || mishap_is_due,
            "{:?} after the kill: {answer:?}",
            start.duration_since(after)
        );
    }
    // The last 30: three pods, and the dead one is not among them.
    let last = &fresh[fresh.len() - 30..];
    let living = scene.lab.pods("backend-");
    assert_eq!(living.len(), 3);
    for pod in living {
        let turns = last.iter().filter(|(_, answer)| answer.as_ref() == Ok(&pod.name)).count();
        assert!((6..=14).contains(&turns), "{} had {turns} of the last 30: {last:?}", pod.name);
    }
}

#[test]
fn a_killed_pod_disturbs_no_other_at_tc() {
    killed_under_load("tc");
}

#[test]
fn a_killed_pod_disturbs_no_other_at_native_xdp() {
    killed_under_load("xdp");
}

#[test]
fn a_killed_pod_disturbs_no_other_at_generic_xdp() {
    killed_under_load("xdp-generic");
}
