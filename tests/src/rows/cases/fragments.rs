//! A5: fragments follow their first.

use lb_common::reason::Reason;
use lb_userspace::model::desired::Protocol;

use crate::rows::row::{Rows, Say};

const DATA: usize = 3000;

fn data() -> Vec<u8> {
    (0..DATA).map(|i| (i * 31) as u8).collect()
}

pub(super) fn rows(rows: &mut Rows) {
    rows.udp("A5 all fragments of a datagram go where the first goes", |s| {
        s.serve(&[s.svc(&[1, 2])]);
        let conn = s.conn(1000, 1);
        let whole = conn.request(Say::Open).payload(data());
        let slices = [(0, 1448), (1448, 1448), (2896, 1448)];
        for (i, (from, len)) in slices.into_iter().enumerate() {
            let part = whole.clone().slice(77, from, len);
            let reason = if i == 0 { Reason::NewFlow } else { Reason::ToBackend };
            s.expect(reason, &part, &conn.onward(part.clone()));
        }
    });
    rows.udp("A5 fragments of a reply are translated back", |s| {
        s.serve(&[s.svc(&[1])]);
        let conn = s.conn(1000, 1);
        s.open(&conn);
        let whole = conn.reply(Say::Data).payload(data());
        for from in [0, 1480] {
            let part = whole.clone().slice(0x1234, from, 1480);
            s.expect(Reason::FromBackend, &part, &conn.back(part.clone()));
        }
    });
    rows.udp("A5 fragments behind the first in any order", |s| {
        s.serve(&[s.svc(&[1])]);
        let conn = s.conn(1000, 1);
        let whole = conn.request(Say::Open).payload(data());
        for (reason, from) in [(Reason::NewFlow, 0), (Reason::ToBackend, 2000), (Reason::ToBackend, 1000)] {
            let part = whole.clone().slice(5, from, 1000);
            s.expect(reason, &part, &conn.onward(part.clone()));
        }
    });
    rows.udp("A5 a fragment whose first is not known is passed", |s| {
        s.serve(&[s.svc(&[1])]);
        let conn = s.conn(1000, 1);
        s.open(&conn);
        s.leave(Reason::LateFragment, &conn.request(Say::Data).payload(data()).slice(5, 1480, 1480));
    });
    rows.udp("A5 datagrams differ by their identification", |s| {
        s.serve(&[s.svc(&[1, 2])]);
        let (a, b) = (s.conn(1000, 1), s.conn(1001, 2));
        let parts = [(&a, 1, 0, Reason::NewFlow), (&b, 2, 0, Reason::NewFlow)];
        let later = [(&b, 2, 1600, Reason::ToBackend), (&a, 1, 1600, Reason::ToBackend)];
        for (conn, id, from, reason) in parts.into_iter().chain(later) {
            let part = conn.request(Say::Open).payload(data()).slice(id, from, 1600);
            s.expect(reason, &part, &conn.onward(part.clone()));
        }
    });
    rows.udp("A5 what is known of a datagram is forgotten after 30 s", |s| {
        s.serve(&[s.svc(&[1])]);
        let conn = s.conn(1000, 1);
        let part = |from| conn.request(Say::Open).payload(data()).slice(9, from, 1504);
        s.expect(Reason::NewFlow, &part(0), &conn.onward(part(0)));
        // The flow itself lives on.
        s.back(&conn, Say::Data);
        s.advance(32);
        s.leave(Reason::LateFragment, &part(1504));
    });
    rows.udp("A5 a datagram that is not ours leaves no trace", |s| {
        s.serve(&[s.svc(&[1])]);
        let other = s.conn_to(s.client(1000), (s.net.client(2), 5000), 1);
        let part = |from| other.request(Say::Open).payload(data()).slice(9, from, 1504);
        s.leave(Reason::NotOurs, &part(0));
        s.leave(Reason::NotOurs, &part(1504));
    });
    rows.udp("A5 the last byte alone is a fragment", |s| {
        s.serve(&[s.svc(&[1])]);
        let conn = s.conn(1000, 1);
        let part = |from, len| conn.request(Say::Open).payload(vec![7; 2041]).slice(3, from, len);
        s.expect(Reason::NewFlow, &part(0, 2048), &conn.onward(part(0, 2048)));
        s.expect(Reason::ToBackend, &part(2048, 1), &conn.onward(part(2048, 1)));
    });
    rows.each("A5 TCP segments may be fragmented as well", &[Protocol::Tcp], |s| {
        s.serve(&[s.svc(&[1])]);
        let conn = s.conn(1000, 1);
        s.establish(&conn);
        for from in [0, 1200, 2400] {
            let part = conn.request(Say::Data).payload(data()).slice(0xffff, from, 1200);
            s.expect(Reason::ToBackend, &part, &conn.onward(part.clone()));
        }
    });
    rows.udp("A5 a fragmented datagram to no service is rejected by its first fragment", |s| {
        s.serve(&[s.svc(&[])]);
        let part = s.conn(1000, 1).request(Say::Open).payload(data()).slice(9, 0, 1504);
        s.answer(Reason::RejectedNoBackend, &part);
        let later = s.conn(1000, 1).request(Say::Open).payload(data()).slice(9, 1504, 2000);
        s.leave(Reason::LateFragment, &later);
    });
}
