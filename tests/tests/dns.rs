//! DNS from end to end: the agent answers on an address of the node, and clients ask a ClusterIP in front of it, by UDP and
//! TCP, with programs that people use.

use lb_tests::node::{Agent, TestNode};

/// Where the agent listens: an address of the node.
const LISTEN: &str = "172.31.0.1";

const DNS_SERVICE: &str = "kind: Service\nmetadata: {name: kube-dns, namespace: kube-system}\nspec:\n  clusterIP: 10.96.0.53\n  \
     ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53}]\n---\nkind: EndpointSlice\nmetadata: \
     {name: kube-dns-1, namespace: kube-system, labels: {kubernetes.io/service-name: kube-dns}}\naddressType: IPv4\n\
     ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53}]\nendpoints: [{addresses: [172.31.0.1]}]\n";

/// A node with a DNS Service, and its agent.
fn node(options: &[&str]) -> (TestNode, Agent) {
    let node = TestNode::new(1);
    node.write("dns.yaml", DNS_SERVICE);
    node.serve(&[0]);
    let agent = node.agent(&[&["--dns-listen", LISTEN], options].concat());
    (node, agent)
}

/// What a command in the client prints; it must succeed.
fn client(node: &TestNode, command: &[&str]) -> String {
    let mut process = node.client().command(command[0]).expect("a command");
    let output = process.args(&command[1..]).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {} {out} {err}", output.status);
    out.into_owned()
}

/// dig, patient: a lost datagram is sent again.
fn dig(node: &TestNode, arguments: &[&str]) -> String {
    client(node, &[&["dig", "@10.96.0.53", "+time=5", "+tries=6"], arguments].concat())
}

#[test]
fn dig_asks_the_cluster_ip() {
    let (node, _agent) = node(&[]);
    for transport in ["+notcp", "+tcp"] {
        let ask = |arguments: &[&str]| dig(&node, &[arguments, &[transport, "+short"]].concat());
        assert_eq!(ask(&["web.default.svc.cluster.local", "A"]), "10.96.0.10\n");
        assert_eq!(ask(&["web.default.svc.cluster.local", "AAAA"]), "fd00:96::10\n");
        assert_eq!(
            ask(&["_http._tcp.web.default.svc.cluster.local", "SRV"]),
            "0 100 80 web.default.svc.cluster.local.\n"
        );
        assert_eq!(ask(&["-x", "10.96.0.10"]), "web.default.svc.cluster.local.\n");
        assert_eq!(ask(&["dns-version.cluster.local", "TXT"]), "\"1.1.0\"\n");
        let all = |arguments: &[&str]| dig(&node, &[arguments, &[transport]].concat());
        let answer = all(&["absent.default.svc.cluster.local"]);
        assert!(
            answer.contains("status: NXDOMAIN") && answer.contains("SOA\tns.dns.cluster.local."),
            "{answer}"
        );
        let answer = all(&["example.com"]);
        assert!(answer.contains("status: REFUSED"), "{answer}");
    }
}
