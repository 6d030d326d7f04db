//! Sends DNS queries at a steady rate through a ClusterIP, and counts what comes back.
//!
//! Makes a node with a client (as root), runs the `lb` that `LB_BIN` names, and removes all of it. What it found in
//! docs/dns.md.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinEncodable};
use lb_tests::node::{Agent, TestNode};

/// DNS queries at a steady rate, through a ClusterIP.
#[derive(Debug, Parser)]
struct Args {
    /// Queries a second
    #[arg(long, default_value_t = 5000)]
    rate: u64,
    /// How long
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Services there are
    #[arg(long, default_value_t = 1000)]
    services: u32,
    /// Sockets that send: flows of the dataplane
    #[arg(long, default_value_t = 4)]
    sockets: u64,
    /// Change a Service every second meanwhile
    #[arg(long)]
    changes: bool,
}

/// The ClusterIP that is asked, and where the agent listens.
const VIP: &str = "10.96.0.53:53";
const LISTEN: &str = "172.31.0.1";
/// For answers that are on their way at the end.
const GRACE: Duration = Duration::from_secs(2);
/// Ticks of the scheduler's clock in /proc, a constant of the kernel's interface.
const TICKS_PER_SECOND: f64 = 100.0;

/// What one socket saw.
#[derive(Debug, Default)]
struct Tally {
    sent: u64,
    answered: u64,
    wrong: u64,
    /// Microseconds of each answer.
    times: Vec<u64>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let node = TestNode::new(0);
    node.write("dns.yaml", DNS_SERVICE);
    node.write("services.yaml", &services(args.services));
    let agent = node.agent(&["--dns-listen", LISTEN]);
    let before = cpu_seconds(&agent);
    let over = Arc::new(AtomicBool::new(false));
    let start = Instant::now();
    let clients: Vec<_> = (0..args.sockets)
        .map(|number| {
            let socket = node.client().run(|| UdpSocket::bind("0.0.0.0:0").expect("a socket"));
            let (socket, over) = (socket.expect("enters"), Arc::clone(&over));
            let (rate, services) = (args.rate as f64 / args.sockets as f64, args.services);
            let seconds = args.seconds;
            thread::spawn(move || client(&socket, number, rate, seconds, services, &over))
        })
        .collect();
    let mut changes = 0;
    while start.elapsed() < Duration::from_secs(args.seconds) {
        thread::sleep(Duration::from_secs(1));
        if args.changes {
            changes += 1;
            node.write("changing.yaml", &service("changing", changes));
        }
    }
    let took = start.elapsed();
    let cpu = cpu_seconds(&agent) - before;
    thread::sleep(GRACE);
    over.store(true, Ordering::Relaxed);
    let mut all = Tally::default();
    for client in clients {
        let tally = client.join().expect("a client");
        all.sent += tally.sent;
        all.answered += tally.answered;
        all.wrong += tally.wrong;
        all.times.extend(tally.times);
    }
    report(&args, all, took, cpu, changes)
}

