//! A6: IPv4 options, IPv6 extension headers, VLAN tags.

use lb_common::reason::Reason;
use lb_userspace::model::desired::Protocol;

use crate::rows::Packet;
use crate::rows::net::Net;
use crate::rows::row::{Rows, Say, Script};

/// The first packet and another one of a connection, and a reply, each changed by `change`.
fn with(s: &mut Script, change: impl Fn(Packet) -> Packet) {
    let conn = s.conn(1000, 1);
    let first = change(conn.request(Say::Open));
    s.expect(Reason::NewFlow, &first, &conn.onward(first.clone()));
    let reply = change(conn.reply(Say::Accept));
    s.expect(Reason::FromBackend, &reply, &conn.back(reply.clone()));
    let next = change(conn.request(Say::Data));
    s.expect(Reason::ToBackend, &next, &conn.onward(next.clone()));
}

const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

/// A header of eight bytes: one option that is padding.
const PADDING: [u8; 8] = [0, 0, 1, 4, 0, 0, 0, 0];

pub(super) fn rows(rows: &mut Rows) {
    rows.all("A6 a VLAN tag is walked and kept", |s| {
        s.serve(&[s.svc(&[1])]);
        with(s, |packet| packet.tag(0x8100, 0x6064));
    });
    rows.all("A6 two VLAN tags are walked and kept", |s| {
        s.serve(&[s.svc(&[1])]);
        with(s, |packet| packet.tag(0x88a8, 100).tag(0x8100, 200));
    });
    rows.tcp("A6 tags of the same EtherType may be nested", |s| {
        s.serve(&[s.svc(&[1])]);
        with(s, |packet| packet.tag(0x8100, 1).tag(0x8100, 2));
    });
    rows.tcp("A6 three VLAN tags are not ours", |s| {
        s.serve(&[s.svc(&[1])]);
        let packet = s.conn(1000, 1).request(Say::Open);
        s.leave(Reason::NotIp, &packet.tag(0x88a8, 1).tag(0x8100, 2).tag(0x8100, 3));
    });
    for protocol in PROTOCOLS {
        rows.one("A6 IPv4 options are walked and kept", Net::V4, protocol, |s| {
            s.serve(&[s.svc(&[1])]);
            with(s, |packet| packet.options(&[1, 1, 1, 0]));
        });
        rows.one("A6 the longest IPv4 header is walked", Net::V4, protocol, |s| {
            s.serve(&[s.svc(&[1])]);
            let route: Vec<u8> = [7, 39, 4].into_iter().chain([0; 37]).collect();
            with(s, |packet| packet.options(&route));
        });
        for (name, number) in [
            ("A6 a hop-by-hop header is walked", 0),
            ("A6 a routing header is walked", 43),
            ("A6 a destination options header is walked", 60),
        ] {
            rows.one(name, Net::V6, protocol, |s| {
                s.serve(&[s.svc(&[1])]);
                with(s, |packet| packet.extension(number, &PADDING));
            });
        }
        rows.one("A6 an authentication header is walked", Net::V6, protocol, |s| {
            s.serve(&[s.svc(&[1])]);
            // Its length counts words of four bytes, less two (RFC 4302 section 2.2).
            let header: Vec<u8> = [0, 4].into_iter().chain([0x5a; 22]).collect();
            with(s, |packet| packet.extension(51, &header));
        });
        rows.one("A6 extension headers in a row are walked", Net::V6, protocol, |s| {
            s.serve(&[s.svc(&[1])]);
            let long: Vec<u8> = [0, 2, 1, 20].into_iter().chain([0; 20]).collect();
            with(s, |packet| {
                packet
                    .extension(0, &PADDING)
                    .extension(60, &long)
                    .extension(43, &PADDING)
                    .extension(60, &long)
            });
        });
    }
    rows.one("A6 a fragment header of a whole packet is walked", Net::V6, Protocol::Udp, |s| {
        // An "atomic fragment" (RFC 6946).
        s.serve(&[s.svc(&[1])]);
        with(s, |packet| packet.slice(7, 0, 1000));
    });
    rows.one("A6 a packet that says 'no next header' is passed", Net::V6, Protocol::Tcp, |s| {
        use crate::rows::packet::Upper;
        s.serve(&[s.svc(&[1])]);
        let nothing = Packet::new(s.client(0), (s.net.client(2), 0), Upper::Raw(59));
        s.leave(Reason::OtherProtocol, &nothing.extension(60, &PADDING));
    });
    rows.tcp("A6 TCP options are kept", |s| {
        use crate::rows::packet::Upper;
        s.serve(&[s.svc(&[1])]);
        let options = vec![2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 1, 2, 3, 0, 0, 0, 0, 1, 3, 3, 7];
        let upper = Upper::Tcp { flags: 0x02, numbers: [1, 0], window: 64, options };
        let conn = s.conn(1000, 1);
        let request = Packet::new(conn.client, conn.frontend, upper);
        s.expect(Reason::NewFlow, &request, &conn.onward(request.clone()));
    });
    rows.tcp("A6 everything at once", |s| {
        s.serve(&[s.svc(&[1])]);
        let net = s.net;
        with(s, |packet| {
            let packet = packet.tag(0x88a8, 5).tag(0x8100, 6).marked(0x2e, 3).payload(vec![0x42; 999]);
            match net {
                Net::V4 => packet.options(&[1; 16]),
                Net::V6 => packet.extension(0, &PADDING).extension(60, &PADDING),
            }
        });
    });
}
