//! Which backends each traffic policy may use (B5, B6, V1–V4).

use super::endpoints::ModelEndpoint;

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Some traffic goes by Cluster policy.
    pub uses_cluster: bool,
    /// Some traffic goes by Local policy.
    pub uses_local: bool,
    /// Name of this node, for node hints.
    pub node_name: &'a str,
    /// Zone of this node, empty when unknown.
    pub zone: &'a str,
    /// Whether node hints count.
    pub node_hints: bool,
}

/// The lists that policies choose from, as indices into the endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lists {
    /// Under Cluster policy; `None` = no traffic goes by it.
    pub cluster: Option<Vec<usize>>,
    /// Under Local policy; `None` = no traffic goes by it.
    pub local: Option<Vec<usize>>,
    /// False: nobody answers on any node, so that an empty list rejects (V1) instead of dropping (V2).
    pub has_any_endpoints: bool,
}

impl Lists {
    /// All that can be reached from this node, in order.
    pub fn reachable(&self) -> Vec<usize> {
        let mut all: Vec<_> = self.cluster.iter().chain(&self.local).flatten().copied().collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// Whose hints are followed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hints {
    None,
    Node,
    Zone,
}

/// Why an endpoint is in a list, or is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// In: it is ready.
    Ready,
    /// In: no endpoint of the list is ready, and it still serves while it terminates.
    LastResort,
    /// Out: not ready, while others are or nobody can take their place.
    NotReady,
    /// Out: on its way out, while others are ready.
    Terminating,
    /// Out: meant for other nodes.
    OtherNode,
    /// Out: meant for other zones.
    OtherZone,
    /// Out: not on this node.
    Remote,
}

impl Standing {
    /// Whether it takes new connections.
    pub const fn is_in(self) -> bool {
        matches!(self, Self::Ready | Self::LastResort)
    }
}

/// The standing of every endpoint in the lists that policies choose from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standings {
    /// Under Cluster policy; `None` = no traffic goes by it.
    pub cluster: Option<Vec<Standing>>,
    /// Under Local policy; `None` = no traffic goes by it.
    pub local: Option<Vec<Standing>>,
}

/// Says for each endpoint why it is in a list or is not.
pub fn standings(question: Question<'_>, endpoints: &[ModelEndpoint]) -> Standings {
    let cluster = || {
        let hints = hints_to_follow(question, endpoints);
        judge(endpoints, |endpoint| match hints {
            _ if !endpoint.backend.ready => None,
            Hints::Node if !endpoint.node_hints.contains(question.node_name) => Some(Standing::OtherNode),
            Hints::Zone if !endpoint.zone_hints.contains(question.zone) => Some(Standing::OtherZone),
            Hints::None | Hints::Node | Hints::Zone => None,
        })
    };
    let local = || judge(endpoints, |endpoint| (!endpoint.backend.local).then_some(Standing::Remote));
    Standings { cluster: question.uses_cluster.then(cluster), local: question.uses_local.then(local) }
}

/// Sorts endpoints into lists.
pub fn categorize(question: Question<'_>, endpoints: &[ModelEndpoint]) -> Lists {
    let standings = standings(question, endpoints);
    let chosen = |list: &Vec<Standing>| -> Vec<usize> {
        list.iter().enumerate().filter(|(_, standing)| standing.is_in()).map(|(index, _)| index).collect()
    };
    let cluster = standings.cluster.as_ref().map(chosen);
    let mut has_any_endpoints = cluster.as_ref().is_some_and(|list| !list.is_empty());
    if question.uses_local {
        has_any_endpoints |= judge(endpoints, |_| None).iter().any(|standing| standing.is_in());
    }
    Lists { cluster, local: standings.local.as_ref().map(chosen), has_any_endpoints }
}

/// B5: those that are ready; if none is, those that serve while terminating. `left_out` names those of other rules.
fn judge(
    endpoints: &[ModelEndpoint],
    left_out: impl Fn(&ModelEndpoint) -> Option<Standing>,
) -> Vec<Standing> {
    let mut list: Vec<_> = endpoints
        .iter()
        .map(|endpoint| {
            let backend = &endpoint.backend;
            left_out(endpoint).unwrap_or(match (backend.ready, backend.serving && backend.terminating) {
                (true, _) => Standing::Ready,
                (false, true) => Standing::LastResort,
                (false, false) => Standing::NotReady,
            })
        })
        .collect();
    if list.contains(&Standing::Ready) {
        for standing in list.iter_mut().filter(|standing| **standing == Standing::LastResort) {
            *standing = Standing::Terminating;
        }
    }
    list
}

