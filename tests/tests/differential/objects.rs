//! Worlds as Kubernetes objects, and through the real model.

use ipnet::IpNet;
use lb_tests::rows::net::Net;
use lb_userspace::model::desired::Desired;
use lb_userspace::model::{Allocations, Interface, ModelConfig, NodePortAddresses, build};
use lb_userspace::source::{Objects, document};
use serde_json::{Value, json};

use super::world::{
    Around, Endpoint, Hints, Mode, Place, Proto, Range, Service, Slice, Sort, World, node_port, vip,
};

/// What the control plane makes of a world.
pub(crate) fn desired(world: &World) -> Desired {
    let mut objects = Objects::default();
    for value in values(world) {
        match document::decode(value) {
            Ok(Some(object)) => objects.insert(object.into()),
            other => panic!("not an object: {other:?}"),
        }
    }
    build(&config(&world.around), &objects, &Allocations::default()).desired
}

/// The objects, as YAML or JSON would hold them.
pub(crate) fn values(world: &World) -> Vec<Value> {
    let mut values = Vec::new();
    for (number, service) in world.services.iter().enumerate() {
        let Some(service) = service else { continue };
        values.push(service_object(number, service));
        let slices = service.slices.iter().enumerate();
        values.extend(slices.map(|(index, slice)| slice_object(number, service, index, slice)));
    }
    values
}

fn config(around: &Around) -> ModelConfig {
    let addresses = Net::BOTH.map(|net| [net.node(), net.node_second()].map(IpNet::from)).concat();
    let ranges = |texts: [&str; 2]| texts.map(|text| text.parse().expect("a range")).to_vec();
    ModelConfig {
        node_name: "here".to_owned(),
        zone: Some(if around.zone_known { "z1" } else { "" }.to_owned()),
        interfaces: vec![Interface { name: "eth0".to_owned(), addresses }],
        primary: Net::BOTH.map(Net::node).to_vec(),
        nodeport_addresses: if around.all_node_addresses {
            NodePortAddresses::Ranges(Vec::new())
        } else {
            NodePortAddresses::Primary
        },
        service_cidrs: ranges(["10.96.0.0/12", "fd00:96::/32"]),
        pod_cidrs: if around.pods_known { ranges(["10.1.0.0/16", "fd00:1::/32"]) } else { Vec::new() },
        masquerade_all: around.masquerade_all,
        allow_external_cluster_ip: around.external_cluster_ip,
        vip_ping: around.vip_ping,
        ..ModelConfig::default()
    }
}

fn nets(families: [bool; 2]) -> impl Iterator<Item = Net> {
    Net::BOTH.into_iter().zip(families).filter(|(_, has)| *has).map(|(net, _)| net)
}

fn name(number: usize) -> (String, String) {
    (format!("n{}", number % 2), format!("s{number}"))
}

fn protocol(protocol: Proto) -> &'static str {
    match protocol {
        Proto::Tcp => "TCP",
        Proto::Udp => "UDP",
        Proto::Sctp => "SCTP",
    }
}

