//! V: verdicts that are not "forward".

use lb_common::reason::Reason;

use crate::rows::net::{At, Net};
use crate::rows::packet::{Checksum, Packet, Upper};
use crate::rows::row::{Rows, Say, Script};

pub(super) fn rows(rows: &mut Rows) {
    rejects(rows);
    policies(rows);
    owners(rows);
    source_ranges(rows);
    not_ours(rows);
}

/// An ICMP echo request.
pub(super) fn ping(net: Net, src: At, dst: At) -> Packet {
    let kind = if net == Net::V4 { 8 } else { 128 };
    Packet::new((src.0, 0), (dst.0, 0), Upper::Icmp { kind, code: 0, rest: [0x12, 0x34, 0, 1] })
        .payload(*b"abcdefghijklmnop")
}

fn rejects(rows: &mut Rows) {
    rows.all("V1 a service without backends rejects", |s| {
        s.serve(&[s.svc(&[])]);
        s.answer(Reason::RejectedNoBackend, &s.conn(1000, 1).request(Say::Open));
    });
    rows.all("V1 a service whose backends went rejects, and serves again when one comes", |s| {
        s.serve(&[s.svc(&[1])]);
        s.serve(&[s.svc(&[])]);
        s.answer(Reason::RejectedNoBackend, &s.conn(1000, 1).request(Say::Open));
        s.serve(&[s.svc(&[2])]);
        s.open(&s.conn(1000, 2));
    });
    rows.udp("V1 a rejected datagram is quoted, however short", |s| {
        s.serve(&[s.svc(&[])]);
        for len in [0, 1, 3, 4, 100, 1000] {
            let request = s.conn(1000, 1).request(Say::Open).payload(vec![0x55; len]);
            s.answer(Reason::RejectedNoBackend, &request);
        }
    });
    rows.udp("V1 a rejected datagram without a checksum", |s| {
        s.serve(&[s.svc(&[])]);
        let request = s.conn(1000, 1).request(Say::Open).checksum(Checksum::None);
        s.answer(Reason::RejectedNoBackend, &request);
    });
    rows.each(
        "V1 a rejection finds its way back through VLAN tags",
        &[lb_userspace::model::desired::Protocol::Tcp, lb_userspace::model::desired::Protocol::Udp],
        |s| {
            s.serve(&[s.svc(&[])]);
            let request = s.conn(1000, 1).request(Say::Open).tag(0x8100, 7);
            s.answer(Reason::RejectedNoBackend, &request);
            s.answer(Reason::RejectedNoBackend, &request.tag(0x8100, 8));
        },
    );
    rows.tcp("V1 a SYN with options and data is rejected", |s| {
        s.serve(&[s.svc(&[])]);
        let options = vec![2, 4, 5, 0xb4, 4, 2, 1, 1];
        let upper = Upper::Tcp { flags: 0x02, numbers: [u32::MAX, 0], window: 512, options };
        let request = Packet::new(s.client(1000), s.frontend(), upper).payload(*b"fast open");
        s.answer(Reason::RejectedNoBackend, &request);
    });
    rows.all("V1 a node port of a service without backends rejects", |s| {
        s.serve(&[s.svc(&[]).node_port(30_080)]);
        let conn = s.conn_to((s.net.outside(1), 1000), (s.net.node(), 30_080), 1);
        s.answer(Reason::RejectedNoBackend, &conn.request(Say::Open));
    });
    rows.tcp("V1 a reset is not answered", |s| {
        s.serve(&[s.svc(&[])]);
        s.leave(Reason::RejectedNoBackend, &s.conn(1000, 1).request(Say::Reset));
    });
}

