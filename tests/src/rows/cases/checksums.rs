//! A7: checksums. All rows check them; these look at the corners.

use lb_common::reason::Reason;
use lb_userspace::model::desired::Protocol;

use crate::rows::Packet;
use crate::rows::packet::Checksum;
use crate::rows::row::{Rows, Say, Script};

const SUMMED: &[Protocol] = &[Protocol::Tcp, Protocol::Udp];

/// A first packet, a reply and another packet with this data.
fn with(s: &mut Script, payload: &[u8], change: impl Fn(Packet) -> Packet) {
    let conn = s.conn(1000, 1);
    let change = |packet: Packet| change(packet.payload(payload));
    let first = change(conn.request(Say::Open));
    s.expect(Reason::NewFlow, &first, &conn.onward(first.clone()));
    let reply = change(conn.reply(Say::Accept));
    s.expect(Reason::FromBackend, &reply, &conn.back(reply.clone()));
    let next = change(conn.request(Say::Data));
    s.expect(Reason::ToBackend, &next, &conn.onward(next.clone()));
}

pub(super) fn rows(rows: &mut Rows) {
    rows.all("A7 no data", |s| {
        s.serve(&[s.svc(&[1])]);
        with(s, &[], |packet| packet);
    });
    rows.all("A7 data of odd length", |s| {
        s.serve(&[s.svc(&[1])]);
        with(s, &[0xff; 1399], |packet| packet);
    });
    rows.all("A7 data of many lengths", |s| {
        s.serve(&[s.svc(&[1])]);
        let conn = s.conn(1000, 1);
        s.open(&conn);
        for len in 1..70 {
            let request = conn.request(Say::Data).payload(vec![0x5c; len]);
            s.expect(Reason::ToBackend, &request, &conn.onward(request.clone()));
        }
    });
    rows.all("A7 jumbo frames", |s| {
        s.serve(&[s.svc(&[1])]);
        let data: Vec<u8> = (0..8900u32).map(|i| (i * 7 / 8) as u8).collect();
        with(s, &data, |packet| packet);
    });
    rows.udp("A7 UDP without a checksum stays without", |s| {
        s.serve(&[s.svc(&[1])]);
        with(s, b"data", |packet| packet.checksum(Checksum::None));
    });
    rows.udp("A7 a UDP checksum that comes out as zero is sent as all ones", |s| {
        s.serve(&[s.svc(&[1])]);
        let conn = s.conn(1000, 1);
        let out = conn.forwarded(Say::Open).with_zero_sum();
        let request = conn.request(Say::Open).payload(out.payload.clone());
        s.expect(Reason::NewFlow, &request, &out);
        let out = conn.replied(Say::Data).with_zero_sum();
        let reply = conn.reply(Say::Data).payload(out.payload.clone());
        s.expect(Reason::FromBackend, &reply, &out);
    });
    rows.udp("A7 a UDP checksum of all ones is a checksum", |s| {
        s.serve(&[s.svc(&[1])]);
        let conn = s.conn(1000, 1);
        let request = conn.request(Say::Open).with_zero_sum();
        s.expect(Reason::NewFlow, &request, &conn.onward(request.clone()));
    });
    rows.tcp("A7 a TCP checksum that comes out as zero is zero", |s| {
        s.serve(&[s.svc(&[1])]);
        let conn = s.conn(1000, 1);
        let out = conn.forwarded(Say::Open).with_zero_sum();
        let request = conn.request(Say::Open).payload(out.payload.clone());
        s.expect(Reason::NewFlow, &request, &out);
        let request = conn.request(Say::Data).with_zero_sum();
        s.expect(Reason::ToBackend, &request, &conn.onward(request.clone()));
    });
    rows.each("A7 a wrong checksum stays wrong by as much", SUMMED, |s| {
        s.serve(&[s.svc(&[1])]);
        for (port, off) in [(1000, 0x0001), (1001, 0x8000), (1002, 0x7bcd)] {
            let conn = s.conn(port, 1);
            let request = conn.request(Say::Open).checksum(Checksum::Off(off));
            s.expect(Reason::NewFlow, &request, &conn.onward(request.clone()));
        }
    });
    rows.each("A7 a partial checksum stays partial", SUMMED, |s| {
        s.serve(&[s.svc(&[1])]);
        with(s, b"some data", |packet| packet.checksum(Checksum::Partial));
    });
    rows.each("A7 a partial checksum of a masqueraded flow stays partial", SUMMED, |s| {
        s.surroundings.masquerade_all = true;
        s.serve(&[s.svc(&[1])]);
        let conn = s.conn(1000, 1).as_seen((s.net.node(), 61_000));
        let request = conn.request(Say::Open).checksum(Checksum::Partial);
        s.expect(Reason::NewFlow, &request, &conn.onward(request.clone()));
        let reply = conn.reply(Say::Accept).checksum(Checksum::Partial);
        s.expect(Reason::FromBackend, &reply, &conn.back(reply.clone()));
    });
    rows.each("A7 a partial checksum with VLAN tags and a trailer stays partial", SUMMED, |s| {
        s.serve(&[s.svc(&[1])]);
        with(s, b"some data", |packet| {
            let mut packet = packet.checksum(Checksum::Partial).tag(0x8100, 9);
            packet.trailer = vec![0; 6];
            packet
        });
    });
    rows.all("A7 source, destination and both ports change at once", |s| {
        s.surroundings.masquerade_all = true;
        s.serve(&[s.svc(&[1]).target(1, 0xfffe)]);
        let conn = s.conn(1, 1).by((s.net.pod(1), 0xfffe)).as_seen((s.net.node(), 61_000));
        s.open(&conn);
        s.back(&conn, Say::Accept);
        s.to(&conn, Say::Data);
    });
    rows.each("A7 an SCTP packet without chunks", &[Protocol::Sctp], |s| {
        s.serve(&[s.svc(&[1])]);
        let conn = s.conn(1000, 1);
        let mut request = conn.request(Say::Open).payload([]);
        request.upper = crate::rows::packet::Upper::Sctp(None);
        s.expect(Reason::NewFlow, &request, &conn.onward(request.clone()));
    });
}
