//! Real sockets on the loopback: a server, and upstreams that behave in many ways.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::Record;

use super::super::{Dns, DnsError, Settings, ZoneConfig, parse_address};
use super::*;
use crate::model::{Allocations, ModelConfig};
use crate::source::{Objects, document};

/// How an upstream is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Manner {
    /// Answers.
    Good,
    /// Says nothing.
    Silent,
    /// Says SERVFAIL.
    Broken,
    /// Says by UDP that TCP must be used.
    TcpOnly,
    /// Says first what was not asked.
    Forging,
    /// Says NXDOMAIN.
    Knowing,
}

/// An upstream, and how often it was asked. It stays until the test's process ends.
fn upstream(manner: Manner) -> (SocketAddr, Arc<AtomicUsize>) {
    // The same port for both protocols: whoever has it by UDP may not have it by TCP.
    let (udp, tcp) = (0..100)
        .find_map(|_| {
            let tcp = TcpListener::bind((own(), 0)).unwrap();
            Some((UdpSocket::bind(tcp.local_addr().unwrap()).ok()?, tcp))
        })
        .unwrap();
    let address = udp.local_addr().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    thread::spawn(move || {
        let mut buffer = [0; 2000];
        while let Ok((length, from)) = udp.recv_from(&mut buffer) {
            counted.fetch_add(1, Ordering::SeqCst);
            let query = Message::from_bytes(&buffer[..length]).unwrap();
            let mut answer = reply(&query, 1);
            match manner {
                Manner::Silent => continue,
                Manner::Good => {}
                Manner::Broken => answer.metadata.response_code = ResponseCode::ServFail,
                Manner::Knowing => {
                    answer.answers.clear();
                    answer.metadata.response_code = ResponseCode::NXDomain;
                }
                Manner::TcpOnly => {
                    answer.answers.clear();
                    answer.metadata.truncation = true;
                }
                Manner::Forging => {
                    let mut forged = reply(&query, 66);
                    forged.metadata.id = !query.metadata.id;
                    udp.send_to(&forged.to_bytes().unwrap(), from).unwrap();
                    let mut other = reply(&query, 67);
                    other.queries[0].set_name(name("other.example"));
                    udp.send_to(&other.to_bytes().unwrap(), from).unwrap();
                    udp.send_to(b"not a message", from).unwrap();
                    udp.send_to(&query.to_bytes().unwrap(), from).unwrap();
                }
            }
            udp.send_to(&answer.to_bytes().unwrap(), from).unwrap();
        }
    });
    thread::spawn(move || {
        for mut stream in tcp.incoming().flatten() {
            let query = Message::from_bytes(&receive(&mut stream).unwrap()).unwrap();
            send(&mut stream, &reply(&query, 100).to_bytes().unwrap());
        }
    });
    (address, count)
}

/// So many addresses, the last number of the first is the count.
fn reply(query: &Message, count: u8) -> Message {
    let mut answer = query.clone();
    answer.metadata.message_type = MessageType::Response;
    let of = query.queries[0].name();
    for last in (1..=count).rev() {
        answer.add_answer(Record::from_rdata(
            of.clone(),
            60,
            address_data(Ipv4Addr::new(192, 0, 2, last).into()),
        ));
    }
    answer
}

fn send(stream: &mut TcpStream, message: &[u8]) {
    let length = u16::try_from(message.len()).unwrap().to_be_bytes();
    stream.write_all(&[&length, message].concat()).unwrap();
}

fn receive(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message)?;
    Ok(message)
}

/// An address of the loopback that no other process has: tests run side by side.
fn own() -> IpAddr {
    let [_, b, c, d] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, b, c, d).into()
}

/// A server that listens at a port which is free, and where.
fn server(upstreams: &[SocketAddr]) -> (Dns, SocketAddr) {
    patient_server(upstreams, PATIENCE)
}

fn patient_server(upstreams: &[SocketAddr], attempt: Duration) -> (Dns, SocketAddr) {
    for _ in 0..100 {
        let free = TcpListener::bind((own(), 0)).unwrap().local_addr().unwrap();
        let settings = Settings {
            listen: vec![free],
            upstreams: upstreams.to_vec(),
            attempt,
            zone: ZoneConfig { domain: name("cluster.local"), ttl: 5, servers: Vec::new() },
        };
        // Somebody else may have taken the port meanwhile.
        let Ok(mut dns) = Dns::start(settings, 1) else { continue };
        update(&mut dns, "10.96.0.10");
        return (dns, free);
    }
    panic!("no port is free");
}