fn policies(rows: &mut Rows) {
    rows.all("V2 backends exist but none is local: dropped", |s| {
        s.serve(&[s.svc(&[1, 2]).internal_local()]);
        s.leave(Reason::DropNoLocalBackend, &s.conn(1000, 1).request(Say::Open));
    });
    rows.all("V3 internal traffic policy Local chooses local backends only", |s| {
        s.serve(&[s.svc(&[1, 2, 3]).local(&[2]).internal_local()]);
        for port in 1000..1003 {
            s.open(&s.conn(port, 2));
        }
    });
    rows.tcp("V3 internal traffic policy Local does not bind external addresses", |s| {
        let public = (s.net.public(1), 80);
        s.serve(&[s.svc(&[1, 2]).local(&[2]).internal_local().external_ip(public.0).external_local()]);
        s.open(&s.conn_to(s.client(1000), public, 1));
        s.open(&s.conn_to(s.client(1001), public, 2));
    });
    rows.tcp("V3 a flow stays with its remote backend when the policy becomes Local", |s| {
        s.serve(&[s.svc(&[1, 2])]);
        s.establish(&s.conn(1000, 1));
        s.serve(&[s.svc(&[1, 2]).local(&[2]).internal_local()]);
        s.to(&s.conn(1000, 1), Say::Data);
        s.open(&s.conn(1001, 2));
    });
    rows.all("V4 external traffic policy Local: outside clients reach local backends, source kept", |s| {
        s.serve(&[s.svc(&[1, 2]).local(&[2]).node_port(30_080).external_local()]);
        for port in 1000..1003 {
            let conn = s.conn_to((s.net.outside(1), port), (s.net.node(), 30_080), 2);
            s.open(&conn);
            s.back(&conn, Say::Accept);
        }
    });
    rows.all("V4 external traffic policy Local without local backends: dropped", |s| {
        s.serve(&[s.svc(&[1, 2]).node_port(30_080).external_local()]);
        let conn = s.conn_to((s.net.outside(1), 1000), (s.net.node(), 30_080), 1);
        s.leave(Reason::DropNoLocalBackend, &conn.request(Say::Open));
    });
    rows.tcp("V4 pods reach all backends of the same frontend", |s| {
        let public = (s.net.public(1), 80);
        s.serve(&[s.svc(&[1, 2]).local(&[2]).load_balancer(public.0).external_local()]);
        s.open(&s.conn_to(s.client(1000), public, 1));
        s.open(&s.conn_to(s.client(1001), public, 2));
        s.open(&s.conn_to((s.net.outside(1), 1000), public, 2));
    });
    rows.tcp("V4 this node reaches all backends of the same frontend", |s| {
        s.serve(&[s.svc(&[1]).node_port(30_080).external_local()]);
        let conn = s.conn_to((s.net.node(), 1000), (s.net.node(), 30_080), 1);
        s.open(&conn.as_seen((s.net.node(), 61_000)));
    });
    rows.all("V4 the ClusterIP is not bound by the external policy", |s| {
        s.serve(&[s.svc(&[1, 2]).local(&[2]).external_local().node_port(30_080)]);
        s.open(&s.conn(1000, 1));
        s.open(&s.conn(1001, 2));
    });
}