fn service_object(number: usize, service: &Service) -> Value {
    let (namespace, name) = name(number);
    let has_node_ports = matches!(service.sort, Sort::NodePort | Sort::LoadBalancer);
    let ports: Vec<Value> = service
        .ports
        .iter()
        .enumerate()
        .map(|(index, port)| {
            let mut value = json!({
                "name": service.port_name(index), "protocol": protocol(port.protocol), "port": port.port,
            });
            if has_node_ports {
                value["nodePort"] = node_port(number, index).into();
            }
            value
        })
        .collect();
    let headless = matches!(service.sort, Sort::Headless);
    let addresses: Vec<String> = if headless {
        vec!["None".to_owned()]
    } else {
        nets(service.families).map(|net| net.vip(vip(number)).to_string()).collect()
    };
    // Blanks are tolerated (V7).
    let ranges: Vec<String> =
        service.ranges.iter().map(|(range, net)| format!(" {} ", range_of(*range, *net))).collect();
    let external_ips: Vec<String> = service
        .external_ips
        .iter()
        .flat_map(|n| nets(service.families).map(|net| net.public(*n).to_string()))
        .collect();
    let mut labels = json!({});
    if service.sort == Sort::Foreign {
        labels["service.kubernetes.io/service-proxy-name"] = "other".into();
    }
    let mut annotations = json!({});
    if !service.algorithm.is_empty() {
        annotations["lb.io/algorithm"] = service.algorithm.into();
    }
    let policy = |local| if local { "Local" } else { "Cluster" };
    let mut value = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": namespace, "name": name, "labels": labels, "annotations": annotations},
        "spec": {
            "type": match service.sort {
                Sort::ClusterIp | Sort::Headless | Sort::Foreign => "ClusterIP",
                Sort::NodePort => "NodePort",
                Sort::LoadBalancer => "LoadBalancer",
                Sort::ExternalName => "ExternalName",
            },
            "clusterIP": addresses[0], "clusterIPs": addresses, "ports": ports,
            "internalTrafficPolicy": policy(service.internal_local),
            "externalTrafficPolicy": policy(service.external_local),
            "externalIPs": external_ips,
        },
    });
    if service.affinity {
        value["spec"]["sessionAffinity"] = "ClientIP".into();
    }
    if service.sort == Sort::LoadBalancer {
        value["spec"]["loadBalancerSourceRanges"] = json!(ranges);
        let ingress: Vec<Value> = service
            .ingress
            .iter()
            .flat_map(|(n, mode)| {
                nets(service.families).map(move |net| match mode {
                    Mode::Unset => json!({"ip": net.public(*n)}),
                    Mode::Vip => json!({"ip": net.public(*n), "ipMode": "VIP"}),
                    Mode::Proxy => json!({"ip": net.public(*n), "ipMode": "Proxy"}),
                })
            })
            .collect();
        value["status"] = json!({"loadBalancer": {"ingress": ingress}});
    }
    value
}

/// A source range, in words of the API.
pub(crate) fn range_of(range: Range, net: Net) -> IpNet {
    net.range(match range {
        Range::Clients => net.client(1),
        Range::Outside => net.outside(1),
        Range::Node => net.node(),
    })
}

fn slice_object(number: usize, service: &Service, index: usize, slice: &Slice) -> Value {
    let (namespace, name) = name(number);
    let (net, other) = if slice.v6 { (Net::V6, Net::V4) } else { (Net::V4, Net::V6) };
    let ports: Vec<Value> = service
        .slice_ports(slice)
        .iter()
        .map(|(index, proto, number)| {
            json!({"name": service.port_name(*index), "protocol": protocol(*proto), "port": number})
        })
        .collect();
    let endpoints: Vec<Value> = slice
        .endpoints
        .iter()
        .map(|endpoint| {
            endpoint_object(
                endpoint,
                if endpoint.stray { other } else { net },
                &service.hints[usize::from(endpoint.pod) - 1],
            )
        })
        .collect();
    let mut labels = json!({"kubernetes.io/service-name": name});
    if slice.headless {
        labels["service.kubernetes.io/headless"] = "".into();
    }
    let mut annotations = json!({});
    if let Some(weight) = slice.weight {
        annotations["lb.io/weight"] = weight.to_string().into();
    }
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "namespace": namespace, "name": format!("{name}-{index}"), "labels": labels, "annotations": annotations,
        },
        "addressType": if slice.v6 { "IPv6" } else { "IPv4" },
        "ports": ports, "endpoints": endpoints,
    })
}

fn endpoint_object(endpoint: &Endpoint, net: Net, hints: &Hints) -> Value {
    let mut addresses = vec![net.pod(endpoint.pod).to_string()];
    if endpoint.second {
        addresses.push(net.pod(99).to_string());
    }
    let mut conditions = json!({});
    for (key, value) in
        [("ready", endpoint.ready), ("serving", endpoint.serving), ("terminating", endpoint.terminating)]
    {
        if let Some(value) = value {
            conditions[key] = value.into();
        }
    }
    let names = |names: &[&str]| -> Vec<Value> { names.iter().map(|name| json!({"name": name})).collect() };
    let mut value = json!({
        "addresses": addresses, "conditions": conditions,
        "hints": {"forZones": names(&hints.zones), "forNodes": names(&hints.nodes)},
    });
    match endpoint.place {
        Place::Here => value["nodeName"] = "here".into(),
        Place::There => value["nodeName"] = "there".into(),
        Place::Unset => {}
    }
    value
}