fn update(dns: &mut Dns, address: &str) {
    let objects = [
        serde_json::json!({
            "kind": "Service", "metadata": {"name": "web"}, "spec": {"clusterIP": address, "ports": [{"port": 80}]},
        }),
        serde_json::json!({
            "kind": "Service", "metadata": {"name": "away"},
            "spec": {"type": "ExternalName", "externalName": "www.example.com"},
        }),
    ];
    let objects: Objects = objects.into_iter().map(|o| document::decode(o).unwrap().unwrap()).collect();
    dns.update(&ModelConfig::default(), &objects, &Allocations::default());
}

/// Long, because the machine may be busy; it is not waited for in vain.
const PATIENCE: Duration = Duration::from_secs(60);

fn by_udp(server: SocketAddr, query: &Message) -> Message {
    let socket = UdpSocket::bind((own(), 0)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send_to(&query.to_bytes().unwrap(), server).unwrap();
    let mut buffer = [0; 2000];
    let length = socket.recv(&mut buffer).unwrap();
    let answer = Message::from_bytes(&buffer[..length]).unwrap();
    assert_eq!((answer.metadata.id, &answer.queries), (query.metadata.id, &query.queries));
    answer
}

fn addresses(answer: &Message) -> Vec<String> {
    answer.answers.iter().map(|record| record.data.to_string()).collect()
}

fn outside() -> Message {
    query("wWw.example.com", RecordType::A)
}

#[test]
fn the_next_upstream_is_asked() {
    let (bad, asked) = upstream(Manner::Broken);
    let (good, _) = upstream(Manner::Good);
    let (_dns, server) = server(&[bad, good]);
    let answer = by_udp(server, &outside());
    assert_eq!(addresses(&answer), ["192.0.2.1"]);
    assert!(answer.metadata.recursion_available && !answer.metadata.authoritative);
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    // The one that answered is asked first from then on.
    by_udp(server, &query("other.example.com", RecordType::A));
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[test]
fn silence_is_no_answer() {
    let (silent, asked) = upstream(Manner::Silent);
    let (good, _) = upstream(Manner::Good);
    // Long enough for the good one on a busy machine.
    let (_dns, server) = patient_server(&[silent, good], Duration::from_secs(8));
    assert_eq!(addresses(&by_udp(server, &outside())), ["192.0.2.1"]);
    assert!(asked.load(Ordering::SeqCst) > 0);
}

#[test]
fn where_nobody_listens_there_is_no_waiting() {
    // A socket that hears one other address only: whoever else sends to it is told that nobody is there.
    let deaf = UdpSocket::bind((own(), 0)).unwrap();
    deaf.connect((own(), 9)).unwrap();
    let (_dns, server) = server(&[deaf.local_addr().unwrap()]);
    // With the patience that is set here, waiting would end the test.
    assert_eq!(by_udp(server, &outside()).metadata.response_code, ResponseCode::ServFail);
}

/// However many ask, only so many wait at a time; the others are told at once.
#[test]
fn the_waiting_room_is_bounded() {
    let (silent, _) = upstream(Manner::Silent);
    let (_dns, server) = server(&[silent]);
    let socket = UdpSocket::bind((own(), 0)).unwrap();
    socket.set_read_timeout(Some(PATIENCE / 2)).unwrap();
    for number in 0..300_u16 {
        let mut query = query(&format!("n{number}.example.com"), RecordType::A);
        query.metadata.id = number;
        socket.send_to(&query.to_bytes().unwrap(), server).unwrap();
    }
    let mut buffer = [0; 2000];
    // 256 wait; whatever of the rest has arrived is refused.
    for _ in 0..44 {
        let length = socket.recv(&mut buffer).unwrap();
        let answer = Message::from_bytes(&buffer[..length]).unwrap();
        assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    }
    // Own names are answered meanwhile.
    let web = by_udp(server, &query("web.default.svc.cluster.local", RecordType::A));
    assert_eq!(addresses(&web), ["10.96.0.10"]);
}

#[test]
fn when_all_are_broken_that_is_said() {
    let (bad, asked) = upstream(Manner::Broken);
    let (_dns, server) = server(&[bad]);
    let answer = by_udp(server, &outside());
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

#[test]
fn an_answer_is_remembered_and_keeps_the_case_of_its_question() {
    let (good, asked) = upstream(Manner::Good);
    let (_dns, server) = server(&[good]);
    for (of, ttl) in [("wWw.example.com", 60), ("www.EXAMPLE.com", 30), ("www.example.com", 30)] {
        let answer = by_udp(server, &query(of, RecordType::A));
        assert!(answer.queries[0].name().eq_case(&name(of)), "{of}");
        assert!(answer.answers[0].name.eq_case(&name(of)), "{of}");
        assert!(answer.answers[0].ttl <= ttl);
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[test]
fn a_long_answer_is_fetched_by_tcp_and_cut_for_udp() {
    let (far, _) = upstream(Manner::TcpOnly);
    let (_dns, server) = server(&[far]);
    let answer = by_udp(server, &outside());
    assert!(answer.metadata.truncation && (20..100).contains(&answer.answers.len()), "{answer:?}");
    let mut stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // Two at once, on one connection, in this order.
    for query in [outside(), query("web.default.svc.cluster.local", RecordType::A)] {
        send(&mut stream, &query.to_bytes().unwrap());
    }
    let first = Message::from_bytes(&receive(&mut stream).unwrap()).unwrap();
    assert_eq!(first.answers.len(), 100);
    let second = Message::from_bytes(&receive(&mut stream).unwrap()).unwrap();
    assert_eq!(addresses(&second), ["10.96.0.10"]);
}

#[test]
fn what_was_not_asked_is_not_heard() {
    let (forging, _) = upstream(Manner::Forging);
    let (_dns, server) = server(&[forging]);
    assert_eq!(addresses(&by_udp(server, &outside())), ["192.0.2.1"]);
}

#[test]
fn an_alias_is_followed_outside() {
    let (good, _) = upstream(Manner::Good);
    let (_dns, server_of_good) = server(&[good]);
    let answer = by_udp(server_of_good, &query("away.default.svc.cluster.local", RecordType::A));
    assert_eq!(addresses(&answer), ["www.example.com.", "192.0.2.1"]);
    let (knowing, _) = upstream(Manner::Knowing);
    let (_dns, server_of_knowing) = server(&[knowing]);
    let answer = by_udp(server_of_knowing, &query("away.default.svc.cluster.local", RecordType::A));
    assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(addresses(&answer), ["www.example.com."]);
}

#[test]
fn own_names_change_at_once_and_need_no_upstream() {
    let (bad, asked) = upstream(Manner::Broken);
    let (mut dns, server) = server(&[bad]);
    let web = query("web.default.svc.cluster.local", RecordType::A);
    let reverse = |last: u8| query(&format!("{last}.0.96.10.in-addr.arpa"), RecordType::PTR);
    for last in 10..30 {
        let address = format!("10.96.0.{last}");
        update(&mut dns, &address);
        assert_eq!(addresses(&by_udp(server, &web)), [address]);
        assert_eq!(addresses(&by_udp(server, &reverse(last))), ["web.default.svc.cluster.local."]);
    }
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

#[test]
fn the_sockets_are_closed_with_the_server() {
    let (dns, server) = server(&[]);
    assert_eq!(addresses(&by_udp(server, &query("web.default.svc.cluster.local", RecordType::A))).len(), 1);
    drop(dns);
    let gone = (0..3000).any(|_| {
        thread::sleep(Duration::from_millis(10));
        UdpSocket::bind(server).is_ok()
    });
    assert!(gone);
}

#[test]
fn a_stream_of_nonsense_is_closed() {
    let (_dns, server) = server(&[]);
    for nonsense in [&[0xff, 0xff, 1, 2, 3][..], &[0, 0], &[0, 12, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0]] {
        let mut stream = TcpStream::connect(server).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(nonsense).unwrap();
        // The end, or a reset when it had not read all.
        let read = stream.read(&mut [0]);
        assert!(
            matches!(read, Ok(0)) || read.is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset)
        );
    }
}

#[test]
fn what_it_will_not_listen_on() {
    let start = |listen: &str, upstream: &str| {
        let settings = Settings {
            listen: vec![parse_address(listen).unwrap()],
            upstreams: vec![parse_address(upstream).unwrap()],
            attempt: PATIENCE,
            zone: ZoneConfig { domain: name("cluster.local"), ttl: 5, servers: Vec::new() },
        };
        Dns::start(settings, 1).map(drop)
    };
    assert!(matches!(start("0.0.0.0:5353", "192.0.2.1"), Err(DnsError::Unspecified(_))));
    assert!(matches!(start("127.0.0.1:5353", "127.0.0.1:5353"), Err(DnsError::Loop(_))));
    let taken = UdpSocket::bind((own(), 0)).unwrap();
    let error = start(&taken.local_addr().unwrap().to_string(), "192.0.2.1").unwrap_err().to_string();
    assert!(error.contains("cannot listen for DNS by UDP: Address already in use"), "{error}");
}

#[test]
fn addresses_of_the_command_line() {
    for (text, address) in [
        ("10.0.0.1", "10.0.0.1:53"),
        ("10.0.0.1:5353", "10.0.0.1:5353"),
        ("fd00::1", "[fd00::1]:53"),
        ("[fd00::1]", "[fd00::1]:53"),
        ("[fd00::1]:5353", "[fd00::1]:5353"),
    ] {
        assert_eq!(parse_address(text), Ok(address.parse().unwrap()), "{text}");
    }
    for text in ["", "host", "10.0.0.1:0", "10.0.0.1:", "10.0.0.1:65536", "[10.0.0"] {
        assert!(parse_address(text).is_err(), "{text}");
    }
}
