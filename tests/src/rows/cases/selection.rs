//! S: who gets a new flow.

use lb_common::reason::Reason;
use lb_userspace::model::desired::{Algorithm, Protocol};

use crate::rows::row::{Rows, Say};

pub(super) fn rows(rows: &mut Rows) {
    turns(rows);
    algorithms(rows);
    affinity(rows);
    rows.all("S5 later packets go where the first went", |s| {
        s.serve(&[s.svc(&[1, 2, 3])]);
        let conn = s.conn(1000, 1);
        s.open(&conn);
        s.open(&s.conn(1001, 2));
        for _ in 0..4 {
            s.to(&conn, Say::Data);
        }
    });
    rows.tcp("S5 a repeated SYN goes where the first went", |s| {
        s.serve(&[s.svc(&[1, 2])]);
        let conn = s.conn(1000, 1);
        s.open(&conn);
        s.to(&conn, Say::Open);
        s.to(&conn, Say::Open);
        s.open(&s.conn(1001, 2));
    });
    rows.all("S5 a flow stays when backends come", |s| {
        s.serve(&[s.svc(&[2])]);
        let conn = s.conn(1000, 2);
        s.establish(&conn);
        s.serve(&[s.svc(&[1, 2, 3])]);
        s.to(&conn, Say::Data);
        s.back(&conn, Say::Data);
    });
}

fn turns(rows: &mut Rows) {
    rows.all("S1 backends take turns", |s| {
        s.serve(&[s.svc(&[1, 2, 3])]);
        for (port, pod) in [(1000, 1), (1001, 2), (1002, 3), (1003, 1), (1004, 2)] {
            s.open(&s.conn(port, pod));
        }
    });
    rows.tcp("S1 after many flows each backend has its share", |s| {
        s.serve(&[s.svc(&[1, 2, 3, 4, 5])]);
        s.spread(100, &[1, 2, 3, 4, 5], &[(20, 20); 5]);
    });
    rows.tcp("S1 each frontend has turns of its own", |s| {
        let other = (s.net.vip(2), 80);
        s.serve(&[s.svc(&[1, 2]), s.svc_at(other, &[1, 2])]);
        s.open(&s.conn(1000, 1));
        s.open(&s.conn_to(s.client(1001), other, 1));
        s.open(&s.conn(1002, 2));
        s.open(&s.conn_to(s.client(1003), other, 2));
    });
    rows.tcp("S1 clients share the turns of a frontend", |s| {
        s.serve(&[s.svc(&[1, 2])]);
        s.open(&s.conn_to((s.net.client(1), 1000), s.frontend(), 1));
        s.open(&s.conn_to((s.net.client(2), 1000), s.frontend(), 2));
        s.open(&s.conn_to((s.net.client(3), 1000), s.frontend(), 1));
    });
    rows.tcp("S1 known flows take no turn", |s| {
        s.serve(&[s.svc(&[1, 2])]);
        s.establish(&s.conn(1000, 1));
        s.back(&s.conn(1000, 1), Say::Data);
        s.open(&s.conn(1001, 2));
    });
    rows.tcp("S1 one backend gets everything", |s| {
        s.serve(&[s.svc(&[7])]);
        s.spread(10, &[7], &[(10, 10)]);
    });
}

fn algorithms(rows: &mut Rows) {
    rows.tcp("S2 random uses every backend", |s| {
        s.serve(&[s.svc(&[1, 2, 3]).algorithm(Algorithm::Random)]);
        // 300 draws of a third: 100 ± 8.2; six times that.
        s.spread(300, &[1, 2, 3], &[(50, 150); 3]);
    });
    rows.tcp("S2 least connections is nearly even", |s| {
        s.serve(&[s.svc(&[1, 2, 3]).algorithm(Algorithm::LeastConnections)]);
        s.spread(300, &[1, 2, 3], &[(90, 110); 3]);
    });
    rows.tcp("S2 least connections prefers who has fewer", |s| {
        s.serve(&[s.svc(&[1]).algorithm(Algorithm::LeastConnections)]);
        s.spread(200, &[1], &[(200, 200)]);
        s.serve(&[s.svc(&[1, 2]).algorithm(Algorithm::LeastConnections)]);
        let conns: Vec<u16> = (2000..2016).collect();
        // Only when both draws hit the busy one does it get another flow: one in four.
        for port in conns {
            s.any(Reason::NewFlow, &s.conn(port, 1), Say::Open, &[1, 2]);
        }
    });
    rows.tcp("S2 weighted turns follow the weights", |s| {
        s.serve(&[s.svc(&[1, 2]).weight(1, 3).algorithm(Algorithm::Weighted)]);
        s.spread(40, &[1, 2], &[(30, 30), (10, 10)]);
    });
    rows.tcp("S2 weight 0 gets nothing", |s| {
        s.serve(&[s.svc(&[1, 2]).weight(1, 0).algorithm(Algorithm::Weighted)]);
        s.spread(20, &[1, 2], &[(0, 0), (20, 20)]);
    });
    rows.each("S3 Maglev spreads over all backends", &[Protocol::Tcp, Protocol::Udp], |s| {
        s.serve(&[s.svc(&[1, 2, 3]).algorithm(Algorithm::Maglev)]);
        s.spread(300, &[1, 2, 3], &[(60, 140); 3]);
    });
    rows.all("S3 Maglev gives a 5-tuple the same backend each time", |s| {
        s.serve(&[s.svc(&[1, 2, 3]).algorithm(Algorithm::Maglev)]);
        for port in 1000..1008 {
            let conn = s.conn(port, 1);
            let first = s.any(Reason::NewFlow, &conn, Say::Open, &[1, 2, 3]);
            s.lose_flows();
            s.same(Reason::NewFlow, &conn, Say::Open, &[1, 2, 3], first);
        }
    });
    rows.tcp("S3 Maglev does not care in which order services came", |s| {
        let svc = s.svc(&[1, 2, 3]).algorithm(Algorithm::Maglev);
        s.serve(std::slice::from_ref(&svc));
        let conn = s.conn(1000, 1);
        let first = s.any(Reason::NewFlow, &conn, Say::Open, &[1, 2, 3]);
        s.lose_flows();
        s.serve(&[]);
        s.serve(&[s.svc_at((s.net.vip(7), 80), &[3, 2]), s.svc_at((s.net.vip(8), 80), &[1])]);
        s.serve(&[svc]);
        s.same(Reason::NewFlow, &conn, Say::Open, &[1, 2, 3], first);
    });
}

