//! A node with a client, servers and a cgroup.

use std::collections::BTreeMap;

use lb_tests::cgroup::TestCgroup;
use lb_tests::node::{Agent, Talk, TestNode, address};
use lb_userspace::lab::netns::Namespace;
use serde_json::Value;

/// A node and a cgroup.
pub(crate) struct World {
    pub(crate) cgroup: TestCgroup,
    pub(crate) net: TestNode,
}

impl World {
    /// With so many servers, none of them behind a Service yet.
    pub(crate) fn new(servers: u8) -> Self {
        let net = TestNode::new(servers);
        let cgroup = TestCgroup::new(&net.namespace_name("cgroup"));
        Self { cgroup, net }
    }

    /// An agent that balances at the cgroup's sockets.
    pub(crate) fn agent(&self, arguments: &[&str]) -> Agent {
        self.net.agent(&[&["--socket-lb", "on", "--cgroup", self.cgroup.text()], arguments].concat())
    }

    /// A connection of the cgroup from a namespace.
    pub(crate) fn connect(&self, from: &Namespace, to: &str) -> Result<Talk, String> {
        self.cgroup.run(from, || Talk::new(to))
    }

    /// The same from the client's namespace.
    pub(crate) fn dial(&self, to: &str) -> Talk {
        self.connect(self.net.client(), to).unwrap_or_else(|error| panic!("{to}: {error}"))
    }

    /// Flows that the packet path knows.
    pub(crate) fn flows(&self) -> u64 {
        self.net.json(&["get", "flows"])["total"].as_u64().expect("a number")
    }

    /// Calls of sockets, by reason.
    pub(crate) fn calls(&self) -> BTreeMap<String, u64> {
        let stats = self.net.json(&["get", "stats", "--iface", "(sockets)"]);
        let row =
            |row: &Value| (row["reason"].as_str().unwrap().to_owned(), row["packets"].as_u64().unwrap());
        stats.as_array().expect("a list").iter().map(row).collect()
    }

    /// Of all backends of a protocol: flows opened and closed.
    pub(crate) fn opened_and_closed(&self) -> (u64, u64) {
        let backends = self.net.json(&["get", "backends"]);
        backends.as_array().expect("a list").iter().fold((0, 0), |(opened, closed), row| {
            (opened + row["flows_opened"].as_u64().unwrap(), closed + row["flows_closed"].as_u64().unwrap())
        })
    }
}

/// A Service without selector, and its slices: `spec` is put into the Service, `endpoints` are (address, node) pairs.
pub(crate) fn service(name: &str, vips: [&str; 2], spec: &str, endpoints: &[(String, &str)]) -> String {
    let [v4, v6] = vips;
    let mut text = format!(
        "kind: Service\nmetadata: {{name: {name}}}\nspec: {{clusterIP: '{v4}', clusterIPs: ['{v4}', '{v6}'], ipFamilies: \
         [IPv4, IPv6], ipFamilyPolicy: RequireDualStack, {spec} ports: [{{name: tcp, port: 80}}, {{name: udp, port: 80, \
         protocol: UDP}}]}}\n"
    );
    for (family, is_v6) in [("IPv4", false), ("IPv6", true)] {
        let endpoints: Vec<_> = endpoints
            .iter()
            .filter(|(address, _)| address.contains(':') == is_v6)
            .map(|(address, node)| format!("{{addresses: ['{address}'], nodeName: {node}}}"))
            .collect();
        text += &format!(
            "---\nkind: EndpointSlice\nmetadata: {{name: {name}-{}, labels: {{kubernetes.io/service-name: \
             {name}}}}}\naddressType: {family}\nports: [{{name: tcp, port: 8080}}, {{name: udp, port: 8080, protocol: \
             UDP}}]\nendpoints: [{}]\n",
            family.to_lowercase(),
            endpoints.join(", ")
        );
    }
    text
}

/// Both addresses of servers, all on this node.
pub(crate) fn servers(numbers: &[usize]) -> Vec<(String, &'static str)> {
    numbers.iter().flat_map(|number| [4, 6].map(|family| (address(*number, family), "here"))).collect()
}
