//! V9: packets that are not what they say they are.

use lb_common::reason::Reason;
use lb_userspace::model::desired::Protocol;

use crate::rows::net::Net;
use crate::rows::packet::{ETHERNET_LEN, Packet, Upper};
use crate::rows::row::{Rows, Say};

/// An extension header of eight bytes without meaning.
const PADDING: &[u8] = &[0, 0, 1, 4, 0, 0, 0, 0];

pub(super) fn rows(rows: &mut Rows) {
    lengths(rows);
    v4(rows);
    v6(rows);
    transport(rows);
}

fn lengths(rows: &mut Rows) {
    rows.tcp("V9 a frame shorter than its link header", |s| {
        s.serve(&[s.svc(&[1])]);
        for len in [0, 1, 6, 12, 13] {
            s.leave(Reason::Malformed, &s.conn(1000, 1).request(Say::Open).cut(len));
        }
    });
    rows.tcp("V9 a frame that ends with its link header", |s| {
        s.serve(&[s.svc(&[1])]);
        s.leave(Reason::Malformed, &s.conn(1000, 1).request(Say::Open).cut(14));
    });
    rows.tcp("V9 a frame that ends within a VLAN tag", |s| {
        s.serve(&[s.svc(&[1])]);
        let tagged = s.conn(1000, 1).request(Say::Open).tag(0x88a8, 1).tag(0x8100, 2);
        for len in 14..22 {
            s.leave(Reason::Malformed, &tagged.clone().cut(len));
        }
    });
    // The network header says how long the packet is, so a frame cut anywhere behind it is malformed.
    rows.all("V9 a packet cut at any length", |s| {
        s.serve(&[s.svc(&[1])]);
        let request = s.conn(1000, 1).request(Say::Open);
        for len in ETHERNET_LEN..request.frame().len() {
            s.leave(Reason::Malformed, &request.clone().cut(len));
        }
        s.open(&s.conn(1000, 1));
    });
    rows.tcp("V9 a packet of a known flow cut short", |s| {
        s.serve(&[s.svc(&[1])]);
        let conn = s.conn(1000, 1);
        s.establish(&conn);
        let request = conn.request(Say::Data);
        let len = request.frame().len();
        s.leave(Reason::Malformed, &request.cut(len - 1));
        let reply = conn.reply(Say::Data);
        s.leave(Reason::Malformed, &reply.cut(len - 5));
    });
}

fn v4(rows: &mut Rows) {
    let one = |rows: &mut Rows, name: &str, at: usize, edits: &'static [&'static [u8]]| {
        rows.one(name, Net::V4, Protocol::Tcp, |s| {
            s.serve(&[s.svc(&[1])]);
            for edit in edits {
                s.leave(Reason::Malformed, &s.conn(1000, 1).request(Say::Open).edit(at, edit));
            }
        });
    };
    one(rows, "V9 IPv4 of another version", 0, &[&[0x05], &[0x65], &[0x55], &[0xf5]]);
    one(rows, "V9 IPv4 header length below 20", 0, &[&[0x40], &[0x41], &[0x44]]);
    one(rows, "V9 IPv4 header longer than the packet", 0, &[&[0x4f], &[0x4e]]);
    one(rows, "V9 IPv4 total length below its header", 2, &[&[0, 0], &[0, 1], &[0, 19]]);
    one(rows, "V9 IPv4 total length without room for TCP", 2, &[&[0, 20], &[0, 39]]);
    one(rows, "V9 IPv4 total length beyond the frame", 2, &[&[0, 45], &[0x05, 0xdc], &[0xff, 0xff]]);
    rows.one("V9 IPv4 under the EtherType of IPv6", Net::V4, Protocol::Tcp, |s| {
        s.serve(&[s.svc(&[1])]);
        let mut packet = s.conn(1000, 1).request(Say::Open);
        packet.ethertype = Some(0x86dd);
        s.leave(Reason::Malformed, &packet);
    });
    rows.one("V9 IPv4 options that leave no room for TCP", Net::V4, Protocol::Tcp, |s| {
        s.serve(&[s.svc(&[1])]);
        let packet = s.conn(1000, 1).request(Say::Open).options(&[1; 40]);
        // Total length as if there were no options.
        s.leave(Reason::Malformed, &packet.edit(2, &[0, 44]));
    });
}

