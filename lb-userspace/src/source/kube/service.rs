//! `v1` Service.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::meta::Metadata;

/// A Service.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Service {
    /// Metadata.
    pub metadata: Metadata,
    /// What is wanted.
    pub spec: ServiceSpec,
    /// What a load balancer controller has given.
    pub status: ServiceStatus,
}

/// `spec` of a Service.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceSpec {
    /// ClusterIP (default), NodePort, LoadBalancer, ExternalName.
    #[serde(rename = "type")]
    pub type_: Option<String>,
    /// An address, `None`, or empty.
    #[serde(rename = "clusterIP")]
    pub cluster_ip: Option<String>,
    /// Addresses of both families, the first equals `clusterIP`.
    #[serde(rename = "clusterIPs")]
    pub cluster_ips: Vec<String>,
    /// `IPv4`, `IPv6`.
    pub ip_families: Vec<String>,
    /// SingleStack (default), PreferDualStack, RequireDualStack.
    pub ip_family_policy: Option<String>,
    /// Ports.
    pub ports: Vec<ServicePort>,
    /// Labels of the pods behind it.
    pub selector: BTreeMap<String, String>,
    /// Addresses that somebody routes to this node.
    #[serde(rename = "externalIPs")]
    pub external_ips: Vec<String>,
    /// Who may dial the load balancer addresses.
    pub load_balancer_source_ranges: Vec<String>,
    /// Cluster (default) or Local.
    pub external_traffic_policy: Option<String>,
    /// Cluster (default) or Local.
    pub internal_traffic_policy: Option<String>,
    /// None (default) or ClientIP.
    pub session_affinity: Option<String>,
    /// Details of the affinity.
    pub session_affinity_config: Option<SessionAffinityConfig>,
    /// Port of the health check.
    pub health_check_node_port: Option<i64>,
    /// Endpoints count as ready from the start.
    pub publish_not_ready_addresses: bool,
    /// Name an ExternalName stands for.
    pub external_name: Option<String>,
    /// Whose load balancer it is; none = anybody's.
    pub load_balancer_class: Option<String>,
    /// Whether load balancer services get node ports (default true).
    pub allocate_load_balancer_node_ports: Option<bool>,
}

/// One of `spec.ports`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServicePort {
    /// Name; may be left out when there is only one port.
    pub name: Option<String>,
    /// TCP (default), UDP, SCTP.
    pub protocol: Option<String>,
    /// The port clients dial.
    pub port: i64,
    /// The port of the pods, by number or name; `port` when left out.
    pub target_port: Option<IntOrString>,
    /// The port on nodes.
    pub node_port: Option<i64>,
}

/// A number, or a name. In a text either stands for itself; in a compact form it is told which of them it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IntOrString {
    /// A number.
    Int(i64),
    /// A name.
    Name(String),
}

impl Serialize for IntOrString {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            _ if !serializer.is_human_readable() => match self {
                Self::Int(number) => Ok::<_, &str>(*number),
                Self::Name(name) => Err(&**name),
            }
            .serialize(serializer),
            Self::Int(number) => serializer.serialize_i64(*number),
            Self::Name(name) => serializer.serialize_str(name),
        }
    }
}

impl<'de> Deserialize<'de> for IntOrString {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            let which: Result<i64, String> = Deserialize::deserialize(deserializer)?;
            return Ok(which.map_or_else(Self::Name, Self::Int));
        }
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = IntOrString;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a port number or a port name")
            }

            fn visit_i64<E: serde::de::Error>(self, v: i64) -> Result<Self::Value, E> {
                Ok(IntOrString::Int(v))
            }

            fn visit_u64<E: serde::de::Error>(self, v: u64) -> Result<Self::Value, E> {
                i64::try_from(v).map(IntOrString::Int).map_err(|_| E::custom("number out of range"))
            }

            fn visit_str<E: serde::de::Error>(self, v: &str) -> Result<Self::Value, E> {
                // The API server reads a quoted number as a number.
                Ok(v.parse().map_or_else(|_| IntOrString::Name(v.to_owned()), IntOrString::Int))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// `spec.sessionAffinityConfig`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SessionAffinityConfig {
    /// For ClientIP.
    #[serde(rename = "clientIP")]
    pub client_ip: Option<ClientIpConfig>,
}

/// `spec.sessionAffinityConfig.clientIP`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientIpConfig {
    /// Seconds, 10800 when left out.
    pub timeout_seconds: Option<i64>,
}

/// `status` of a Service.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceStatus {
    /// What a load balancer controller has given.
    pub load_balancer: LoadBalancerStatus,
}

/// `status.loadBalancer`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LoadBalancerStatus {
    /// Addresses.
    pub ingress: Vec<LoadBalancerIngress>,
}

/// One of `status.loadBalancer.ingress`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LoadBalancerIngress {
    /// Address; empty when only a hostname is known.
    pub ip: Option<String>,
    /// VIP (default) or Proxy.
    pub ip_mode: Option<String>,
    /// Hostname.
    pub hostname: Option<String>,
}
