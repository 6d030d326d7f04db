//! C: the life of flows.

use lb_common::reason::Reason;
use lb_userspace::model::desired::{Algorithm, Protocol};

use crate::rows::packet::{Packet, Upper};
use crate::rows::row::{Conn, Rows, Say};

/// Protocols with connections.
const CONNECTED: &[Protocol] = &[Protocol::Tcp, Protocol::Sctp];

pub(super) fn rows(rows: &mut Rows) {
    entries(rows);
    lifetimes(rows);
    reuse(rows);
    removal(rows);
    ports(rows);
    mid_flow(rows);
}

fn entries(rows: &mut Rows) {
    rows.all("C1 the entry of the way there is restored by a reply", |s| {
        s.serve(&[s.svc(&[1, 2])]);
        let conn = s.conn(1000, 1);
        s.establish(&conn);
        s.evict(&conn.request(Say::Data));
        s.advance(2);
        s.back(&conn, Say::Data);
        s.to(&conn, Say::Data);
    });
    rows.all("C1 the entry of the way back is restored by a packet there", |s| {
        s.serve(&[s.svc(&[1, 2])]);
        let conn = s.conn(1000, 1);
        s.establish(&conn);
        s.evict(&conn.reply(Say::Data));
        s.advance(2);
        s.to(&conn, Say::Data);
        s.back(&conn, Say::Data);
    });
    rows.all("C1 a reply without a flow is not ours", |s| {
        s.serve(&[s.svc(&[1])]);
        s.leave(Reason::NotOurs, &s.conn(1000, 1).reply(Say::Accept));
    });
    rows.tcp("C1 flows of one client differ by its port", |s| {
        s.serve(&[s.svc(&[1, 2])]);
        let (a, b) = (s.conn(1000, 1), s.conn(1001, 2));
        s.open(&a);
        s.open(&b);
        s.back(&b, Say::Accept);
        s.back(&a, Say::Accept);
        s.to(&a, Say::Data);
        s.to(&b, Say::Data);
    });
    rows.all("C1 egress translates replies of the host's own sockets", |s| {
        s.serve(&[s.svc(&[1])]);
        let conn = s.conn(1000, 1);
        s.open(&conn);
        s.at_egress(true);
        s.back(&conn, Say::Accept);
        s.leave(Reason::NotOurs, &s.conn(1001, 1).reply(Say::Accept));
    });
    rows.all("C1 egress opens no flows", |s| {
        s.serve(&[s.svc(&[1])]);
        s.at_egress(true);
        s.leave(Reason::NotOurs, &s.conn(1000, 1).request(Say::Open));
        s.at_egress(false);
        s.open(&s.conn(1000, 1));
    });
}

