//! Rules as kube-proxy's iptables mode lays them out: one list of all Services, a chain for each Service and endpoint.

use std::fmt::Write as _;

use super::rules::Rule;
use crate::manifests::POD_CIDR;

/// What `iptables-restore` is to read.
pub(crate) fn rules(services: impl Iterator<Item = Rule>) -> String {
    let (mut names, mut list, mut chains) = (String::new(), String::new(), String::new());
    for Rule { number, service, endpoint } in services {
        let (service_chain, endpoint_chain) =
            (format!("KUBE-SVC-{number:016}"), format!("KUBE-SEP-{number:016}"));
        let (ip, port, to) = (service.ip(), service.port(), endpoint.ip());
        let comment = format!("-m comment --comment \"default/s{number}\"");
        let matches = format!("-d {ip}/32 -p tcp -m tcp --dport {port}");
        // Writing to a string never fails.
        let _infallible = writeln!(names, ":{service_chain} - [0:0]\n:{endpoint_chain} - [0:0]");
        let _infallible = writeln!(list, "-A KUBE-SERVICES {matches} {comment} -j {service_chain}");
        let _infallible = writeln!(
            chains,
            "-A {service_chain} ! -s {POD_CIDR} {matches} {comment} -j KUBE-MARK-MASQ\n\
             -A {service_chain} {comment} -j {endpoint_chain}\n\
             -A {endpoint_chain} -s {to}/32 {comment} -j KUBE-MARK-MASQ\n\
             -A {endpoint_chain} -p tcp {comment} -m tcp -j DNAT --to-destination {endpoint}"
        );
    }
    format!(
        "*filter
:KUBE-EXTERNAL-SERVICES - [0:0]
:KUBE-FIREWALL - [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
:KUBE-SERVICES - [0:0]
-A INPUT -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL
-A INPUT -j KUBE-NODEPORTS
-A INPUT -m conntrack --ctstate NEW -j KUBE-EXTERNAL-SERVICES
-A INPUT -j KUBE-FIREWALL
-A FORWARD -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL
-A FORWARD -j KUBE-FORWARD
-A FORWARD -m conntrack --ctstate NEW -j KUBE-SERVICES
-A FORWARD -m conntrack --ctstate NEW -j KUBE-EXTERNAL-SERVICES
-A OUTPUT -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL
-A OUTPUT -m conntrack --ctstate NEW -j KUBE-SERVICES
-A OUTPUT -j KUBE-FIREWALL
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
*nat
:KUBE-MARK-MASQ - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-SERVICES - [0:0]
{names}-A PREROUTING -j KUBE-SERVICES
-A OUTPUT -j KUBE-SERVICES
-A POSTROUTING -j KUBE-POSTROUTING
-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000
-A KUBE-POSTROUTING -j MASQUERADE --random-fully
{list}-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
{chains}COMMIT
"
    )
}