fn affinity(rows: &mut Rows) {
    rows.all("S4 a client keeps its backend", |s| {
        s.serve(&[s.svc(&[1, 2, 3]).affinity(60)]);
        for port in 1000..1004 {
            s.open(&s.conn(port, 1));
        }
        s.open(&s.conn_to((s.net.client(2), 1000), s.frontend(), 2));
    });
    rows.all("S4 a client keeps its backend over all frontends of the service port", |s| {
        let public = (s.net.public(1), 80);
        let svc = s.svc(&[1, 2, 3]).local(&[1, 2, 3]).affinity(60).external_ip(public.0).external_local();
        s.serve(&[svc]);
        s.open(&s.conn(1000, 1));
        s.open(&s.conn_to(s.client(1001), public, 1));
    });
    rows.tcp("S4 another service port is another choice", |s| {
        let other = (s.net.vip(1), 81);
        s.serve(&[s.svc(&[1]).affinity(60), s.svc_at(other, &[2, 3]).affinity(60)]);
        s.open(&s.conn(1000, 1));
        s.open(&s.conn_to(s.client(1001), other, 2));
        s.open(&s.conn_to(s.client(1002), other, 2));
    });
    rows.all("S4 affinity ends with its timeout", |s| {
        s.serve(&[s.svc(&[1, 2]).affinity(60)]);
        s.open(&s.conn(1000, 1));
        s.advance(62);
        s.open(&s.conn(1001, 2));
        s.open(&s.conn(1002, 2));
    });
    rows.tcp("S4 every new connection renews affinity", |s| {
        s.serve(&[s.svc(&[1, 2]).affinity(60)]);
        s.open(&s.conn(1000, 1));
        s.advance(40);
        s.open(&s.conn(1001, 1));
        s.advance(40);
        s.open(&s.conn(1002, 1));
    });
    rows.tcp("S4 packets of a known flow do not renew affinity", |s| {
        s.serve(&[s.svc(&[1, 2]).affinity(60)]);
        s.establish(&s.conn(1000, 1));
        s.advance(40);
        s.to(&s.conn(1000, 1), Say::Data);
        s.advance(40);
        s.to(&s.conn(1000, 1), Say::Data);
        s.open(&s.conn(1001, 2));
    });
    rows.all("S4 a remembered backend that is gone is a miss", |s| {
        s.serve(&[s.svc(&[1, 2, 3]).affinity(60)]);
        s.open(&s.conn(1000, 1));
        s.serve(&[s.svc(&[2, 3]).affinity(60)]);
        // The second turn of two backends.
        s.open(&s.conn(1001, 3));
        s.open(&s.conn(1002, 3));
    });
    rows.tcp("S4 a remembered backend whose number another has now is a miss", |s| {
        s.serve(&[s.svc(&[1, 2]).affinity(60)]);
        s.open(&s.conn(1000, 1));
        s.serve(&[s.svc(&[2]).affinity(60)]);
        s.let_numbers_rest();
        s.serve(&[s.svc(&[2, 3]).affinity(60)]);
        s.open(&s.conn_to((s.net.client(2), 1000), s.frontend(), 3));
        s.open(&s.conn(1001, 2));
    });
    rows.tcp("S4 a remembered backend that terminates is a miss", |s| {
        s.serve(&[s.svc(&[1, 2]).affinity(60)]);
        s.open(&s.conn(1000, 1));
        s.serve(&[s.svc(&[1, 2]).affinity(60).terminating(&[1])]);
        s.open(&s.conn(1001, 2));
    });
    rows.tcp("S4 a remembered backend elsewhere is a miss under Local policy", |s| {
        s.serve(&[s.svc(&[1, 2]).affinity(60)]);
        s.open(&s.conn(1000, 1));
        s.serve(&[s.svc(&[1, 2]).affinity(60).local(&[2]).internal_local()]);
        s.open(&s.conn(1001, 2));
    });
    rows.tcp("S4 a remembered last resort of Local policy is a miss under Cluster policy", |s| {
        let public = (s.net.public(1), 80);
        let svc = s.svc(&[1, 2]).affinity(60).local(&[1]).terminating(&[1]).internal_local();
        s.serve(&[svc.external_ip(public.0)]);
        s.open(&s.conn(1000, 1));
        s.open(&s.conn_to(s.client(1001), public, 2).as_seen((s.net.node(), 61_000)));
    });
}