fn lifetimes(rows: &mut Rows) {
    let table: &[(&str, &[Protocol], u32)] = &[
        ("C2 an unanswered TCP or SCTP flow lives 60 s", CONNECTED, 60),
        ("C2 an unanswered UDP flow lives 30 s", &[Protocol::Udp], 30),
    ];
    for (name, protocols, seconds) in table {
        rows.each(name, protocols, |s| {
            s.serve(&[s.svc(&[1, 2])]);
            let conn = s.conn(1000, 1);
            s.open(&conn);
            s.advance(seconds - 1);
            s.to(&conn, Say::Open);
            s.advance(seconds + 2);
            s.open(&conn.by(s.pod(2)));
        });
    }
    rows.each("C2 an established flow lives 8000 s", CONNECTED, |s| {
        s.serve(&[s.svc(&[1, 2])]);
        let conn = s.conn(1000, 1);
        s.establish(&conn);
        s.advance(7_990);
        s.to(&conn, Say::Data);
        s.advance(7_990);
        s.back(&conn, Say::Data);
        s.advance(8_010);
        s.open(&conn.by(s.pod(2)));
    });
    rows.udp("C2 an answered UDP flow lives 120 s", |s| {
        s.serve(&[s.svc(&[1, 2])]);
        let conn = s.conn(1000, 1);
        s.open(&conn);
        s.back(&conn, Say::Data);
        s.advance(115);
        s.to(&conn, Say::Data);
        s.advance(115);
        s.back(&conn, Say::Data);
        s.advance(125);
        s.open(&conn.by(s.pod(2)));
    });
    rows.each("C2 an answered flow that was never confirmed lives 60 s", CONNECTED, |s| {
        s.serve(&[s.svc(&[1, 2])]);
        let conn = s.conn(1000, 1);
        s.open(&conn);
        s.back(&conn, Say::Accept);
        s.advance(65);
        s.open(&conn.by(s.pod(2)));
    });
    rows.each("C2 a flow closed both ways lives 10 s", CONNECTED, |s| {
        s.serve(&[s.svc(&[1])]);
        let conn = s.conn(1000, 1);
        s.establish(&conn);
        s.still_open(s.pod(1), 0);
        s.to(&conn, Say::Fin);
        s.back(&conn, Say::Data);
        s.back(&conn, Say::Fin);
        s.closed(s.pod(1), 1);
        s.to(&conn, Say::Data);
        s.advance(12);
        s.leave(Reason::NotOurs, &conn.reply(Say::Data));
    });
    rows.each("C2 a flow closed one way is still established", CONNECTED, |s| {
        s.serve(&[s.svc(&[1])]);
        let conn = s.conn(1000, 1);
        s.establish(&conn);
        s.to(&conn, Say::Fin);
        s.advance(300);
        s.back(&conn, Say::Data);
        s.closed(s.pod(1), 0);
        s.still_open(s.pod(1), 1);
    });
    for (name, by_client) in
        [("C2 a reset from the client closes", true), ("C2 a reset from the backend closes", false)]
    {
        rows.each(name, CONNECTED, |s| {
            s.serve(&[s.svc(&[1])]);
            let conn = s.conn(1000, 1);
            s.establish(&conn);
            if by_client {
                s.to(&conn, Say::Reset);
            } else {
                s.back(&conn, Say::Reset);
            }
            s.closed(s.pod(1), 1);
            s.still_open(s.pod(1), 0);
            s.advance(12);
            s.leave(Reason::NotOurs, &conn.reply(Say::Data));
        });
    }
    rows.tcp("C2 a refused connection is closed", |s| {
        s.serve(&[s.svc(&[1])]);
        let conn = s.conn(1000, 1);
        s.open(&conn);
        s.back(&conn, Say::Reset);
        s.closed(s.pod(1), 1);
        s.still_open(s.pod(1), 0);
    });
    rows.tcp("C2 a flow is counted closed once", |s| {
        s.serve(&[s.svc(&[1])]);
        let conn = s.conn(1000, 1);
        s.establish(&conn);
        s.to(&conn, Say::Fin);
        s.back(&conn, Say::Fin);
        s.to(&conn, Say::Reset);
        s.back(&conn, Say::Reset);
        s.closed(s.pod(1), 1);
        s.still_open(s.pod(1), 0);
    });
    rows.tcp("C2 a stale reply is not ours", |s| {
        s.serve(&[s.svc(&[1])]);
        let conn = s.conn(1000, 1);
        s.open(&conn);
        s.advance(70);
        s.leave(Reason::NotOurs, &conn.reply(Say::Accept));
    });
}

fn reuse(rows: &mut Rows) {
    rows.each("C3 a SYN on a closing flow starts a new one", CONNECTED, |s| {
        s.serve(&[s.svc(&[1, 2])]);
        let conn = s.conn(1000, 1);
        s.establish(&conn);
        s.to(&conn, Say::Fin);
        s.back(&conn, Say::Fin);
        s.open(&conn.by(s.pod(2)));
        s.back(&conn.by(s.pod(2)), Say::Accept);
        s.still_open(s.pod(1), 0);
        s.still_open(s.pod(2), 1);
    });
    rows.each("C3 a SYN after a reset starts a new flow", CONNECTED, |s| {
        s.serve(&[s.svc(&[1, 2])]);
        let conn = s.conn(1000, 1);
        s.establish(&conn);
        s.back(&conn, Say::Reset);
        s.open(&conn.by(s.pod(2)));
    });
    rows.each("C3 a SYN on a flow whose backend is gone starts a new one", CONNECTED, |s| {
        s.serve(&[s.svc(&[1, 2])]);
        let conn = s.conn(1000, 1);
        s.establish(&conn);
        s.serve(&[s.svc(&[2])]);
        s.open(&conn.by(s.pod(2)));
        s.to(&conn.by(s.pod(2)), Say::Data);
    });
    rows.each(
        "C3 a closed flow does not take the answers to a client that dials its backend itself",
        CONNECTED,
        |s| {
            s.serve(&[s.svc(&[1])]);
            let conn = s.conn(1000, 1);
            s.establish(&conn);
            s.to(&conn, Say::Fin);
            s.back(&conn, Say::Fin);
            s.leave(Reason::NotOurs, &conn.forwarded(Say::Open));
            s.leave(Reason::NotOurs, &conn.reply(Say::Accept));
            s.leave(Reason::NotOurs, &conn.forwarded(Say::Data));
        },
    );
    rows.tcp("C3 a new flow of the same ends may get the same backend", |s| {
        s.serve(&[s.svc(&[1])]);
        let conn = s.conn(1000, 1);
        for _ in 0..3 {
            s.establish(&conn);
            s.to(&conn, Say::Fin);
            s.back(&conn, Say::Fin);
        }
        s.closed(s.pod(1), 3);
        s.still_open(s.pod(1), 0);
    });
}

