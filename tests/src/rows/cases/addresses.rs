//! A1–A3, A8: whose address a backend sees, and what else of the header stays.

use lb_common::reason::Reason;
use lb_userspace::model::desired::Protocol;

use crate::rows::net::Net;
use crate::rows::row::{Rows, Say};

pub(super) fn rows(rows: &mut Rows) {
    rows.all("A1 a pod's address is what the backend sees", |s| {
        s.serve(&[s.svc(&[1])]);
        let conn = s.conn(1000, 1);
        assert_eq!(conn.seen, conn.client);
        s.open(&conn);
        s.back(&conn, Say::Accept);
    });
    rows.all("A2 clients from outside are masqueraded under Cluster policy", |s| {
        s.serve(&[s.svc(&[1]).node_port(30_080)]);
        let outside = (s.net.outside(1), 1000);
        let conn = s.conn_to(outside, (s.net.node(), 30_080), 1).as_seen((s.net.node(), 61_000));
        s.open(&conn);
        s.back(&conn, Say::Accept);
        s.to(&conn, Say::Data);
        s.back(&conn, Say::Data);
    });
    rows.tcp("A2 pods that dial an external address are masqueraded under Cluster policy", |s| {
        let public = (s.net.public(1), 80);
        s.serve(&[s.svc(&[1]).external_ip(public.0)]);
        let conn = s.conn_to(s.client(1000), public, 1).as_seen((s.net.node(), 61_000));
        s.open(&conn);
        s.back(&conn, Say::Accept);
    });
    rows.all("A2 with masquerade-all everyone is masqueraded", |s| {
        s.surroundings.masquerade_all = true;
        s.serve(&[s.svc(&[1])]);
        let conn = s.conn(1000, 1).as_seen((s.net.node(), 61_000));
        s.open(&conn);
        s.back(&conn, Say::Accept);
        s.to(&conn, Say::Data);
    });
    rows.all("A2 two masqueraded clients do not share a source port", |s| {
        s.surroundings.masquerade_all = true;
        s.serve(&[s.svc(&[1])]);
        let first = s.conn(1000, 1).as_seen((s.net.node(), 61_000));
        s.open(&first);
        let second = s.conn_to((s.net.client(2), 1000), s.frontend(), 1);
        s.leave(Reason::DropNoSourcePort, &second.request(Say::Open));
        s.back(&first, Say::Accept);
    });
    rows.tcp("A2 one source port serves clients of different backends", |s| {
        s.surroundings.masquerade_all = true;
        s.serve(&[s.svc(&[1, 2])]);
        let first = s.conn(1000, 1).as_seen((s.net.node(), 61_000));
        let second = s.conn(1001, 2).as_seen((s.net.node(), 61_000));
        s.open(&first);
        s.open(&second);
        s.back(&second, Say::Accept);
        s.back(&first, Say::Accept);
    });
    rows.tcp("A2 without a node address what must be masqueraded is dropped", |s| {
        s.surroundings.masquerade_all = true;
        s.surroundings.masquerade_addresses.clear();
        s.serve(&[s.svc(&[1])]);
        s.leave(Reason::DropNoNodeAddress, &s.conn(1000, 1).request(Say::Open));
    });
    rows.tcp("A2 the source port of a masqueraded flow that closed is taken over by its own client", |s| {
        s.surroundings.masquerade_all = true;
        s.serve(&[s.svc(&[1])]);
        let conn = s.conn(1000, 1).as_seen((s.net.node(), 61_000));
        s.establish(&conn);
        s.back(&conn, Say::Reset);
        s.open(&conn);
        s.back(&conn, Say::Accept);
    });
    rows.all("A3 a backend reaches itself through its service", |s| {
        s.serve(&[s.svc(&[1])]);
        let own = (s.net.pod(1), 1000);
        let conn = s.conn_to(own, s.frontend(), 1).as_seen((s.net.node(), 61_000));
        s.open(&conn);
        s.back(&conn, Say::Accept);
        s.to(&conn, Say::Data);
        s.back(&conn, Say::Data);
    });
    rows.all("A3 a backend reaches its neighbours under its own address", |s| {
        s.serve(&[s.svc(&[1, 2])]);
        let own = s.net.pod(1);
        s.open(&s.conn_to((own, 1000), s.frontend(), 1).as_seen((s.net.node(), 61_000)));
        s.open(&s.conn_to((own, 1001), s.frontend(), 2));
    });
    rows.all("A8 TOS, DSCP and ECN are kept, TTL is left to who forwards", |s| {
        s.serve(&[s.svc(&[1])]);
        let conn = s.conn(1000, 1);
        for (i, (class, hops)) in [(0, 64), (0xb8, 255), (0x03, 1), (0xff, 128)].into_iter().enumerate() {
            let reason = if i == 0 { Reason::NewFlow } else { Reason::ToBackend };
            let request = conn.request(if i == 0 { Say::Open } else { Say::Data }).marked(class, hops);
            s.expect(reason, &request, &conn.onward(request.clone()));
            let reply = conn.reply(Say::Data).marked(class, hops);
            s.expect(Reason::FromBackend, &reply, &conn.back(reply.clone()));
        }
    });
    rows.one("A8 identification and don't-fragment are kept", Net::V4, Protocol::Tcp, |s| {
        s.serve(&[s.svc(&[1])]);
        let conn = s.conn(1000, 1);
        let mut request = conn.request(Say::Open);
        (request.id, request.dont_fragment) = (0xbeef, true);
        s.expect(Reason::NewFlow, &request, &conn.onward(request.clone()));
    });
    rows.one("A8 the flow label is kept", Net::V6, Protocol::Tcp, |s| {
        s.serve(&[s.svc(&[1])]);
        let conn = s.conn(1000, 1);
        let mut request = conn.request(Say::Open);
        request.flow_label = 0xf_fffe;
        s.expect(Reason::NewFlow, &request, &conn.onward(request.clone()));
    });
}
