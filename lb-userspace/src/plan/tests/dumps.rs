//! Desired state in, exact tables out.

use super::build::*;
use crate::model::desired::*;

#[test]
fn one_service() {
    let store = fresh(&desired(&[("web", service("10.96.0.10", &["10.1.0.1", "10.1.0.2"]))]));
    assert_eq!(
        text_with_numbers(&store),
        "\
service default/web:http/TCP IPv4 #1
frontend 10.96.0.10:80/TCP ClusterIP default/web:http/TCP round-robin masquerade-node,masquerade-external,drop-external #1 generation 1
  internal 0+2: 10.1.0.1:8080 10.1.0.2:8080
  external 0+2: 10.1.0.1:8080 10.1.0.2:8080
owner 10.96.0.10 owner,drop-external
backend default/web:http/TCP 10.1.0.1:8080 alive,serving,usable,local weight 1 #1 generation 1
backend default/web:http/TCP 10.1.0.2:8080 alive,serving,usable weight 1 #2 generation 1
class 10.1.0.0/16 pod
class 10.96.0.0/12 service-cidr
class 127.0.0.0/8 node
class 192.168.0.2/32 node
class ::1/128 node
settings masquerade 192.168.0.2 - ports 61000+4536
"
    );
}

/// The text after `classes`, without what every state has.
fn frontends(desired: &Desired) -> String {
    let text = text(&fresh(desired));
    text.lines()
        .filter(|line| {
            ["frontend", "  ", "source-range", "owner"].iter().any(|start| line.starts_with(start))
        })
        .fold(String::new(), |text, line| text + line + "\n")
}

#[test]
fn policies_and_kinds() {
    let mut web = service("10.96.0.10", &["10.1.0.1", "10.1.0.2"]);
    web.frontends.push(frontend(FrontendKind::NodePort, "192.168.0.2", 30_080));
    web.frontends.push(frontend(FrontendKind::LoadBalancer, "203.0.113.7", 80));
    web.external_local = true;
    web.affinity_timeout_s = Some(60);
    web.source_ranges = vec!["192.168.0.0/24".parse().unwrap(), "198.51.100.0/25".parse().unwrap()];
    assert_eq!(
        frontends(&desired(&[("web", web)])),
        "\
frontend 10.96.0.10:80/TCP ClusterIP default/web:http/TCP round-robin masquerade-node,masquerade-external,drop-external,affinity affinity 60 s
  internal: 10.1.0.1:8080 10.1.0.2:8080
  external: 10.1.0.1:8080 10.1.0.2:8080
frontend 192.168.0.2:30080/TCP NodePort default/web:http/TCP round-robin masquerade-node,affinity,external-local affinity 60 s
  internal: 10.1.0.1:8080 10.1.0.2:8080
  external: 10.1.0.1:8080
frontend 203.0.113.7:80/TCP LoadBalancer default/web:http/TCP round-robin masquerade-node,affinity,source-ranges,external-local affinity 60 s
  internal: 10.1.0.1:8080 10.1.0.2:8080
  external: 10.1.0.1:8080
owner 10.96.0.10 owner,drop-external
source-range default/web:http/TCP 192.168.0.0/24
source-range default/web:http/TCP 198.51.100.0/25
source-range default/web:http/TCP 203.0.113.7/32
"
    );
}

#[test]
fn internal_local_and_nobody_there() {
    let mut web = service("10.96.0.10", &["10.1.0.2"]);
    web.internal_local = true;
    let none = service("10.96.0.11", &[]);
    assert_eq!(
        frontends(&desired(&[("none", none), ("web", web)])),
        "\
frontend 10.96.0.10:80/TCP ClusterIP default/web:http/TCP round-robin masquerade-node,masquerade-external,drop-external,internal-local,external-local
  internal:
  external:
frontend 10.96.0.11:80/TCP ClusterIP default/none:http/TCP round-robin masquerade-node,masquerade-external,drop-external,reject-empty
  internal:
  external:
owner 10.96.0.10 owner,drop-external
owner 10.96.0.11 owner,drop-external
"
    );
}