fn removal(rows: &mut Rows) {
    rows.each("C4 a flow to a removed backend stays", CONNECTED, |s| {
        s.serve(&[s.svc(&[1, 2])]);
        let conn = s.conn(1000, 1);
        s.establish(&conn);
        s.serve(&[s.svc(&[2])]);
        s.to(&conn, Say::Data);
        s.back(&conn, Say::Data);
    });
    rows.each("C4 a flow stays when its service is deleted", CONNECTED, |s| {
        s.serve(&[s.svc(&[1])]);
        let conn = s.conn(1000, 1);
        s.establish(&conn);
        s.serve(&[]);
        s.to(&conn, Say::Data);
        s.back(&conn, Say::Data);
    });
    rows.udp("C4 a UDP flow to a removed backend is forgotten at once", |s| {
        s.serve(&[s.svc(&[1, 2])]);
        let conn = s.conn(1000, 1);
        s.open(&conn);
        s.back(&conn, Say::Data);
        s.serve(&[s.svc(&[2])]);
        s.open(&conn.by(s.pod(2)));
        s.to(&conn.by(s.pod(2)), Say::Data);
    });
    rows.udp("C4 a UDP flow to a backend that serves no more is forgotten", |s| {
        s.serve(&[s.svc(&[1, 2])]);
        let conn = s.conn(1000, 1);
        s.open(&conn);
        s.serve(&[s.svc(&[1, 2]).not_ready(&[1])]);
        s.open(&conn.by(s.pod(2)));
    });
    rows.udp("C4 a UDP flow to a backend that only terminates stays", |s| {
        s.serve(&[s.svc(&[1, 2])]);
        let conn = s.conn(1000, 1);
        s.open(&conn);
        s.serve(&[s.svc(&[1, 2]).terminating(&[1])]);
        s.to(&conn, Say::Data);
    });
    rows.udp("C4 UDP flows to other backends are left alone", |s| {
        s.serve(&[s.svc(&[1, 2])]);
        let (gone, kept) = (s.conn(1000, 1), s.conn(1001, 2));
        s.open(&gone);
        s.open(&kept);
        s.serve(&[s.svc(&[2])]);
        s.to(&kept, Say::Data);
        s.back(&kept, Say::Data);
    });
    rows.udp("C4 UDP after a scale to zero is rejected", |s| {
        s.serve(&[s.svc(&[1])]);
        let conn = s.conn(1000, 1);
        s.open(&conn);
        s.serve(&[s.svc(&[])]);
        s.answer(Reason::RejectedNoBackend, &conn.request(Say::Data));
        s.serve(&[s.svc(&[2])]);
        s.open(&conn.by(s.pod(2)));
    });
    rows.udp("C4 UDP after the service's deletion is nobody's", |s| {
        s.serve(&[s.svc(&[1])]);
        let conn = s.conn(1000, 1);
        s.open(&conn);
        s.serve(&[]);
        s.leave(Reason::DropUnowned, &conn.request(Say::Data));
    });
    rows.udp("C4 a backend that comes back is not the one a flow knew", |s| {
        s.serve(&[s.svc(&[1])]);
        let conn = s.conn(1000, 1);
        s.open(&conn);
        s.serve(&[s.svc(&[])]);
        s.serve(&[s.svc(&[1])]);
        s.open(&conn);
    });
    rows.udp("C4 a UDP flow to a backend whose number another has now is forgotten", |s| {
        s.serve(&[s.svc(&[1])]);
        let conn = s.conn(1000, 1);
        s.open(&conn);
        s.serve(&[s.svc(&[])]);
        s.let_numbers_rest();
        s.serve(&[s.svc(&[2])]);
        s.open(&conn.by(s.pod(2)));
    });
    rows.each("C3 a SYN on a flow whose backend's number another has now starts a new one", CONNECTED, |s| {
        s.serve(&[s.svc(&[1])]);
        let conn = s.conn(1000, 1);
        s.establish(&conn);
        s.serve(&[s.svc(&[])]);
        s.let_numbers_rest();
        s.serve(&[s.svc(&[2])]);
        s.to(&conn, Say::Data);
        s.open(&conn.by(s.pod(2)));
    });
    rows.each("C5 after all flows were lost new ones are served", &[Protocol::Udp, Protocol::Sctp], |s| {
        s.serve(&[s.svc(&[1, 2])]);
        s.open(&s.conn(1000, 1));
        s.lose_flows();
        s.open(&s.conn(1000, 2));
        s.back(&s.conn(1000, 2), Say::Accept);
    });
}

