//! A4: ICMP errors about flows, outer and quoted headers.

use lb_common::reason::Reason;
use lb_userspace::model::desired::Protocol;

use crate::rows::net::Net;
use crate::rows::packet::{Checksum, Upper};
use crate::rows::row::{Conn, Rows, Say, Script};

/// Errors with a code each: unreachable, too big, time exceeded, parameter problem.
fn errors(net: Net) -> &'static [(u8, u8)] {
    match net {
        Net::V4 => &[(3, 1), (3, 3), (3, 4), (11, 0), (12, 0)],
        Net::V6 => &[(1, 0), (1, 4), (2, 0), (3, 0), (4, 0)],
    }
}

/// "Fragmentation needed", "packet too big".
fn too_big(net: Net) -> (u8, u8) {
    if net == Net::V4 { (3, 4) } else { (2, 0) }
}

/// Bytes of a quoted packet that reach just `n` bytes into its transport header.
fn quote(net: Net, n: usize) -> usize {
    n + if net == Net::V4 { 20 } else { 40 }
}

/// An error from `from` about what left for the backend: the client must see it about what it had sent.
fn about_request(s: &mut Script, conn: &Conn, from: std::net::IpAddr, kind: (u8, u8), bytes: usize) {
    let error = conn.forwarded(Say::Data).error(from, kind.0, kind.1, bytes);
    let source = if from == conn.backend.0 { conn.frontend.0 } else { from };
    let seen = conn.request(Say::Data).error(source, kind.0, kind.1, bytes);
    s.expect(Reason::IcmpError, &error, &seen);
}

/// An error from `from` about what left for the client: the backend must see it about what it had sent.
fn about_reply(s: &mut Script, conn: &Conn, from: std::net::IpAddr, kind: (u8, u8), bytes: usize) {
    let error = conn.replied(Say::Data).error(from, kind.0, kind.1, bytes);
    let source = if from == conn.client.0 { conn.seen.0 } else { from };
    let seen = conn.reply(Say::Data).error(source, kind.0, kind.1, bytes);
    s.expect(Reason::IcmpError, &error, &seen);
}

fn started(s: &mut Script, conn: &Conn) {
    s.open(conn);
    s.back(conn, Say::Accept);
}