fn owners(rows: &mut Rows) {
    rows.all("V5 a ClusterIP's other ports reject", |s| {
        s.serve(&[s.svc(&[1])]);
        let other = s.conn_to(s.client(1000), (s.net.vip(1), 81), 1);
        s.answer(Reason::RejectedPort, &other.request(Say::Open));
    });
    rows.tcp("V5 a ClusterIP's other protocols reject", |s| {
        use lb_userspace::model::desired::Protocol;
        s.serve(&[s.svc(&[1])]);
        for protocol in [Protocol::Udp, Protocol::Sctp] {
            s.protocol = protocol;
            s.answer(Reason::RejectedPort, &s.conn(1000, 1).request(Say::Open));
        }
    });
    rows.tcp("V5 a reset to a ClusterIP's other port is not answered", |s| {
        s.serve(&[s.svc(&[1])]);
        let other = s.conn_to(s.client(1000), (s.net.vip(1), 81), 1);
        s.leave(Reason::RejectedPort, &other.request(Say::Reset));
    });
    rows.tcp("V5 a ClusterIP answers ping", |s| {
        s.serve(&[s.svc(&[1])]);
        s.answer(Reason::Ping, &ping(s.net, s.client(0), s.frontend()));
    });
    rows.tcp("V5 a ClusterIP without backends answers ping", |s| {
        s.serve(&[s.svc(&[])]);
        s.answer(Reason::Ping, &ping(s.net, s.client(0), s.frontend()));
    });
    rows.tcp("V5 ping of any length is answered whole", |s| {
        s.serve(&[s.svc(&[1])]);
        for len in [0, 1, 56, 1472, 3000] {
            let request = ping(s.net, s.client(0), s.frontend()).payload(vec![0xa7; len]);
            s.answer(Reason::Ping, &request);
        }
    });
    rows.tcp("V5 with ping off the echo request is left alone", |s| {
        s.surroundings.no_vip_ping = true;
        s.serve(&[s.svc(&[1])]);
        s.leave(Reason::OtherProtocol, &ping(s.net, s.client(0), s.frontend()));
    });
    rows.tcp("V5 other ICMP to a ClusterIP is left alone", |s| {
        s.serve(&[s.svc(&[1])]);
        let kinds: [u8; 3] = if s.net == Net::V4 { [0, 13, 9] } else { [129, 130, 134] };
        for kind in kinds {
            let upper = Upper::Icmp { kind, code: 0, rest: [0; 4] };
            s.leave(Reason::OtherProtocol, &Packet::new(s.client(0), (s.net.vip(1), 0), upper));
        }
    });
    rows.tcp("V5 a protocol without ports to a ClusterIP is left alone", |s| {
        s.serve(&[s.svc(&[1])]);
        let gre = Packet::new(s.client(0), (s.net.vip(1), 0), Upper::Raw(47)).payload(vec![0; 32]);
        s.leave(Reason::OtherProtocol, &gre);
    });
    rows.all("V5 a ClusterIP is owned until its last port goes", |s| {
        let (web, admin) = (s.frontend(), (s.net.vip(1), 8443));
        s.serve(&[s.svc_at(web, &[1]), s.svc_at(admin, &[1])]);
        s.serve(&[s.svc_at(admin, &[1])]);
        s.answer(Reason::RejectedPort, &s.conn(1000, 1).request(Say::Open));
        s.serve(&[]);
        s.leave(Reason::DropUnowned, &s.conn(1000, 1).request(Say::Open));
    });
    rows.all("V6 an address of the service range that nobody owns swallows", |s| {
        s.serve(&[s.svc(&[1])]);
        let nobody = s.conn_to(s.client(1000), (s.net.vip(99), 80), 1);
        s.leave(Reason::DropUnowned, &nobody.request(Say::Open));
        s.leave(Reason::DropUnowned, &nobody.request(Say::Data));
    });
    rows.tcp("V6 ping to an address that nobody owns is swallowed", |s| {
        s.serve(&[s.svc(&[1])]);
        s.leave(Reason::DropUnowned, &ping(s.net, s.client(0), (s.net.vip(99), 0)));
    });
    rows.tcp("V6 without service ranges nothing is swallowed", |s| {
        s.surroundings.service_cidrs.clear();
        s.serve(&[s.svc(&[1])]);
        let nobody = s.conn_to(s.client(1000), (s.net.vip(99), 80), 1);
        s.leave(Reason::NotOurs, &nobody.request(Say::Open));
        s.open(&s.conn(1000, 1));
    });
}

fn source_ranges(rows: &mut Rows) {
    fn guarded(s: &mut Script) -> At {
        let public = (s.net.public(1), 80);
        let svc = s.svc(&[1]).local(&[1]).external_local().load_balancer(public.0).node_port(30_080);
        let svc = svc.only_from(s.net.outside(1));
        s.serve(&[svc]);
        public
    }
    rows.all("V7 a source inside loadBalancerSourceRanges is let in", |s| {
        let public = guarded(s);
        s.open(&s.conn_to((s.net.outside(9), 1000), public, 1));
    });
    rows.all("V7 a source outside loadBalancerSourceRanges is dropped", |s| {
        let public = guarded(s);
        let stranger = s.conn_to((s.net.public(77), 1000), public, 1);
        s.leave(Reason::DropSourceRange, &stranger.request(Say::Open));
    });
    rows.tcp("V7 the ranges hold for pods and for this node", |s| {
        let public = guarded(s);
        for src in [s.net.client(1), s.net.node()] {
            let conn = s.conn_to((src, 1000), public, 1);
            s.leave(Reason::DropSourceRange, &conn.request(Say::Open));
        }
    });
    rows.tcp("V7 the ranges guard load balancer addresses only", |s| {
        guarded(s);
        s.open(&s.conn(1000, 1));
        s.open(&s.conn_to((s.net.public(77), 1000), (s.net.node(), 30_080), 1));
    });
    rows.tcp("V7 the ranges of one service do not open another", |s| {
        let (open, closed) = ((s.net.public(1), 80), (s.net.public(2), 80));
        let svc = |at: At, from| {
            s.svc_at((s.net.vip(at.1 as u8), 80), &[1]).load_balancer(at.0).external_local().only_from(from)
        };
        let services =
            [svc((open.0, 1), s.net.outside(1)).local(&[1]), svc((closed.0, 2), s.net.public(1)).local(&[1])];
        s.serve(&services);
        s.open(&s.conn_to((s.net.outside(1), 1000), open, 1));
        let conn = s.conn_to((s.net.outside(1), 1000), closed, 1);
        s.leave(Reason::DropSourceRange, &conn.request(Say::Open));
    });
    rows.tcp("V7 a known flow stays when the ranges change", |s| {
        let public = guarded(s);
        let conn = s.conn_to((s.net.outside(1), 1000), public, 1);
        s.establish(&conn);
        let svc = s.svc(&[1]).local(&[1]).external_local().load_balancer(public.0);
        s.serve(&[svc.only_from(s.net.public(1))]);
        s.to(&conn, Say::Data);
        let new = s.conn_to((s.net.outside(1), 1001), public, 1);
        s.leave(Reason::DropSourceRange, &new.request(Say::Open));
    });
}

