//! Which endpoints a service port has, and which of them get new flows.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::cluster::{EndpointSlice, ServicePort};
use crate::names::{NodeName, PodName, PortNumber};

/// What an endpoint's conditions mean to us; the better one is the greater one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Readiness {
    /// Neither ready nor serving: gets nothing.
    NotReady,
    /// Serving while it terminates: keeps its flows, gets new ones when nothing is ready.
    Draining,
    /// Ready.
    Ready,
}

/// One endpoint of a service port, merged from all slices that name it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// Its address.
    pub address: IpAddr,
    /// Its port: the target port, resolved.
    pub port: PortNumber,
    /// Whether it is on this node.
    pub local: bool,
    /// Its conditions.
    pub readiness: Readiness,
    /// Its node, when the slice says.
    pub node: Option<NodeName>,
    /// The pod behind it, when the slice says.
    pub pod: Option<PodName>,
}

/// The endpoints of a service port, in order of address and port.
///
/// A port of a slice belongs to the service port of the same name and protocol. An endpoint that
/// several slices name (it moves between slices at times) has the best of its conditions.
pub(crate) fn endpoints<'a>(
    port: &ServicePort,
    slices: impl IntoIterator<Item = &'a EndpointSlice>,
    this_node: &NodeName,
) -> Vec<Endpoint> {
    let mut merged: BTreeMap<(IpAddr, PortNumber), Endpoint> = BTreeMap::new();
    for slice in slices {
        let same = slice
            .ports
            .iter()
            .filter(|other| other.name == port.name && other.protocol == port.protocol);
        for number in same.filter_map(|other| other.port) {
            for endpoint in &slice.endpoints {
                let Some(&address) = endpoint.addresses.first() else {
                    continue;
                };
                let readiness = match (endpoint.ready, endpoint.serving && endpoint.terminating) {
                    (true, _) => Readiness::Ready,
                    (false, true) => Readiness::Draining,
                    (false, false) => Readiness::NotReady,
                };
                let local = endpoint.node.as_ref() == Some(this_node);
                let known = merged.entry((address, number)).or_insert_with(|| Endpoint {
                    address,
                    port: number,
                    local,
                    readiness,
                    node: endpoint.node.clone(),
                    pod: endpoint.pod.clone(),
                });
                known.local |= local;
                known.readiness = known.readiness.max(readiness);
            }
        }
    }
    merged.into_values().collect()
}

/// Endpoints in slot order: those on this node first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SlotList<'a> {
    pub(crate) endpoints: Vec<&'a Endpoint>,
    /// How many of them, the first ones, are on this node.
    pub(crate) local: usize,
}

impl<'a> SlotList<'a> {
    fn new(local: Vec<&'a Endpoint>, remote: Vec<&'a Endpoint>) -> Self {
        let count = local.len();
        Self {
            endpoints: local.into_iter().chain(remote).collect(),
            local: count,
        }
    }
}

/// For frontends that use all endpoints: the ready ones, else those that drain.
pub(crate) fn cluster_slots(endpoints: &[Endpoint]) -> SlotList<'_> {
    let (local, remote) = usable(endpoints.iter())
        .into_iter()
        .partition(|one| one.local);
    SlotList::new(local, remote)
}

/// For frontends that use this node's endpoints only: the choice between ready and draining ones
/// is made among this node's (KEP-1669). Remote ones follow because a frontend tells "none here"
/// (drop) from "none anywhere" (refuse) by their number.
pub(crate) fn local_slots(endpoints: &[Endpoint]) -> SlotList<'_> {
    let local = usable(endpoints.iter().filter(|one| one.local));
    let remote = usable(endpoints.iter());
    SlotList::new(local, remote.into_iter().filter(|one| !one.local).collect())
}

/// The endpoints that a frontend uses, and whether there are others it does not use because they
/// are elsewhere. `local` must say what is local to the client's node.
pub(crate) fn slot_endpoints(endpoints: &[Endpoint], local_only: bool) -> (Vec<&Endpoint>, bool) {
    if !local_only {
        return (cluster_slots(endpoints).endpoints, false);
    }
    let SlotList {
        mut endpoints,
        local,
    } = local_slots(endpoints);
    let elsewhere = endpoints.len() > local;
    endpoints.truncate(local);
    (endpoints, elsewhere)
}

