//! Connections and what becomes of them: C3, C4, C5, C7.

use std::io::ErrorKind;
use std::net::SocketAddr;

use lb_tests::hosts::{Datagrams, Heard, Hosts, Manifest, Place, run};
use lb_tests::patience::wait_for;

use crate::at_every_hook;

at_every_hook! { c4_udp_when_nobody_is_left }

/// A UDP client that keeps its socket: refused when the Service has no backends, not answered when it is gone, and
/// served again when it is back. Conversations of the same Service with other backends go on.
fn c4_udp_when_nobody_is_left(hook: &str) {
    let hosts = Hosts::new();
    let to = |places: &[Place]| Manifest::new("dns", 1, places);
    let both = to(&[Place::Local(0), Place::Remote]);
    hosts.net.write("dns.yaml", &both.text());
    let _agent = hosts.agent(hook, &[]);
    for v6 in [false, true] {
        let sockets: Vec<_> = (0..4).map(|_| hosts.udp(Place::Client, both.vip(v6))).collect();
        let served = |place: Place| {
            let by = |socket: &&Datagrams| socket.ask(b"who?").unwrap().server == place.name();
            sockets.iter().find(by).expect("round robin comes to everybody")
        };
        let (here, there) = (served(Place::Local(0)), served(Place::Remote));
        let becomes = |what: &str, wanted: &dyn Fn(&std::io::Result<Heard>) -> bool| {
            wait_for(what, || wanted(&here.ask_briefly(b"and now?")));
        };
        let is_refused = |result: &std::io::Result<Heard>| {
            result.as_ref().is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
        };
        let by = |place: Place| {
            move |result: &std::io::Result<Heard>| {
                result.as_ref().is_ok_and(|heard| heard.server == place.name())
            }
        };
        // Its backend goes, the other stays.
        hosts.net.write("dns.yaml", &to(&[Place::Remote]).text());
        becomes("the other backend", &by(Place::Remote));
        assert_eq!(there.ask(b"still you?").unwrap().server, Place::Remote.name());
        // Scaled to zero, and up again.
        hosts.net.write("dns.yaml", &to(&[]).text());
        becomes("a refusal", &is_refused);
        hosts.net.write("dns.yaml", &to(&[Place::Local(1)]).text());
        becomes("the new backend", &by(Place::Local(1)));
        // Deleted, and made again.
        std::fs::remove_file(hosts.net.manifests().join("dns.yaml")).unwrap();
        wait_for("the end of the Service", || hosts.net.json(&["get", "services"]) == serde_json::json!([]));
        let before = hosts.count("drop-unowned");
        assert!(here.ask_briefly(b"anybody?").is_err());
        assert!(hosts.count("drop-unowned") > before);
        hosts.net.write("dns.yaml", &both.text());
        becomes("the Service again", &|result| result.is_ok());
    }
}

/// A client that uses one port again and again, at once after each connection, whether that was closed or reset.
#[test]
fn c3_a_port_is_used_again() {
    let hosts = Hosts::new();
    let service = Manifest::new("web", 1, &[Place::Local(0), Place::Local(1), Place::Remote]);
    hosts.net.write("web.yaml", &service.text());
    let _agent = hosts.agent("tc", &[]);
    // Its own kernel would keep the port from it for a minute.
    run(hosts.namespace(Place::Client), "sysctl -qw net.ipv4.tcp_tw_reuse=1");
    for v6 in [false, true] {
        let source = SocketAddr::new(Place::Client.address(v6), 40_003);
        let connect = |round: usize| {
            let mut talk = None;
            wait_for("the client's kernel to let it have the port", || {
                match hosts.connect_from(Place::Client, source, service.vip(v6)) {
                    Ok(connected) => talk = Some(connected),
                    Err(error) if error.kind() == ErrorKind::AddrNotAvailable => {}
                    Err(error) => panic!("connection {round}: {error}"),
                }
                talk.is_some()
            });
            talk.expect("a connection")
        };
        for round in 0..24 {
            let mut talk = connect(round);
            talk.echo(b"once more").unwrap();
            if round % 8 == 0 {
                talk.finish().unwrap();
            } else {
                talk.abort();
            }
        }
    }
}

/// A connection that the node has forgotten is reset as soon as it says something, unless the Service's algorithm finds
/// the backend again.
#[test]
fn c7_connections_that_were_forgotten() {
    let hosts = Hosts::new();
    let all = [Place::Local(0), Place::Local(1), Place::Remote];
    let reset = Manifest::new("reset", 1, &all);
    let found = Manifest::new("found", 2, &all).annotated("lb.io/algorithm", "maglev");
    hosts.net.write("reset.yaml", &reset.text());
    hosts.net.write("found.yaml", &found.text());
    let agent = hosts.agent("tc", &[]);
    let connect =
        |service: &Manifest| [false, true].map(|v6| hosts.connect(Place::Client, service.vip(v6)).unwrap());
    let (lost, kept) = (connect(&reset), connect(&found));
    agent.terminate();
    assert!(hosts.net.lb(&["detach"]).status.success());
    let _agent = hosts.agent("tc", &[]);
    for mut talk in lost {
        let error = talk.echo(b"are you there?").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    }
    for mut talk in kept {
        talk.echo(b"are you there?").unwrap();
        talk.finish().unwrap();
    }
    assert!(hosts.count("reset-mid-flow") >= 2);
}

/// Many times as many new flows as the table holds: each is served, and counted, and connections with traffic meanwhile
/// do not notice.
#[test]
fn c5_a_flood_of_new_flows_breaks_no_established_one() {
    const TABLE: &str = "1024";
    const FLOOD: usize = 4096;
    // Between two packets of a connection. Not a matter of time: the flood waits for the connections.
    const AT_ONCE: usize = 32;
    let hosts = Hosts::new();
    let web = Manifest::new("web", 1, &[Place::Local(0), Place::Remote]);
    let flooded = Manifest::new("flooded", 2, &[Place::Local(1)]);
    hosts.net.write("web.yaml", &web.text());
    hosts.net.write("flooded.yaml", &flooded.text());
    let _agent = hosts.agent("tc", &["--max-flows", TABLE]);
    for v6 in [false, true] {
        let mut talks: Vec<_> = (0..8).map(|_| hosts.connect(Place::Client, web.vip(v6)).unwrap()).collect();
        let before = hosts.count("new-flow");
        let mut served = 0;
        for _ in 0..FLOOD / AT_ONCE {
            for socket in hosts.udp_sockets(Place::Client, flooded.vip(v6), AT_ONCE) {
                assert_eq!(socket.ask(b"me too").unwrap().server, Place::Local(1).name());
                served += 1;
            }
            for (number, talk) in talks.iter_mut().enumerate() {
                let result = talk.echo(b"still there");
                result.unwrap_or_else(|error| panic!("connection {number} after {served} flows: {error}"));
            }
        }
        assert_eq!(served, FLOOD);
        // A source port of the client may come twice, and is no new flow then.
        let counted = hosts.count("new-flow") - before;
        assert!(counted > FLOOD as u64 / 2 && counted <= FLOOD as u64, "{counted} flows counted of {FLOOD}");
        let status = hosts.net.json(&["status"]);
        assert!(status["flows"]["used"].as_u64().unwrap() <= 2 * 1024, "{}", status["flows"]);
        for talk in talks {
            talk.finish().unwrap();
        }
    }
}