fn ports(rows: &mut Rows) {
    fn two_frontends(s: &mut crate::rows::Script) -> (Conn, Conn) {
        let other = (s.net.vip(2), 80);
        s.serve(&[s.svc(&[1]), s.svc_at(other, &[1])]);
        let second = s.conn_to(s.client(1000), other, 1).as_seen(s.client(61_000));
        (s.conn(1000, 1), second)
    }
    rows.all("C6 a second frontend with the same backend and client port gets a port of its own", |s| {
        let (first, second) = two_frontends(s);
        s.open(&first);
        s.open(&second);
        for conn in [first, second] {
            s.back(&conn, Say::Accept);
            s.to(&conn, Say::Data);
            s.back(&conn, Say::Data);
        }
    });
    rows.all("C6 no port is left: dropped", |s| {
        let (first, second) = two_frontends(s);
        let third = (s.net.vip(3), 80);
        let others = [s.svc(&[1]), s.svc_at(second.frontend, &[1]), s.svc_at(third, &[1])];
        s.serve(&others);
        s.open(&first);
        s.open(&second);
        let late = s.conn_to(s.client(1000), third, 1);
        s.leave(Reason::DropNoSourcePort, &late.request(Say::Open));
    });
    rows.tcp("C6 the port of a flow that is over is free again", |s| {
        let (first, second) = two_frontends(s);
        s.open(&first);
        s.advance(65);
        let direct = s.conn_to(second.client, second.frontend, 1);
        s.open(&direct);
        s.back(&direct, Say::Accept);
    });
    rows.all("C6 a flow that is over leaves the one alone that has its place now", |s| {
        let (first, second) = two_frontends(s);
        s.open(&first);
        s.advance(65);
        let second = second.as_seen(second.client);
        s.establish(&second);
        s.open(&first.as_seen(s.client(61_000)));
        s.back(&second, Say::Data);
        s.to(&second, Say::Data);
    });
    rows.tcp("C6 without ports to give the second flow is dropped", |s| {
        s.snat_ports(0, 0);
        let (first, second) = two_frontends(s);
        s.open(&first);
        s.leave(Reason::DropNoSourcePort, &second.request(Say::Open));
    });
}

fn mid_flow(rows: &mut Rows) {
    rows.tcp("C7 a packet of no known flow is reset", |s| {
        s.serve(&[s.svc(&[1])]);
        for say in [Say::Data, Say::Fin, Say::Accept] {
            s.answer(Reason::ResetMidFlow, &s.conn(1000, 1).request(say));
        }
    });
    rows.tcp("C7 a packet without any flag is reset", |s| {
        s.serve(&[s.svc(&[1])]);
        let upper = Upper::Tcp { flags: 0, numbers: [7, 9], window: 1, options: Vec::new() };
        let packet = Packet::new(s.client(1000), s.frontend(), upper).payload(*b"!");
        s.answer(Reason::ResetMidFlow, &packet);
    });
    rows.tcp("C7 a reset of no known flow is dropped, not answered", |s| {
        s.serve(&[s.svc(&[1])]);
        s.leave(Reason::DropStrayReset, &s.conn(1000, 1).request(Say::Reset));
    });
    rows.tcp("C7 after the flows were lost an established connection is reset", |s| {
        s.serve(&[s.svc(&[1])]);
        let conn = s.conn(1000, 1);
        s.establish(&conn);
        s.lose_flows();
        s.answer(Reason::ResetMidFlow, &conn.request(Say::Data));
        s.leave(Reason::NotOurs, &conn.reply(Say::Data));
        s.open(&conn);
    });
    rows.tcp("C7 with Maglev a packet of no known flow goes where its first went", |s| {
        s.serve(&[s.svc(&[1, 2, 3]).algorithm(Algorithm::Maglev)]);
        for port in 1000..1004 {
            let conn = s.conn(port, 1);
            let first = s.any(Reason::NewFlow, &conn, Say::Open, &[1, 2, 3]);
            s.lose_flows();
            s.same(Reason::NewFlow, &conn, Say::Data, &[1, 2, 3], first);
        }
    });
    rows.tcp("C7 an idle flow that has expired is reset", |s| {
        s.serve(&[s.svc(&[1])]);
        let conn = s.conn(1000, 1);
        s.establish(&conn);
        s.advance(8_010);
        s.answer(Reason::ResetMidFlow, &conn.request(Say::Data));
    });
}