fn report(args: &Args, mut all: Tally, took: Duration, cpu: f64, changes: u32) -> ExitCode {
    all.times.sort_unstable();
    let at = |share: f64| {
        let last = all.times.len().saturating_sub(1);
        all.times.get((last as f64 * share) as usize).copied().unwrap_or_default()
    };
    let lost = all.sent - all.answered;
    println!("{} services, {} changes, {} sockets", args.services, changes, args.sockets);
    println!(
        "{} queries in {:.1} s: {:.0}/s",
        all.sent,
        took.as_secs_f64(),
        all.sent as f64 / took.as_secs_f64()
    );
    println!("{} answered, {lost} lost, {} wrong", all.answered, all.wrong);
    println!("latency: half within {} us, 99 % within {} us, all within {} us", at(0.5), at(0.99), at(1.0));
    println!("the agent used {:.0} % of one core", cpu / took.as_secs_f64() * 100.0);
    if lost == 0 && all.wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Sends at its share of the rate while another thread receives.
fn client(
    socket: &UdpSocket,
    number: u64,
    rate: f64,
    seconds: u64,
    services: u32,
    over: &AtomicBool,
) -> Tally {
    let to: SocketAddr = VIP.parse().expect("an address");
    socket.connect(to).expect("connects");
    socket.set_read_timeout(Some(Duration::from_millis(100))).expect("sets");
    let queries = queries(services);
    let start = Instant::now();
    // When the query of each number was sent, in microseconds from the start; 0: answered, or never sent.
    let sent_at: Vec<AtomicU64> = (0..=u16::MAX).map(|_| AtomicU64::new(0)).collect();
    let micros = || u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX).max(1);
    thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            let mut tally = Tally::default();
            let mut buffer = [0; 2000];
            while !over.load(Ordering::Relaxed) {
                let Ok(length) = socket.recv(&mut buffer) else { continue };
                let Ok(answer) = Message::from_bytes(&buffer[..length]) else {
                    tally.wrong += 1;
                    continue;
                };
                let then = sent_at[usize::from(answer.metadata.id)].swap(0, Ordering::Relaxed);
                if then == 0 {
                    tally.wrong += 1;
                    continue;
                }
                tally.answered += 1;
                tally.times.push(micros() - then);
                tally.wrong += u64::from(!expected(&answer));
            }
            tally
        });
        let mut sent = 0_u64;
        while start.elapsed() < Duration::from_secs(seconds) {
            // As many as are due by now.
            let due = (start.elapsed().as_secs_f64() * rate) as u64;
            while sent < due {
                let id = (sent & 0xffff) as u16;
                let mut query = queries[(sent.wrapping_mul(7919) + number) as usize % queries.len()].clone();
                query[..2].copy_from_slice(&id.to_be_bytes());
                sent_at[usize::from(id)].store(micros(), Ordering::Relaxed);
                socket.send(&query).expect("sends");
                sent += 1;
            }
            thread::sleep(Duration::from_millis(1));
        }
        Tally { sent, ..receiver.join().expect("the receiver") }
    })
}

/// What pods ask: names that are there, in both families, and those of a search path that are not.
fn queries(services: u32) -> Vec<Vec<u8>> {
    let names = (0..services).flat_map(|number| {
        let name = format!("service-{number}.default.svc.cluster.local.");
        [
            (name.clone(), RecordType::A),
            (name.clone(), RecordType::AAAA),
            (format!("_http._tcp.{name}"), RecordType::SRV),
            (format!("{name}default.svc.cluster.local."), RecordType::A),
        ]
    });
    let encode = |(name, kind): (String, RecordType)| {
        let mut query = Message::new(0, MessageType::Query, OpCode::Query);
        query.metadata.recursion_desired = true;
        query.add_query(Query::query(Name::from_ascii(name).expect("a name"), kind));
        query.to_bytes().expect("a message")
    };
    names.map(encode).collect()
}

/// Whether an answer is what its question deserves.
fn expected(answer: &Message) -> bool {
    let Some(question) = answer.queries.first() else { return false };
    let code = answer.metadata.response_code;
    match question.query_type() {
        RecordType::AAAA => code == ResponseCode::NoError && answer.answers.is_empty(),
        RecordType::A if question.name().num_labels() > 5 => code == ResponseCode::NXDomain,
        _ => code == ResponseCode::NoError && answer.answers.len() == 1,
    }
}

const DNS_SERVICE: &str = "kind: Service\nmetadata: {name: kube-dns, namespace: kube-system}\n\
     spec: {clusterIP: 10.96.0.53, ports: [{name: dns, port: 53, protocol: UDP}]}\n---\nkind: EndpointSlice\n\
     metadata: {name: kube-dns-4, namespace: kube-system, labels: {kubernetes.io/service-name: kube-dns}}\n\
     addressType: IPv4\nports: [{name: dns, port: 53, protocol: UDP}]\nendpoints: [{addresses: [172.31.0.1]}]\n";

fn services(count: u32) -> String {
    (0..count).map(|number| service(&format!("service-{number}"), number)).collect()
}

fn service(name: &str, number: u32) -> String {
    format!(
        "---\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{clusterIP: 10.96.{}.{}, ports: [{{name: http, port: {}}}]}}\n",
        1 + number / 250 % 250,
        1 + number % 250,
        // Changing Services share addresses.
        1000 + number,
    )
}

/// Processor time of the agent, user and kernel (proc(5), /proc/PID/stat).
fn cpu_seconds(agent: &Agent) -> f64 {
    let text = fs::read_to_string(format!("/proc/{}/stat", agent.pid())).expect("the agent runs");
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks =
        |field: usize| fields.get(field).and_then(|text| text.parse::<f64>().ok()).unwrap_or_default();
    // Fields 14 and 15, counted from 1; what is left begins with field 3.
    (ticks(11) + ticks(12)) / TICKS_PER_SECOND
}
