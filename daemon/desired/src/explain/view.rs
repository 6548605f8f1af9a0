//! The snapshot as an explanation needs it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ebpf_shared::protocol::{ICMP, ICMPV6};

use super::{Destination, End, ExplainError, Explanation, Frontend, Path, Place, Verdict, unknown};
use crate::cluster::{Cluster, Lease, Node, Pod, Service, ServicePort, TrafficPolicy};
use crate::names::{NodeName, PodName, PortNumber, Protocol, ServiceName};
use crate::policy::Direction;
use crate::policy::evaluate::{Decision, Flow, decide};
use crate::services::{endpoints_of, is_programmed, slot_endpoints};

pub(super) struct View<'a> {
    cluster: &'a Cluster,
    owners: BTreeMap<IpAddr, &'a Pod>,
}

/// A frontend, its target endpoints, and whether there are any elsewhere.
struct Targets {
    frontend: Frontend,
    used: Vec<(IpAddr, PortNumber)>,
    elsewhere: bool,
}

impl<'a> View<'a> {
    pub(super) fn new(cluster: &'a Cluster) -> Self {
        Self {
            cluster,
            owners: cluster.pods_by_address(),
        }
    }

    /// Where a source may send from.
    pub(super) fn source_addresses(&self, place: &Place) -> Result<Vec<IpAddr>, ExplainError> {
        match place {
            Place::Address(address) => Ok(vec![*address]),
            Place::Named(namespace, name) => {
                let name = PodName {
                    namespace: namespace.clone(),
                    name: name.clone(),
                };
                let pod = self.cluster.pods.get(&name);
                let pod = pod.ok_or_else(|| unknown("source", place, "pod"))?;
                self.pod_addresses(pod, "source")
            }
        }
    }

    /// Where a destination may be reached.
    pub(super) fn destination_addresses(
        &self,
        wanted: &Destination,
        source: &Place,
    ) -> Result<Vec<IpAddr>, ExplainError> {
        let (namespace, name) = match &wanted.place {
            Place::Address(address) => return Ok(vec![*address]),
            Place::Named(namespace, name) => (namespace.clone(), name.clone()),
        };
        let service = ServiceName {
            namespace: namespace.clone(),
            name: name.clone(),
        };
        let service = self.cluster.services.get(&service);
        let pod = self.cluster.pods.get(&PodName { namespace, name });
        // A pod asked for itself means the pod, even when a service has its name.
        let itself = *source == wanted.place;
        match (service, pod) {
            (Some(service), None) => service_addresses(service),
            (Some(service), Some(_)) if !itself && has_port(service, wanted) => {
                service_addresses(service)
            }
            (_, Some(pod)) => self.pod_addresses(pod, "destination"),
            (None, None) => Err(unknown("destination", &wanted.place, "pod or service")),
        }
    }

    fn pod_addresses(&self, pod: &Pod, what: &'static str) -> Result<Vec<IpAddr>, ExplainError> {
        let mut addresses = pod.addresses.clone();
        let registered = self.cluster.local_endpoints.values();
        let registered = registered.filter(|endpoint| endpoint.pod == pod.name);
        addresses.extend(registered.flat_map(|endpoint| &endpoint.addresses));
        some_address(addresses, what, &pod.name)
    }

    fn end(&self, address: IpAddr) -> End {
        let pod = self.owners.get(&address).copied();
        let node = match pod {
            Some(pod) => pod.node.clone(),
            None => self.node_of(address),
        };
        let here = pod.filter(|pod| pod.node.as_ref() == Some(&self.cluster.this_node.name));
        let in_force = here.map(|pod| self.cluster.complete && self.is_registered(pod));
        End {
            address,
            pod: pod.map(|pod| pod.name.clone()),
            node,
            in_force,
        }
    }

    fn is_registered(&self, pod: &Pod) -> bool {
        let mut endpoints = self.cluster.local_endpoints.values();
        endpoints.any(|one| {
            self.cluster
                .pod_of(one)
                .is_some_and(|other| other.name == pod.name)
        })
    }

    /// The node that has an address itself.
    fn node_of(&self, address: IpAddr) -> Option<NodeName> {
        if self.cluster.own_addresses().contains(&address) {
            return Some(self.cluster.this_node.name.clone());
        }
        let has = |node: &Node| {
            let leased = Lease::of_node(node);
            node.addresses.contains(&address) || leased.node_addresses().any(|one| one == address)
        };
        let mut nodes = self.cluster.nodes.values();
        nodes.find(|node| has(node)).map(|node| node.name.clone())
    }

    /// The whole answer for one pair of addresses.
    pub(super) fn explain(
        &self,
        source: IpAddr,
        dialled: IpAddr,
        port: Option<(PortNumber, Protocol)>,
    ) -> Explanation {
        let source = self.end(source);
        let targets =
            port.and_then(|(port, protocol)| self.targets(&source, dialled, port, protocol));
        let ends = match &targets {
            None => vec![(dialled, port.map(|(port, _)| port))],
            Some(targets) => targets
                .used
                .iter()
                .map(|&(address, port)| (address, Some(port)))
                .collect(),
        };
        let protocol = port.map(|(_, protocol)| protocol);
        let paths: Vec<_> = ends
            .into_iter()
            .map(|(address, port)| self.path(&source, address, port, protocol))
            .collect();
        Explanation {
            source,
            dialled: self.end(dialled),
            port,
            verdict: verdict(targets.as_ref(), &paths, protocol),
            frontend: targets.map(|targets| targets.frontend),
            paths,
        }
    }

