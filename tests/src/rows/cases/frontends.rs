//! F: what a client dials.

use lb_common::reason::Reason;
use lb_userspace::model::desired::Protocol;

use super::verdicts::ping;
use crate::rows::packet::{Packet, Upper};
use crate::rows::row::{Rows, Say};
use crate::rows::service::Svc;

pub(super) fn rows(rows: &mut Rows) {
    rows.all("F1 a ClusterIP and its port lead to the backend, and back", |s| {
        s.serve(&[s.svc(&[1])]);
        let conn = s.conn(1000, 1);
        s.open(&conn);
        s.back(&conn, Say::Accept);
        s.to(&conn, Say::Data);
        s.back(&conn, Say::Data);
    });
    rows.tcp("F1 protocols share a port number and differ in backends", |s| {
        let at = s.frontend();
        let protocols = [(Protocol::Tcp, 1), (Protocol::Udp, 2), (Protocol::Sctp, 3)];
        let services: Vec<Svc> =
            protocols.iter().map(|(protocol, pod)| Svc::new(s.net, *protocol, at, &[*pod])).collect();
        s.serve(&services);
        for (protocol, pod) in protocols {
            s.protocol = protocol;
            s.open(&s.conn(1000, pod));
            s.back(&s.conn(1000, pod), Say::Accept);
        }
    });
    rows.all("F1 ports of one address differ in backends", |s| {
        let (web, admin) = (s.frontend(), (s.net.vip(1), 8443));
        s.serve(&[s.svc_at(web, &[1]), s.svc_at(admin, &[2])]);
        s.open(&s.conn_to(s.client(1000), web, 1));
        s.open(&s.conn_to(s.client(1000), admin, 2));
    });
    rows.all("F1 addresses with one port differ in backends", |s| {
        let (first, second) = (s.frontend(), (s.net.vip(2), 80));
        s.serve(&[s.svc_at(first, &[1]), s.svc_at(second, &[2])]);
        s.open(&s.conn_to(s.client(1000), first, 1));
        s.open(&s.conn_to(s.client(1000), second, 2));
    });
    rows.tcp("F1 a backend dialled directly is not ours", |s| {
        s.serve(&[s.svc(&[1])]);
        let direct = s.conn_to(s.client(1000), s.pod(1), 1);
        s.leave(Reason::NotOurs, &direct.request(Say::Open));
    });
    rows.tcp("F2 every ClusterIP of a service is a frontend", |s| {
        let second = (s.net.vip(9), 80);
        s.serve(&[s.svc(&[1]).cluster_ip(second.0)]);
        s.open(&s.conn(1000, 1));
        s.open(&s.conn_to(s.client(1001), second, 1));
    });
    rows.tcp("F2 a family without backends does not affect the other", |s| {
        let other = if s.net == crate::rows::net::Net::V4 {
            crate::rows::net::Net::V6
        } else {
            crate::rows::net::Net::V4
        };
        let empty = Svc::new(other, s.protocol, (other.vip(1), 80), &[]);
        s.serve(&[s.svc(&[1]), empty]);
        s.open(&s.conn(1000, 1));
        let (client, frontend) = ((other.client(1), 1000), (other.vip(1), 80));
        let rejected = s.conn_to(client, frontend, 1).request(Say::Open);
        s.answer(Reason::RejectedNoBackend, &rejected);
    });
    rows.all("F5 an external IP is a frontend on the service port", |s| {
        let public = (s.net.public(1), 80);
        s.serve(&[s.svc(&[1]).external_ip(public.0).local(&[1]).external_local()]);
        s.open(&s.conn_to((s.net.outside(1), 1000), public, 1));
    });
    rows.all("F5 a load balancer's address is a frontend on the service port", |s| {
        let public = (s.net.public(1), 80);
        s.serve(&[s.svc(&[1]).load_balancer(public.0).local(&[1]).external_local()]);
        s.open(&s.conn_to((s.net.outside(1), 1000), public, 1));
    });
    rows.all("F6 a node port leads to the backend", |s| {
        s.serve(&[s.svc(&[1]).node_port(30_080).local(&[1]).external_local()]);
        s.open(&s.conn_to((s.net.outside(1), 1000), (s.net.node(), 30_080), 1));
    });
    rows.all("F6 a node port on an address that is not selected is not touched", |s| {
        s.serve(&[s.svc(&[1]).node_port(30_080)]);
        let elsewhere = s.conn_to((s.net.outside(1), 1000), (s.net.node_second(), 30_080), 1);
        s.leave(Reason::NotOurs, &elsewhere.request(Say::Open));
    });
    rows.all("F8 other ports of this host are left alone", |s| {
        s.serve(&[s.svc(&[1]).node_port(30_080)]);
        for port in [22, 6443, 30_081] {
            let own = s.conn_to((s.net.outside(1), 1000), (s.net.node(), port), 1);
            s.leave(Reason::NotOurs, &own.request(Say::Open));
        }
    });
    rows.tcp("F8 other ports of an external IP are left alone", |s| {
        let public = s.net.public(1);
        s.serve(&[s.svc(&[1]).external_ip(public)]);
        let other = s.conn_to((s.net.outside(1), 1000), (public, 443), 1);
        s.leave(Reason::NotOurs, &other.request(Say::Open));
        let ping = Upper::Icmp { kind: if public.is_ipv4() { 8 } else { 128 }, code: 0, rest: [1; 4] };
        s.leave(Reason::OtherProtocol, &Packet::new((s.net.outside(1), 0), (public, 0), ping));
    });
    rows.all("F9 a ClusterIP dialled from outside is dropped", |s| {
        s.serve(&[s.svc(&[1])]);
        let outside = s.conn_to((s.net.outside(1), 1000), s.frontend(), 1);
        s.leave(Reason::DropExternal, &outside.request(Say::Open));
    });
    rows.all("F9 a ClusterIP's other ports dialled from outside are dropped", |s| {
        s.serve(&[s.svc(&[1])]);
        let other = (s.frontend().0, 4444);
        let outside = s.conn_to((s.net.outside(1), 1000), other, 1);
        s.leave(Reason::DropExternal, &outside.request(Say::Open));
        s.answer(Reason::RejectedPort, &s.conn_to(s.client(1000), other, 1).request(Say::Open));
    });
    rows.tcp("F9 ping to a ClusterIP from outside is dropped", |s| {
        s.serve(&[s.svc(&[1])]);
        let echo = |from| ping(s.net, from, s.frontend());
        let (outside, inside) = (echo((s.net.outside(1), 0)), echo(s.client(0)));
        s.leave(Reason::DropExternal, &outside);
        s.answer(Reason::Ping, &inside);
    });
    rows.all("F9 a ClusterIP serves this node", |s| {
        s.serve(&[s.svc(&[1])]);
        let node = (s.net.node(), 1000);
        let conn = s.conn_to(node, s.frontend(), 1).as_seen((s.net.node(), 61_000));
        s.open(&conn);
        s.back(&conn, Say::Accept);
    });
    rows.tcp("F9 a pod's address that comes over an external interface is outside", |s| {
        s.serve(&[s.svc(&[1])]);
        s.over_external(true);
        s.leave(Reason::DropExternal, &s.conn(1000, 1).request(Say::Open));
        s.over_external(false);
        s.open(&s.conn(1000, 1));
    });
    rows.tcp("F9 outside clients are let in when that is asked for, and masqueraded", |s| {
        s.surroundings.allow_external_cluster_ip = true;
        s.serve(&[s.svc(&[1])]);
        let outside = s.conn_to((s.net.outside(1), 1000), s.frontend(), 1);
        let conn = outside.as_seen((s.net.node(), 61_000));
        s.open(&conn);
        s.back(&conn, Say::Accept);
    });
    rows.tcp("F9 where pods are not known nobody is outside", |s| {
        s.surroundings.pod_cidrs.clear();
        s.serve(&[s.svc(&[1])]);
        s.open(&s.conn_to((s.net.outside(1), 1000), s.frontend(), 1));
    });
    rows.tcp("F9 an established connection is not asked again where it comes from", |s| {
        s.serve(&[s.svc(&[1])]);
        let conn = s.conn(1000, 1);
        s.establish(&conn);
        s.over_external(true);
        s.to(&conn, Say::Data);
    });
}
