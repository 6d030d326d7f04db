//! The desired state as text, for people and for tests: everything in it, one fact a line, in fixed order.

use std::fmt::{self, Write};
use std::net::{IpAddr, SocketAddr};

use super::desired::{Algorithm, Backend, Desired, Family, FrontendKind, Service, Surroundings};

/// Writes the desired state as text.
pub fn dump(desired: &Desired) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write_all(&mut out, desired);
    out
}

fn write_all(out: &mut String, desired: &Desired) -> fmt::Result {
    surroundings(out, &desired.surroundings)?;
    for (name, service) in &desired.services {
        let family = if name.family == Family::V4 { "IPv4" } else { "IPv6" };
        writeln!(out, "service {name} {family} {}", algorithm(service.algorithm))?;
        write_service(out, service)?;
    }
    Ok(())
}

fn surroundings(out: &mut String, known: &Surroundings) -> fmt::Result {
    list(out, "node addresses", &known.node_addresses)?;
    list(out, "masquerade addresses", &known.masquerade_addresses)?;
    list(out, "pod ranges", &known.pod_cidrs)?;
    list(out, "service ranges", &known.service_cidrs)?;
    let switches = [
        (known.masquerade_all, "masquerade-all"),
        (known.allow_external_cluster_ip, "external-cluster-ip=allow"),
        (known.no_vip_ping, "vip-ping=off"),
    ];
    for (_, name) in switches.iter().filter(|(on, _)| *on) {
        writeln!(out, "{name}")?;
    }
    Ok(())
}

fn list<T: fmt::Display>(out: &mut String, name: &str, items: &[T]) -> fmt::Result {
    if items.is_empty() {
        return Ok(());
    }
    let texts: Vec<_> = items.iter().map(ToString::to_string).collect();
    writeln!(out, "{name} {}", texts.join(" "))
}

fn write_service(out: &mut String, service: &Service) -> fmt::Result {
    for frontend in &service.frontends {
        let kind = match frontend.kind {
            FrontendKind::ClusterIp => "ClusterIP",
            FrontendKind::NodePort => "NodePort",
            FrontendKind::ExternalIp => "ExternalIP",
            FrontendKind::LoadBalancer => "LoadBalancer",
        };
        writeln!(out, "  frontend {} {kind}", socket(frontend.addr, frontend.port))?;
    }
    if service.internal_local {
        writeln!(out, "  internal policy Local")?;
    }
    if service.external_local {
        writeln!(out, "  external policy Local")?;
    }
    if let Some(seconds) = service.affinity_timeout_s {
        writeln!(out, "  affinity {seconds} s")?;
    }
    list(out, "  source ranges", &service.source_ranges)?;
    if service.health_check_node_port != 0 {
        writeln!(out, "  health check port {}", service.health_check_node_port)?;
    }
    for backend in &service.backends {
        write_backend(out, backend)?;
    }
    for (name, indices) in [("cluster", &service.cluster), ("local", &service.local)] {
        if let Some(indices) = indices {
            let members = indices.iter().filter_map(|index| service.backends.get(*index));
            let texts: Vec<_> =
                members.map(|backend| socket(backend.addr, backend.port).to_string()).collect();
            writeln!(
                out,
                "  {name} list: {}",
                if texts.is_empty() { "nobody".to_owned() } else { texts.join(" ") }
            )?;
        }
    }
    if !service.has_any_endpoints {
        writeln!(out, "  nobody anywhere")?;
    }
    Ok(())
}

fn write_backend(out: &mut String, backend: &Backend) -> fmt::Result {
    write!(out, "  backend {}", socket(backend.addr, backend.port))?;
    let words = [
        (backend.local, "local"),
        (backend.ready, "ready"),
        (backend.serving && !backend.ready, "serving"),
        (backend.terminating, "terminating"),
    ];
    for (_, word) in words.iter().filter(|(on, _)| *on) {
        write!(out, " {word}")?;
    }
    if backend.weight != 1 {
        write!(out, " weight {}", backend.weight)?;
    }
    if !backend.target.is_empty() {
        write!(out, " ({})", backend.target)?;
    }
    writeln!(out)
}

fn socket(addr: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(addr, port)
}

fn algorithm(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::RoundRobin => "round-robin",
        Algorithm::Random => "random",
        Algorithm::Maglev => "maglev",
        Algorithm::LeastConnections => "least-connections",
        Algorithm::Weighted => "weighted",
    }
}