    fn targets(
        &self,
        source: &End,
        dialled: IpAddr,
        port: PortNumber,
        protocol: Protocol,
    ) -> Option<Targets> {
        let inside = source.pod.is_some() || source.node.is_some();
        let mut programmed = self
            .cluster
            .services
            .values()
            .filter(|one| is_programmed(one));
        let (service, service_port, local_only) = programmed.find_map(|service| {
            let local_only = local_only(service, dialled, inside)?;
            Some((service, port_of(service, port, protocol)?, local_only))
        })?;
        let (name, mut endpoints) = endpoints_of(self.cluster, &service.name)
            .into_iter()
            .find(|(name, _)| name.port == service_port.name && name.protocol == protocol)?;
        // The client's node decides what is local; a stranger's traffic arrives here.
        let client_node = source.node.as_ref().unwrap_or(&self.cluster.this_node.name);
        endpoints.retain(|one| one.address.is_ipv4() == dialled.is_ipv4());
        for one in &mut endpoints {
            one.local = one.node.as_ref() == Some(client_node);
        }
        let (used, elsewhere) = slot_endpoints(&endpoints, local_only);
        let used = used
            .into_iter()
            .map(|one| (one.address, one.port))
            .collect();
        let frontend = Frontend {
            service: name,
            local_only,
            affinity_seconds: service.affinity_seconds,
            endpoints,
        };
        Some(Targets {
            frontend,
            used,
            elsewhere,
        })
    }

    fn path(
        &self,
        source: &End,
        address: IpAddr,
        port: Option<PortNumber>,
        protocol: Option<Protocol>,
    ) -> Path {
        let destination = self.end(address);
        let icmp = if address.is_ipv4() { ICMP } else { ICMPV6 };
        let protocol = protocol.map_or(icmp, Protocol::number);
        let port = port.map(PortNumber::get);
        let decide = |direction, subject: &End, peer: &End| {
            let peer_is_own_node =
                peer.pod.is_none() && peer.node.is_some() && peer.node == subject.node;
            let flow = Flow {
                subject: self.owners.get(&subject.address).copied()?,
                direction,
                peer: peer.address,
                peer_pod: self.owners.get(&peer.address).copied(),
                peer_is_own_node,
                protocol,
                port: port.unwrap_or_default(),
            };
            Some(decide(self.cluster, &flow))
        };
        let egress = decide(Direction::Egress, source, &destination);
        let ingress = decide(Direction::Ingress, &destination, source);
        let hairpin = source.address == address;
        let passes = |decision: &Option<Decision>| decision.as_ref().is_none_or(Decision::allows);
        let ready = source.in_force != Some(false) && destination.in_force != Some(false);
        let open = ready && (hairpin || (passes(&egress) && passes(&ingress)));
        Path {
            destination,
            port,
            egress,
            ingress,
            hairpin,
            open,
        }
    }
}

fn verdict(targets: Option<&Targets>, paths: &[Path], protocol: Option<Protocol>) -> Verdict {
    let open = paths.iter().filter(|path| path.open).count();
    match targets {
        Some(_) if protocol == Some(Protocol::Sctp) => Verdict::Unsupported,
        Some(targets) if paths.is_empty() && targets.elsewhere => Verdict::NoLocalEndpoint,
        _ if paths.is_empty() => Verdict::Refused,
        _ if open == paths.len() => Verdict::Allowed,
        _ if open == 0 => Verdict::Denied,
        _ => Verdict::Partly,
    }
}

/// Whether a service answers at an address, and then whether with the client's node's endpoints
/// only.
fn local_only(service: &Service, address: IpAddr, inside: bool) -> Option<bool> {
    let local = |policy| policy == TrafficPolicy::Local;
    if service.cluster_ips.contains(&address) {
        return inside.then_some(local(service.internal_traffic_policy));
    }
    let mut outside = service
        .external_ips
        .iter()
        .chain(&service.load_balancer_ips);
    let answers = outside.any(|one| *one == address);
    answers.then_some(!inside && local(service.external_traffic_policy))
}

fn port_of(service: &Service, port: PortNumber, protocol: Protocol) -> Option<&ServicePort> {
    service
        .ports
        .iter()
        .find(|one| one.port == port && one.protocol == protocol)
}

fn has_port(service: &Service, wanted: &Destination) -> bool {
    let asked = wanted.port;
    asked.is_some_and(|(port, protocol)| port_of(service, port, protocol).is_some())
}

fn service_addresses(service: &Service) -> Result<Vec<IpAddr>, ExplainError> {
    some_address(service.cluster_ips.clone(), "destination", &service.name)
}

fn some_address(
    addresses: Vec<IpAddr>,
    what: &'static str,
    name: &impl ToString,
) -> Result<Vec<IpAddr>, ExplainError> {
    if addresses.is_empty() {
        let name = name.to_string();
        return Err(ExplainError::NoAddress {
            what,
            name,
            family: "yet",
        });
    }
    Ok(addresses)
}