/// B6: hints count only if every ready endpoint has them and one is meant for us.
fn hints_to_follow(question: Question<'_>, endpoints: &[ModelEndpoint]) -> Hints {
    let ready = || endpoints.iter().filter(|endpoint| endpoint.backend.ready);
    if question.node_hints
        && ready().all(|endpoint| !endpoint.node_hints.is_empty())
        && ready().any(|endpoint| endpoint.node_hints.contains(question.node_name))
    {
        return Hints::Node;
    }
    if !question.zone.is_empty()
        && ready().all(|endpoint| !endpoint.zone_hints.is_empty())
        && ready().any(|endpoint| endpoint.zone_hints.contains(question.zone))
    {
        return Hints::Zone;
    }
    Hints::None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::desired::Backend;

    fn endpoint(index: u8, state: &str, zones: &[&str], nodes: &[&str]) -> ModelEndpoint {
        ModelEndpoint {
            backend: Backend {
                addr: [10, 0, 0, index].into(),
                port: 80,
                local: state.contains('l'),
                ready: state.contains('r'),
                serving: state.contains('r') || state.contains('s'),
                terminating: state.contains('t'),
                weight: 1,
                target: String::new(),
            },
            zone_hints: zones.iter().map(|zone| (*zone).to_owned()).collect(),
            node_hints: nodes.iter().map(|node| (*node).to_owned()).collect(),
        }
    }

    const ASK: Question<'_> =
        Question { uses_cluster: true, uses_local: true, node_name: "n", zone: "z", node_hints: true };

    #[test]
    fn b5_each_list_falls_back_on_its_own() {
        let endpoints =
            [endpoint(0, "r", &[], &[]), endpoint(1, "lst", &[], &[]), endpoint(2, "lt", &[], &[])];
        let lists = categorize(ASK, &endpoints);
        assert_eq!(
            (lists.cluster, lists.local, lists.has_any_endpoints),
            (Some(vec![0]), Some(vec![1]), true)
        );
    }

    #[test]
    fn every_standing_has_its_reason() {
        use Standing::{LastResort, NotReady, OtherNode, OtherZone, Ready, Remote, Terminating};
        let endpoints = [
            endpoint(0, "r", &[], &["n"]),
            endpoint(1, "lr", &[], &["m"]),
            endpoint(2, "st", &[], &[]),
            endpoint(3, "l", &[], &[]),
        ];
        let found = standings(ASK, &endpoints);
        assert_eq!(found.cluster, Some(vec![Ready, OtherNode, Terminating, NotReady]));
        assert_eq!(found.local, Some(vec![Remote, Ready, Remote, NotReady]));
        let zones = [endpoint(0, "r", &["y"], &[]), endpoint(1, "r", &["z"], &[])];
        assert_eq!(standings(ASK, &zones).cluster, Some(vec![OtherZone, Ready]));
        let last = standings(ASK, &endpoints[2..]);
        assert_eq!(last.cluster, Some(vec![LastResort, NotReady]));
    }

    #[test]
    fn b6_node_hints_before_zone_hints() {
        let endpoints = [endpoint(0, "r", &["z"], &["m"]), endpoint(1, "r", &["y"], &["n"])];
        assert_eq!(categorize(ASK, &endpoints).cluster, Some(vec![1]));
        assert_eq!(categorize(Question { node_hints: false, ..ASK }, &endpoints).cluster, Some(vec![0]));
        assert_eq!(categorize(Question { node_name: "o", ..ASK }, &endpoints).cluster, Some(vec![0]));
        assert_eq!(
            categorize(Question { node_name: "o", zone: "", ..ASK }, &endpoints).cluster,
            Some(vec![0, 1])
        );
    }

    #[test]
    fn b6_one_ready_endpoint_without_hints_switches_them_off() {
        let endpoints =
            [endpoint(0, "r", &["z"], &[]), endpoint(1, "r", &[], &[]), endpoint(2, "", &[], &[])];
        assert_eq!(categorize(ASK, &endpoints).cluster, Some(vec![0, 1]));
        assert_eq!(categorize(ASK, &[endpoints[0].clone(), endpoints[2].clone()]).cluster, Some(vec![0]));
    }

    #[test]
    fn v1_v2_somebody_elsewhere_is_not_nobody() {
        let local_only = Question { uses_cluster: false, ..ASK };
        let remote = categorize(local_only, &[endpoint(0, "r", &[], &[])]);
        assert_eq!((remote.cluster, remote.local, remote.has_any_endpoints), (None, Some(vec![]), true));
        let nobody = categorize(local_only, &[endpoint(0, "", &[], &[])]);
        assert!(!nobody.has_any_endpoints);
    }
}