fn v6(rows: &mut Rows) {
    let six = |rows: &mut Rows, name: &str, write: &dyn Fn(&mut crate::rows::Script)| {
        rows.one(name, Net::V6, Protocol::Tcp, write);
    };
    six(rows, "V9 IPv6 of another version", &|s| {
        s.serve(&[s.svc(&[1])]);
        for version in [0x00, 0x40, 0x50, 0x70, 0xf0] {
            s.leave(Reason::Malformed, &s.conn(1000, 1).request(Say::Open).edit(0, &[version]));
        }
    });
    six(rows, "V9 IPv6 payload length beyond the frame", &|s| {
        s.serve(&[s.svc(&[1])]);
        for length in [[0, 25], [0x05, 0xdc], [0xff, 0xff]] {
            s.leave(Reason::Malformed, &s.conn(1000, 1).request(Say::Open).edit(4, &length));
        }
    });
    six(rows, "V9 IPv6 payload length without room for TCP", &|s| {
        s.serve(&[s.svc(&[1])]);
        for length in [[0, 0], [0, 1], [0, 19]] {
            s.leave(Reason::Malformed, &s.conn(1000, 1).request(Say::Open).edit(4, &length));
        }
    });
    six(rows, "V9 IPv6 under the EtherType of IPv4", &|s| {
        s.serve(&[s.svc(&[1])]);
        let mut packet = s.conn(1000, 1).request(Say::Open);
        packet.ethertype = Some(0x0800);
        s.leave(Reason::Malformed, &packet);
    });
    six(rows, "V9 an IPv6 extension header longer than the packet", &|s| {
        s.serve(&[s.svc(&[1])]);
        for number in [0, 43, 60] {
            let packet = s.conn(1000, 1).request(Say::Open).extension(number, PADDING);
            s.leave(Reason::Malformed, &packet.edit(41, &[20]));
        }
    });
    six(rows, "V9 an IPv6 packet that ends within an extension header", &|s| {
        s.serve(&[s.svc(&[1])]);
        let packet = s.conn(1000, 1).request(Say::Open).extension(60, PADDING);
        s.leave(Reason::Malformed, &packet.clone().edit(4, &[0, 7]));
        s.leave(Reason::Malformed, &packet.edit(4, &[0, 8]));
    });
    six(rows, "V9 more IPv6 extension headers than are walked", &|s| {
        s.serve(&[s.svc(&[1])]);
        let mut packet = s.conn(1000, 1).request(Say::Open);
        for _ in 0..8 {
            packet = packet.extension(60, PADDING);
        }
        s.leave(Reason::HeadersTooLong, &packet);
    });
    six(rows, "V9 IPv6 extension headers further than is looked", &|s| {
        s.serve(&[s.svc(&[1])]);
        let mut header = vec![0; 512];
        header[1] = 63;
        s.leave(Reason::HeadersTooLong, &s.conn(1000, 1).request(Say::Open).extension(60, &header));
    });
    six(rows, "V9 an IPv6 authentication header that lies about its length", &|s| {
        s.serve(&[s.svc(&[1])]);
        let packet = s.conn(1000, 1).request(Say::Open).extension(51, &[0; 12]);
        s.leave(Reason::Malformed, &packet.edit(41, &[100]));
    });
}

fn transport(rows: &mut Rows) {
    rows.tcp("V9 TCP header length below 20", |s| {
        s.serve(&[s.svc(&[1])]);
        for words in 0..5 {
            s.leave(Reason::Malformed, &s.conn(1000, 1).request(Say::Open).edit_upper(12, &[words << 4]));
        }
    });
    rows.tcp("V9 TCP header longer than the packet", |s| {
        s.serve(&[s.svc(&[1])]);
        for words in [7, 15] {
            s.leave(Reason::Malformed, &s.conn(1000, 1).request(Say::Open).edit_upper(12, &[words << 4]));
        }
    });
    rows.udp("V9 UDP length below 8", |s| {
        s.serve(&[s.svc(&[1])]);
        for length in [1, 7] {
            s.leave(Reason::Malformed, &s.conn(1000, 1).request(Say::Open).edit_upper(4, &[0, length]));
        }
    });
    rows.udp("V9 UDP length beyond the packet", |s| {
        s.serve(&[s.svc(&[1])]);
        for length in [[0, 13], [0xff, 0xff]] {
            s.leave(Reason::Malformed, &s.conn(1000, 1).request(Say::Open).edit_upper(4, &length));
        }
    });
    rows.all("V9 a transport header that is not all there", |s| {
        s.serve(&[s.svc(&[1])]);
        let whole = s.conn(1000, 1).request(Say::Open);
        let least = match s.protocol {
            Protocol::Tcp => 20,
            Protocol::Udp => 8,
            Protocol::Sctp => 12,
        };
        for len in 0..least {
            let upper = Upper::Raw(s.protocol.number());
            let short = Packet::new(whole.src, whole.dst, upper).payload(vec![0x11; len]);
            s.leave(Reason::Malformed, &short);
        }
    });
    rows.tcp("V9 ICMP shorter than its header", |s| {
        s.serve(&[s.svc(&[1])]);
        let number = if s.net == Net::V4 { 1 } else { 58 };
        for len in 0..8 {
            let short = Packet::new(s.client(0), (s.net.vip(1), 0), Upper::Raw(number));
            s.leave(Reason::Malformed, &short.payload(vec![0x08; len]));
        }
    });
}
