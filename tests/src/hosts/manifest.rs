//! Services for the scene, a line each.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use super::{PORT, Place};

/// A Service in both families with its slices, as manifests.
#[derive(Clone, Debug)]
pub struct Manifest {
    name: &'static str,
    number: u8,
    spec: String,
    status: String,
    annotations: String,
    endpoints: Vec<(Place, String)>,
}

impl Manifest {
    /// A Service at the ClusterIPs with this number, port 80 in TCP and UDP, in front of these pods.
    pub fn new(name: &'static str, number: u8, places: &[Place]) -> Self {
        let endpoints = places.iter().map(|place| (*place, String::new())).collect();
        Self {
            name,
            number,
            spec: String::new(),
            status: String::new(),
            annotations: String::new(),
            endpoints,
        }
    }

    /// Its ClusterIP and port.
    pub fn vip(&self, v6: bool) -> SocketAddr {
        SocketAddr::new(vip(self.number, v6), 80)
    }

    /// With more fields of the `spec`: `name: value, name: value`.
    #[must_use]
    pub fn spec(mut self, fields: &str) -> Self {
        _ = write!(self.spec, ", {fields}");
        self
    }

    /// With a `loadBalancer` in the status.
    #[must_use]
    pub fn ingress(mut self, entries: &[String]) -> Self {
        self.status = format!("status: {{loadBalancer: {{ingress: [{}]}}}}\n", entries.join(", "));
        self
    }

    /// With an annotation.
    #[must_use]
    pub fn annotated(mut self, name: &str, value: &str) -> Self {
        self.annotations = format!(", annotations: {{{name}: '{value}'}}");
        self
    }

    /// With more fields of one endpoint.
    #[must_use]
    pub fn endpoint(mut self, place: Place, fields: &str) -> Self {
        for (_, known) in self.endpoints.iter_mut().filter(|(at, _)| *at == place) {
            *known = format!(", {fields}");
        }
        self
    }

    /// As a file has it; node ports are 30000 + number for TCP, 30100 + number for UDP when the spec is of such a type.
    pub fn text(&self) -> String {
        let Self { name, number, spec, status, annotations, .. } = self;
        let exposed = ["NodePort", "LoadBalancer"].iter().any(|kind| spec.contains(kind));
        let node_port = |base: u16| {
            if exposed { format!(", nodePort: {}", base + u16::from(*number)) } else { String::new() }
        };
        let mut text = format!(
            "kind: Service\nmetadata: {{name: {name}{annotations}}}\nspec: {{ipFamilyPolicy: RequireDualStack, clusterIPs: ['{}', '{}'], \
             ports: [{{name: tcp, port: 80{}}}, {{name: udp, port: 80, protocol: UDP{}}}]{spec}}}\n{status}",
            vip(*number, false),
            vip(*number, true),
            node_port(30_000),
            node_port(30_100),
        );
        for v6 in [false, true] {
            let endpoints: Vec<_> = self
                .endpoints
                .iter()
                .map(|(place, more)| {
                    format!("{{addresses: ['{}'], nodeName: {}{more}}}", place.address(v6), place.node_name())
                })
                .collect();
            let family = if v6 { 6 } else { 4 };
            _ = write!(
                text,
                "---\nkind: EndpointSlice\nmetadata: {{name: {name}-{family}, labels: {{kubernetes.io/service-name: {name}}}}}\n\
                 addressType: IPv{family}\nports: [{{name: tcp, port: {PORT}}}, {{name: udp, port: {PORT}, protocol: UDP}}]\n\
                 endpoints: [{}]\n",
                endpoints.join(", ")
            );
        }
        text
    }
}

/// The ClusterIP with this number.
pub fn vip(number: u8, v6: bool) -> IpAddr {
    let text = if v6 { format!("fd00:96::{number}") } else { format!("10.96.0.{number}") };
    text.parse().expect("an address")
}