#[test]
fn pods_not_known() {
    let mut web = service("10.96.0.10", &["10.1.0.1"]);
    web.frontends.push(frontend(FrontendKind::ExternalIp, "203.0.113.7", 80));
    let mut state = desired(&[("web", web)]);
    state.surroundings.pod_cidrs.clear();
    assert_eq!(
        frontends(&state),
        "\
frontend 10.96.0.10:80/TCP ClusterIP default/web:http/TCP round-robin -
  internal: 10.1.0.1:8080
  external: 10.1.0.1:8080
frontend 203.0.113.7:80/TCP ExternalIP default/web:http/TCP round-robin masquerade-pod,masquerade-node,masquerade-external
  internal: 10.1.0.1:8080
  external: 10.1.0.1:8080
owner 10.96.0.10 owner
"
    );
    state.surroundings.masquerade_all = true;
    assert!(frontends(&state).contains("round-robin masquerade-pod,masquerade-node,masquerade-external\n"));
}

#[test]
fn ipv6_and_weights() {
    let mut web = service("fd00:96::10", &["fd00:1::1", "fd00:1::2"]);
    web.algorithm = Algorithm::Weighted;
    web.backends[0].weight = 30;
    web.backends[1].weight = 10;
    let mut name = name("web");
    name.family = Family::V6;
    let mut state = desired(&[]);
    state.services.insert(name, web);
    assert_eq!(
        frontends(&state),
        "\
frontend [fd00:96::10]:80/TCP ClusterIP default/web:http/TCP weighted -
  internal: [fd00:1::1]:8080 [fd00:1::1]:8080 [fd00:1::2]:8080 [fd00:1::1]:8080
  external: [fd00:1::1]:8080 [fd00:1::1]:8080 [fd00:1::2]:8080 [fd00:1::1]:8080
owner fd00:96::10 owner
"
    );
}

#[test]
fn a_frontend_claimed_twice_goes_to_the_first_name() {
    let mut store = crate::maps::MemoryStore::new();
    let clock = TestClock::default();
    let mut planner = planner(&store, &clock);
    let web = service("10.96.0.10", &["10.1.0.1"]);
    let state = desired(&[("b", service("10.96.0.10", &["10.1.0.2"]))]);
    planner.sync(&mut store, &state).unwrap();
    // `a` comes later, but first by name.
    let both = desired(&[("a", web), ("b", service("10.96.0.10", &["10.1.0.2"]))]);
    let report = planner.sync(&mut store, &both).unwrap();
    let problems: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        problems,
        [
            "10.96.0.10:80/TCP of default/b:http/TCP is already taken by default/a:http/TCP, which comes first by name"
        ]
    );
    assert_eq!(text(&store), text(&fresh(&both)));
    assert!(text(&store).contains("frontend 10.96.0.10:80/TCP ClusterIP default/a:http/TCP"));
    // It is still said when nothing changes, and `b` gets it back when `a` goes.
    assert_eq!(planner.sync(&mut store, &both).unwrap().problems.len(), 1);
    assert!(planner.sync(&mut store, &state).unwrap().problems.is_empty());
    assert_eq!(text(&store), text(&fresh(&state)));
}

#[test]
fn the_engine_s_tables_take_the_same_plans() {
    let mut engine = lb_common::memory::Memory::new();
    let clock = TestClock::default();
    let mut planner = planner(&engine, &clock);
    let mut state = desired(&[("web", service("10.96.0.10", &["10.1.0.1", "10.1.0.2"]))]);
    planner.sync(&mut engine, &state).unwrap();
    assert_eq!(text(&engine), text(&fresh(&state)));
    state.services.clear();
    planner.sync(&mut engine, &state).unwrap();
    assert_eq!(text(&engine), text(&fresh(&state)));
    planner.readopt(&engine).unwrap();
    assert!(planner.plan(&state).unwrap().is_empty());
}