fn not_ours(rows: &mut Rows) {
    rows.all("V8 traffic between pods is passed bit for bit", |s| {
        s.serve(&[s.svc(&[1])]);
        let direct = s.conn_to(s.client(1000), (s.net.client(2), 5000), 1);
        for say in [Say::Open, Say::Accept, Say::Data, Say::Fin, Say::Reset] {
            s.leave(Reason::NotOurs, &direct.request(say));
            s.leave(Reason::NotOurs, &direct.request(say).checksum(Checksum::Off(0x1234)));
        }
    });
    rows.all("V8 without services everything is passed", |s| {
        s.surroundings.service_cidrs.clear();
        s.serve(&[]);
        s.leave(Reason::NotOurs, &s.conn(1000, 1).request(Say::Open));
    });
    rows.tcp("V8 before the first sync everything is passed", |s| {
        s.leave(Reason::NotOurs, &s.conn(1000, 1).request(Say::Open));
        s.leave(Reason::OtherProtocol, &ping(s.net, s.client(0), s.frontend()));
    });
    rows.tcp("V8 what is not IP is passed", |s| {
        s.serve(&[s.svc(&[1])]);
        for ethertype in [0x0806, 0x88cc, 0x8847, 0x0004] {
            let mut frame = s.conn(1000, 1).request(Say::Open);
            frame.ethertype = Some(ethertype);
            s.leave(Reason::NotIp, &frame);
        }
    });
    rows.tcp("V8 what is not IP behind a VLAN tag is passed", |s| {
        s.serve(&[s.svc(&[1])]);
        let mut frame = s.conn(1000, 1).request(Say::Open).tag(0x8100, 5);
        frame.ethertype = Some(0x0806);
        s.leave(Reason::NotIp, &frame);
    });
    rows.tcp("V8 other protocols are passed", |s| {
        s.serve(&[s.svc(&[1])]);
        for protocol in [2, 4, 41, 47, 50, 89, 103, 255] {
            let packet = Packet::new(s.client(0), (s.net.client(2), 0), Upper::Raw(protocol));
            s.leave(Reason::OtherProtocol, &packet.payload(vec![0xee; 40]));
        }
    });
    rows.tcp("V8 ping to a pod is passed", |s| {
        s.serve(&[s.svc(&[1])]);
        s.leave(Reason::OtherProtocol, &ping(s.net, s.client(0), s.pod(1)));
    });
    rows.tcp("V8 what comes after the packet's end is kept", |s| {
        s.serve(&[s.svc(&[1])]);
        let conn = s.conn(1000, 1);
        let mut request = conn.request(Say::Open);
        request.trailer = vec![0xaa; 18];
        s.expect(Reason::NewFlow, &request, &conn.onward(request.clone()));
        let mut other = s.conn_to(s.client(1000), (s.net.client(2), 5000), 1).request(Say::Open);
        other.trailer = vec![0xaa; 18];
        s.leave(Reason::NotOurs, &other);
    });
}
