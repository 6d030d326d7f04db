//! Services for rows, one line each.

use std::net::IpAddr;

use lb_userspace::model::desired::{
    Algorithm, Backend, Frontend, FrontendKind, Protocol, Service, ServicePortName,
};

use super::net::{At, Net};

/// The port that backends of rows listen on.
pub const TARGET_PORT: u16 = 8080;

/// A service port with its backends.
#[derive(Clone, Debug)]
pub struct Svc {
    net: Net,
    name: ServicePortName,
    service: Service,
}

impl Svc {
    /// A ClusterIP service at `at`, answered by pods with these numbers. All of them are on other nodes.
    pub fn new(net: Net, protocol: Protocol, at: At, pods: &[u8]) -> Self {
        let name = ServicePortName {
            namespace: "rows".to_owned(),
            name: format!("at-{}-{}", at.0, at.1),
            port: String::new(),
            protocol,
            family: net.family(),
        };
        let backend = |n: &u8| Backend {
            addr: net.pod(*n),
            port: TARGET_PORT,
            local: false,
            ready: true,
            serving: true,
            terminating: false,
            weight: 1,
            target: String::new(),
        };
        let service = Service {
            frontends: vec![Frontend { addr: at.0, port: at.1, kind: FrontendKind::ClusterIp }],
            backends: pods.iter().map(backend).collect(),
            cluster: None,
            local: None,
            has_any_endpoints: false,
            internal_local: false,
            external_local: false,
            affinity_timeout_s: None,
            algorithm: Algorithm::RoundRobin,
            source_ranges: Vec::new(),
            health_check_node_port: 0,
        };
        Self { net, name, service }
    }

    /// Name and service, with the lists of B5.
    pub fn finish(&self) -> (ServicePortName, Service) {
        let mut service = self.service.clone();
        let all = &service.backends;
        let usable = |local: bool| {
            let on_it = |i: &usize| !local || all[*i].local;
            let ready: Vec<usize> = (0..all.len()).filter(|i| all[*i].ready).filter(on_it).collect();
            let going = (0..all.len()).filter(|i| all[*i].serving && all[*i].terminating).filter(on_it);
            if ready.is_empty() { going.collect() } else { ready }
        };
        service.cluster = Some(usable(false));
        service.local = Some(usable(true));
        service.has_any_endpoints = service.cluster.as_ref().is_some_and(|list| !list.is_empty());
        (self.name.clone(), service)
    }

    fn frontend(mut self, addr: IpAddr, port: u16, kind: FrontendKind) -> Self {
        self.service.frontends.push(Frontend { addr, port, kind });
        self
    }

    /// With an address of `externalIPs` on the service's port.
    #[must_use]
    pub fn external_ip(self, addr: IpAddr) -> Self {
        let port = self.service.frontends[0].port;
        self.frontend(addr, port, FrontendKind::ExternalIp)
    }

    /// With a load balancer's address on the service's port.
    #[must_use]
    pub fn load_balancer(self, addr: IpAddr) -> Self {
        let port = self.service.frontends[0].port;
        self.frontend(addr, port, FrontendKind::LoadBalancer)
    }

    /// With a node port on the node's first address.
    #[must_use]
    pub fn node_port(self, port: u16) -> Self {
        let addr = self.net.node();
        self.frontend(addr, port, FrontendKind::NodePort)
    }

    /// With another ClusterIP.
    #[must_use]
    pub fn cluster_ip(self, addr: IpAddr) -> Self {
        let port = self.service.frontends[0].port;
        self.frontend(addr, port, FrontendKind::ClusterIp)
    }

    fn each(mut self, pods: &[u8], change: impl Fn(&mut Backend)) -> Self {
        for n in pods {
            let addr = self.net.pod(*n);
            self.service.backends.iter_mut().filter(|backend| backend.addr == addr).for_each(&change);
        }
        self
    }

    /// These pods are on this node.
    #[must_use]
    pub fn local(self, pods: &[u8]) -> Self {
        self.each(pods, |backend| backend.local = true)
    }

    /// These pods are not ready, nor serving.
    #[must_use]
    pub fn not_ready(self, pods: &[u8]) -> Self {
        self.each(pods, |backend| (backend.ready, backend.serving) = (false, false))
    }

    /// These pods terminate, and serve until they are gone.
    #[must_use]
    pub fn terminating(self, pods: &[u8]) -> Self {
        self.each(pods, |backend| (backend.ready, backend.serving, backend.terminating) = (false, true, true))
    }

    /// This pod has another weight than 1.
    #[must_use]
    pub fn weight(self, pod: u8, weight: u16) -> Self {
        self.each(&[pod], |backend| backend.weight = weight)
    }

    /// This pod listens on another port (B3).
    #[must_use]
    pub fn target(self, pod: u8, port: u16) -> Self {
        self.each(&[pod], |backend| backend.port = port)
    }

    /// This pod has a port with this number as well.
    #[must_use]
    pub fn also(mut self, pod: u8, port: u16) -> Self {
        let addr = self.net.pod(pod);
        let backends = &mut self.service.backends;
        if let Some(mut backend) = backends.iter().find(|backend| backend.addr == addr).cloned() {
            backend.port = port;
            backends.push(backend);
            backends.sort();
        }
        self
    }

    /// Chooses another way.
    #[must_use]
    pub fn algorithm(mut self, algorithm: Algorithm) -> Self {
        self.service.algorithm = algorithm;
        self
    }

    /// `sessionAffinity: ClientIP`.
    #[must_use]
    pub fn affinity(mut self, timeout_s: u32) -> Self {
        self.service.affinity_timeout_s = Some(timeout_s);
        self
    }

    /// `internalTrafficPolicy: Local`.
    #[must_use]
    pub fn internal_local(mut self) -> Self {
        self.service.internal_local = true;
        self
    }

    /// `externalTrafficPolicy: Local`.
    #[must_use]
    pub fn external_local(mut self) -> Self {
        self.service.external_local = true;
        self
    }

    /// `loadBalancerSourceRanges` with the range around an address.
    #[must_use]
    pub fn only_from(mut self, addr: IpAddr) -> Self {
        self.service.source_ranges.push(self.net.range(addr));
        self
    }
}
