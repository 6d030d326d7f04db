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

/// Sorts endpoints into lists.
pub fn categorize(question: Question<'_>, endpoints: &[ModelEndpoint]) -> Lists {
    let mut lists = Lists::default();
    if question.uses_cluster {
        let hints = hints_to_follow(question, endpoints);
        let cluster = usable(endpoints, |endpoint| match hints {
            _ if !endpoint.backend.ready => true,
            Hints::None => true,
            Hints::Node => endpoint.node_hints.contains(question.node_name),
            Hints::Zone => endpoint.zone_hints.contains(question.zone),
        });
        lists.has_any_endpoints = !cluster.is_empty();
        lists.cluster = Some(cluster);
    }
    if question.uses_local {
        lists.local = Some(usable(endpoints, |endpoint| endpoint.backend.local));
        lists.has_any_endpoints |= !usable(endpoints, |_| true).is_empty();
    }
    lists
}

/// B5: those that are ready; if none is, those that serve while terminating.
fn usable(endpoints: &[ModelEndpoint], wanted: impl Fn(&ModelEndpoint) -> bool) -> Vec<usize> {
    let select = |state: fn(&ModelEndpoint) -> bool| -> Vec<usize> {
        let matching =
            endpoints.iter().enumerate().filter(|(_, endpoint)| state(endpoint) && wanted(endpoint));
        matching.map(|(index, _)| index).collect()
    };
    let ready = select(|endpoint| endpoint.backend.ready);
    if !ready.is_empty() {
        return ready;
    }
    select(|endpoint| !endpoint.backend.ready && endpoint.backend.serving && endpoint.backend.terminating)
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