pub(super) fn rows(rows: &mut Rows) {
    rows.all("A4 an error from a router reaches the client in its own terms", |s| {
        s.serve(&[s.svc(&[1])]);
        let (conn, router) = (s.conn(1000, 1), s.net.outside(200));
        started(s, &conn);
        for kind in errors(s.net) {
            about_request(s, &conn, router, *kind, quote(s.net, 8));
        }
    });
    rows.all("A4 an error from a router reaches the backend in its own terms", |s| {
        s.serve(&[s.svc(&[1])]);
        let (conn, router) = (s.conn(1000, 1), s.net.outside(200));
        started(s, &conn);
        for kind in errors(s.net) {
            about_reply(s, &conn, router, *kind, quote(s.net, 8));
        }
    });
    rows.all("A4 an error from the backend itself seems to come from the frontend", |s| {
        s.serve(&[s.svc(&[1])]);
        let conn = s.conn(1000, 1);
        started(s, &conn);
        about_request(s, &conn, conn.backend.0, errors(s.net)[1], quote(s.net, 8));
    });
    rows.each("A4 a quoted checksum is translated", &[Protocol::Tcp, Protocol::Udp], |s| {
        s.serve(&[s.svc(&[1])]);
        let (conn, router) = (s.conn(1000, 1), s.net.outside(200));
        started(s, &conn);
        for bytes in [quote(s.net, 16), quote(s.net, 18), quote(s.net, 19), 1000] {
            about_request(s, &conn, router, too_big(s.net), bytes);
            about_reply(s, &conn, router, too_big(s.net), bytes);
        }
    });
    rows.udp("A4 a quoted packet without a checksum keeps having none", |s| {
        s.serve(&[s.svc(&[1])]);
        let (conn, router) = (s.conn(1000, 1), s.net.outside(200));
        started(s, &conn);
        let (kind, code) = too_big(s.net);
        let none =
            |packet: crate::rows::Packet| packet.checksum(Checksum::None).error(router, kind, code, 64);
        s.expect(Reason::IcmpError, &none(conn.forwarded(Say::Data)), &none(conn.request(Say::Data)));
    });
    rows.udp("A4 a quoted checksum that comes out as zero is all ones", |s| {
        s.serve(&[s.svc(&[1])]);
        let (conn, router) = (s.conn(1000, 1), s.net.outside(200));
        started(s, &conn);
        let (kind, code) = too_big(s.net);
        let sent = conn.request(Say::Data).with_zero_sum();
        let error = conn.onward(sent.clone()).error(router, kind, code, 100);
        s.expect(Reason::IcmpError, &error, &sent.error(router, kind, code, 100));
    });
    rows.all("A4 errors about a masqueraded flow", |s| {
        s.surroundings.masquerade_all = true;
        s.serve(&[s.svc(&[1])]);
        let (conn, router) = (s.conn(1000, 1).as_seen((s.net.node(), 61_000)), s.net.outside(200));
        started(s, &conn);
        about_request(s, &conn, router, too_big(s.net), quote(s.net, 8));
        about_reply(s, &conn, router, too_big(s.net), quote(s.net, 8));
    });
    rows.tcp("A4 an error about a packet with a VLAN tag", |s| {
        s.serve(&[s.svc(&[1])]);
        let (conn, router) = (s.conn(1000, 1), s.net.outside(200));
        started(s, &conn);
        let (kind, code) = too_big(s.net);
        let error = |packet: crate::rows::Packet| packet.error(router, kind, code, 60).tag(0x8100, 3);
        s.expect(Reason::IcmpError, &error(conn.forwarded(Say::Data)), &error(conn.request(Say::Data)));
    });
    rows.one("A4 an error that quotes a packet with IPv4 options", Net::V4, Protocol::Tcp, |s| {
        s.serve(&[s.svc(&[1])]);
        let (conn, router) = (s.conn(1000, 1), s.net.outside(200));
        started(s, &conn);
        let error = |packet: crate::rows::Packet| packet.options(&[1; 12]).error(router, 3, 4, 40);
        s.expect(Reason::IcmpError, &error(conn.forwarded(Say::Data)), &error(conn.request(Say::Data)));
    });
    rows.one("A4 an error that quotes a packet with extension headers", Net::V6, Protocol::Tcp, |s| {
        s.serve(&[s.svc(&[1])]);
        let (conn, router) = (s.conn(1000, 1), s.net.outside(200));
        started(s, &conn);
        let padding = [0, 0, 1, 4, 0, 0, 0, 0];
        let error = |packet: crate::rows::Packet| packet.extension(60, &padding).error(router, 2, 0, 56);
        s.expect(Reason::IcmpError, &error(conn.forwarded(Say::Data)), &error(conn.request(Say::Data)));
    });
    rows.all("A4 an error about no flow of ours is passed", |s| {
        s.serve(&[s.svc(&[1])]);
        let other = s.conn_to(s.client(1000), (s.net.client(2), 5000), 1);
        let (kind, code) = too_big(s.net);
        let error = other.request(Say::Data).error(s.net.outside(200), kind, code, 60);
        s.leave(Reason::OtherProtocol, &error);
    });
    rows.tcp("A4 an error that quotes less than the ports is passed", |s| {
        s.serve(&[s.svc(&[1])]);
        let conn = s.conn(1000, 1);
        started(s, &conn);
        let (kind, code) = too_big(s.net);
        for bytes in [0, 1, 19, quote(s.net, 0), quote(s.net, 7)] {
            let error = conn.forwarded(Say::Data).error(s.net.outside(200), kind, code, bytes);
            s.leave(Reason::OtherProtocol, &error);
        }
    });
    rows.tcp("A4 an error that quotes something else is passed", |s| {
        s.serve(&[s.svc(&[1])]);
        let conn = s.conn(1000, 1);
        started(s, &conn);
        let (kind, code) = too_big(s.net);
        let mut quoted = conn.forwarded(Say::Data);
        quoted.upper = Upper::Raw(47);
        quoted.payload = vec![0; 40];
        s.leave(Reason::OtherProtocol, &quoted.error(s.net.outside(200), kind, code, 80));
    });
    rows.tcp("A4 an error does not keep a flow alive", |s| {
        s.serve(&[s.svc(&[1, 2])]);
        let (conn, router) = (s.conn(1000, 1), s.net.outside(200));
        s.open(&conn);
        s.advance(40);
        about_request(s, &conn, router, too_big(s.net), quote(s.net, 8));
        s.advance(40);
        s.open(&conn.by(s.pod(2)));
    });
    rows.tcp("A4 a redirect is no error that is translated", |s| {
        s.serve(&[s.svc(&[1])]);
        let conn = s.conn(1000, 1);
        started(s, &conn);
        let kind = if s.net == Net::V4 { 5 } else { 137 };
        s.leave(Reason::OtherProtocol, &conn.forwarded(Say::Data).error(s.net.outside(200), kind, 0, 60));
    });
}
