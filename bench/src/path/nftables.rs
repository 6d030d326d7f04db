//! Rules as kube-proxy's nftables mode lays them out: verdict maps, a chain for each Service and endpoint, connection tracking,
//! marks for masquerading.

use std::fmt::Write as _;

use super::rules::Rule;
use crate::manifests::POD_CIDR;

/// The chains that every cluster has.
const BASE: &str = r"
table ip kube-proxy {
 set cluster-ips { type ipv4_addr; }
 set nodeport-ips { type ipv4_addr; elements = { 172.31.0.1 } }
 map no-endpoint-services { type ipv4_addr . inet_proto . inet_service : verdict; }
 map no-endpoint-nodeports { type inet_proto . inet_service : verdict; }
 map firewall-ips { type ipv4_addr . inet_proto . inet_service : verdict; }
 map service-ips { type ipv4_addr . inet_proto . inet_service : verdict; }
 map service-nodeports { type inet_proto . inet_service : verdict; }
 chain mark-for-masquerade { meta mark set meta mark or 0x4000; }
 chain masquerading { meta mark & 0x4000 == 0 return; meta mark set meta mark xor 0x4000; masquerade fully-random; }
 chain reject-chain { reject; }
 chain cluster-ips-check { ip daddr @cluster-ips reject; ip daddr 10.96.0.0/12 drop; }
 chain firewall-check { ip daddr . meta l4proto . th dport vmap @firewall-ips; }
 chain service-endpoints-check { ip daddr . meta l4proto . th dport vmap @no-endpoint-services; }
 chain nodeport-endpoints-check { ip daddr @nodeport-ips meta l4proto . th dport vmap @no-endpoint-nodeports; }
 chain services {
  ip daddr . meta l4proto . th dport vmap @service-ips;
  ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports;
 }
 chain filter-prerouting { type filter hook prerouting priority -110; ct state new jump firewall-check; }
 chain filter-input { type filter hook input priority -110; ct state new jump nodeport-endpoints-check; ct state new jump service-endpoints-check; }
 chain filter-forward { type filter hook forward priority -110; ct state new jump service-endpoints-check; ct state new jump cluster-ips-check; }
 chain filter-output { type filter hook output priority -110; ct state new jump service-endpoints-check; ct state new jump firewall-check; }
 chain filter-output-post-dnat { type filter hook output priority -90; ct state new jump cluster-ips-check; }
 chain nat-prerouting { type nat hook prerouting priority -100; jump services; }
 chain nat-output { type nat hook output priority -100; jump services; }
 chain nat-postrouting { type nat hook postrouting priority 100; jump masquerading; }
}
";

/// What `nft -f` is to read.
pub(crate) fn rules(services: impl Iterator<Item = Rule>) -> String {
    let (mut chains, mut ips, mut map) = (String::new(), String::new(), String::new());
    for Rule { number, service, endpoint } in services {
        let (ip, port) = (service.ip(), service.port());
        let (to, name) = (endpoint.ip(), format!("S{number:08}-default/s{number}/tcp/"));
        // Writing to a string never fails.
        let _infallible = write!(
            chains,
            " chain endpoint-{name}__{to}/{} {{ ip saddr {to} jump mark-for-masquerade; meta l4proto tcp dnat to {endpoint}; }}\n \
             chain service-{name} {{ ip daddr {ip} tcp dport {port} ip saddr != {POD_CIDR} jump mark-for-masquerade; \
             numgen random mod 1 vmap {{ 0 : goto endpoint-{name}__{to}/{} }}; }}\n",
            endpoint.port(),
            endpoint.port(),
        );
        let _infallible = write!(ips, "{ip}, ");
        let _infallible = write!(map, "{ip} . tcp . {port} : goto service-{name}, ");
    }
    format!(
        "{BASE}table ip kube-proxy {{\n{chains}}}\nadd element ip kube-proxy cluster-ips {{ {ips} }}\n\
         add element ip kube-proxy service-ips {{ {map} }}\n"
    )
}
