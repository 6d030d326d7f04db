//! B: who answers.

use lb_common::reason::Reason;

use crate::rows::row::{Rows, Say};

pub(super) fn rows(rows: &mut Rows) {
    rows.all("B3 backends may differ in their ports", |s| {
        s.serve(&[s.svc(&[1, 2]).target(2, 9090)]);
        s.open(&s.conn(1000, 1));
        s.open(&s.conn(1001, 2).by((s.net.pod(2), 9090)));
    });
    rows.all("B3 two ports of one pod are two backends", |s| {
        s.serve(&[s.svc(&[1]).also(1, 9090)]);
        s.open(&s.conn(1000, 1));
        s.open(&s.conn(1001, 1).by((s.net.pod(1), 9090)));
        s.open(&s.conn(1002, 1));
    });
    rows.tcp("B3 a backend on the service's own port", |s| {
        s.serve(&[s.svc(&[1]).target(1, 80)]);
        let conn = s.conn(1000, 1).by((s.net.pod(1), 80));
        s.establish(&conn);
        s.back(&conn, Say::Data);
    });
    rows.all("B5 a backend that is not ready gets no new flow", |s| {
        s.serve(&[s.svc(&[1, 2]).not_ready(&[1])]);
        s.open(&s.conn(1000, 2));
        s.open(&s.conn(1001, 2));
    });
    rows.all("B5 terminating backends answer when no other is there", |s| {
        s.serve(&[s.svc(&[1, 2]).terminating(&[1]).not_ready(&[2])]);
        s.open(&s.conn(1000, 1));
        s.open(&s.conn(1001, 1));
    });
    rows.all("B5 no backend is ready or serving: rejected", |s| {
        s.serve(&[s.svc(&[1, 2]).not_ready(&[1, 2])]);
        s.answer(Reason::RejectedNoBackend, &s.conn(1000, 1).request(Say::Open));
    });
    rows.all("B8 a terminating backend gets no new flow", |s| {
        s.serve(&[s.svc(&[1, 2])]);
        s.open(&s.conn(1000, 1));
        s.serve(&[s.svc(&[1, 2]).terminating(&[1])]);
        for port in 1001..1004 {
            s.open(&s.conn(port, 2));
        }
    });
    rows.all("B8 a terminating backend keeps its flows", |s| {
        s.serve(&[s.svc(&[1, 2])]);
        let conn = s.conn(1000, 1);
        s.establish(&conn);
        s.serve(&[s.svc(&[1, 2]).terminating(&[1])]);
        s.to(&conn, Say::Data);
        s.back(&conn, Say::Data);
        s.to(&conn, Say::Data);
        s.still_open(s.pod(1), 1);
    });
    rows.tcp("B8 the last backend, terminating, keeps serving new flows too", |s| {
        s.serve(&[s.svc(&[1])]);
        s.establish(&s.conn(1000, 1));
        s.serve(&[s.svc(&[1]).terminating(&[1])]);
        s.to(&s.conn(1000, 1), Say::Data);
        s.open(&s.conn(1001, 1));
    });
    rows.all("B8 a backend that came late takes its turn", |s| {
        s.serve(&[s.svc(&[1])]);
        s.open(&s.conn(1000, 1));
        s.serve(&[s.svc(&[1, 2])]);
        s.open(&s.conn(1001, 2));
        s.open(&s.conn(1002, 1));
    });
}