fn usable<'a>(endpoints: impl Iterator<Item = &'a Endpoint> + Clone) -> Vec<&'a Endpoint> {
    let best = endpoints.clone().map(|one| one.readiness).max();
    match best {
        None | Some(Readiness::NotReady) => Vec::new(),
        Some(best) => endpoints.filter(|one| one.readiness == best).collect(),
    }
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;

    use super::*;
    use crate::cluster::SliceEndpoint;
    use crate::fixture::{address, service, slice};
    use crate::names::Protocol::Tcp;

    fn conditions(ready: bool, serving: bool, terminating: bool) -> SliceEndpoint {
        SliceEndpoint {
            ready,
            serving,
            terminating,
            ..SliceEndpoint::ready(address("10.244.9.9"))
        }
    }

    fn on(node: &str, last: u8, readiness: Readiness) -> Endpoint {
        Endpoint {
            address: IpAddr::from([10, 244, 0, last]),
            port: crate::fixture::port(80),
            local: node == "n1",
            readiness,
            node: Some(node.parse().unwrap()),
            pod: None,
        }
    }

    fn last_octets(list: &SlotList<'_>) -> (Vec<u8>, usize) {
        let last = |one: &&Endpoint| match one.address {
            IpAddr::V4(v4) => v4.octets()[3],
            IpAddr::V6(v6) => v6.octets()[15],
        };
        (list.endpoints.iter().map(last).collect(), list.local)
    }

    #[test]
    fn slices_are_merged_by_address_and_port() {
        let port = service("a/web", "10.96.0.1")
            .with_port("http", Tcp, 80)
            .ports
            .remove(0);
        let moving = |slice: EndpointSlice, one: SliceEndpoint| {
            slice
                .with_port("http", Tcp, 8080)
                .with_port("other", Tcp, 9090)
                .with_endpoint(one)
        };
        let old = moving(slice("a/web-1", "web"), conditions(false, false, false));
        let new = moving(slice("a/web-2", "web"), conditions(true, true, false))
            .with_ready("10.244.1.1", "n1");
        let found: Vec<_> = endpoints(&port, [&old, &new], &"n1".parse().unwrap())
            .iter()
            .map(|one| {
                format!(
                    "{}:{} {:?} {}",
                    one.address, one.port, one.readiness, one.local
                )
            })
            .collect();
        assert_eq!(
            found,
            ["10.244.1.1:8080 Ready true", "10.244.9.9:8080 Ready false"]
        );
    }

    #[test]
    fn conditions_become_readiness() {
        let port = service("a/web", "10.96.0.1")
            .with_port("", Tcp, 80)
            .ports
            .remove(0);
        let readiness = |one| {
            let slice = slice("a/web-1", "web")
                .with_port("", Tcp, 80)
                .with_endpoint(one);
            endpoints(&port, [&slice], &"n1".parse().unwrap())[0].readiness
        };
        assert_eq!(readiness(conditions(true, true, false)), Readiness::Ready);
        assert_eq!(readiness(conditions(true, true, true)), Readiness::Ready);
        assert_eq!(
            readiness(conditions(false, true, true)),
            Readiness::Draining
        );
        assert_eq!(
            readiness(conditions(false, false, true)),
            Readiness::NotReady
        );
        assert_eq!(
            readiness(conditions(false, true, false)),
            Readiness::NotReady
        );
    }

    #[test]
    fn draining_endpoints_are_used_when_nothing_is_ready() {
        use Readiness::{Draining, NotReady, Ready};
        let all = [
            on("n2", 1, Ready),
            on("n1", 2, Draining),
            on("n1", 3, Ready),
        ];
        assert_eq!(last_octets(&cluster_slots(&all)), (vec![3, 1], 1));
        let none_ready = [
            on("n2", 1, Draining),
            on("n1", 2, Draining),
            on("n1", 3, NotReady),
        ];
        assert_eq!(last_octets(&cluster_slots(&none_ready)), (vec![2, 1], 1));
        assert_eq!(
            last_octets(&cluster_slots(&[on("n1", 1, NotReady)])),
            (vec![], 0)
        );
    }

    #[test]
    fn the_local_choice_is_made_among_local_endpoints() {
        use Readiness::{Draining, NotReady, Ready};
        let all = [on("n2", 1, Ready), on("n1", 2, Draining)];
        assert_eq!(last_octets(&cluster_slots(&all)), (vec![1], 0));
        assert_eq!(last_octets(&local_slots(&all)), (vec![2, 1], 1));
        let elsewhere = [on("n2", 1, Ready), on("n1", 2, NotReady)];
        assert_eq!(last_octets(&local_slots(&elsewhere)), (vec![1], 0));
    }
}
