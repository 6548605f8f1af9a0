//! Builders for tests: a small cluster in a few readable lines.
//!
//! Arguments are literals of the test, so a wrong one panics.
#![allow(
    clippy::unwrap_used,
    reason = "only tests build this; a wrong literal is a broken test"
)]
#![allow(
    clippy::missing_panics_doc,
    reason = "every builder panics on a wrong literal"
)]

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use crate::cluster::{
    Announced, Backend, Cluster, ContainerPort, EndpointId, EndpointSlice, LocalEndpoint,
    Namespace, NetworkPolicy, Node, Peer, Pod, PodPeer, PolicyPort, PortMatch, Rule, Service,
    ServicePort, SliceEndpoint, SlicePort, ThisNode,
};
use crate::ip_block::IpBlock;
use crate::labels::{LabelSelector, Labels};
use crate::lease::attributes::VxlanData;
use crate::names::{PortNumber, Protocol};
use crate::routes::{Carrier, Overlay, Underlay};

/// A complete, empty snapshot of a cluster with pod network 10.244.0.0/16, seen from `node`,
/// whose own address is 172.30.0.1.
#[must_use]
pub fn cluster(node: &str) -> Cluster {
    let this_node = ThisNode {
        name: node.parse().unwrap(),
        addresses: BTreeSet::from(["172.30.0.1".parse().unwrap()]),
    };
    let mut cluster = Cluster::new(this_node, vec!["10.244.0.0/16".parse().unwrap()]);
    cluster.complete = true;
    cluster
}

impl Cluster {
    /// With a node.
    #[must_use]
    pub fn with_node(mut self, node: Node) -> Self {
        self.nodes.insert(node.name.clone(), Arc::new(node));
        self
    }

    /// With a namespace.
    #[must_use]
    pub fn with_namespace(mut self, namespace: Namespace) -> Self {
        self.namespaces
            .insert(namespace.name.clone(), Arc::new(namespace));
        self
    }

    /// With a pod, which nothing has registered.
    #[must_use]
    pub fn with_pod(mut self, pod: Pod) -> Self {
        self.pods.insert(pod.name.clone(), Arc::new(pod));
        self
    }

    /// With a pod on this node, registered on host interface number `ifindex`.
    #[must_use]
    pub fn with_local_pod(mut self, mut pod: Pod, ifindex: u32) -> Self {
        pod.node = Some(self.this_node.name.clone());
        let endpoint = local_endpoint(&pod, ifindex);
        self.local_endpoints
            .insert(endpoint.id.clone(), Arc::new(endpoint));
        self.with_pod(pod)
    }

    /// With a service.
    #[must_use]
    pub fn with_service(mut self, service: Service) -> Self {
        self.services
            .insert(service.name.clone(), Arc::new(service));
        self
    }

    /// With an endpoint slice.
    #[must_use]
    pub fn with_slice(mut self, slice: EndpointSlice) -> Self {
        self.endpoint_slices
            .insert(slice.name.clone(), Arc::new(slice));
        self
    }

    /// With a network policy.
    #[must_use]
    pub fn with_policy(mut self, policy: NetworkPolicy) -> Self {
        self.network_policies
            .insert(policy.name.clone(), Arc::new(policy));
        self
    }
}

/// The registration of a pod's `eth0` with host interface `veth<ifindex>`.
#[must_use]
pub fn local_endpoint(pod: &Pod, ifindex: u32) -> LocalEndpoint {
    LocalEndpoint {
        id: EndpointId {
            container_id: format!("container-{ifindex}"),
            ifname: "eth0".parse().unwrap(),
        },
        pod: pod.name.clone(),
        uid: Some(pod.uid.clone()),
        host_interface: format!("veth{ifindex}").parse().unwrap(),
        host_ifindex: ifindex,
        netns_cookie: 1000 + u64::from(ifindex),
        addresses: pod.addresses.clone(),
    }
}

/// Node `name` with pod prefix `pod_cidr`, announcing VNI 1, `mac` and `public_ip`.
#[must_use]
pub fn node(name: &str, pod_cidr: &str, mac: &str, public_ip: &str) -> Node {
    let data = VxlanData {
        vni: 1.try_into().unwrap(),
        vtep_mac: mac.parse().unwrap(),
    };
    let announced = Announced {
        public_ip: Some(public_ip.parse().unwrap()),
        public_ipv6: None,
        backend: Backend::Vxlan {
            v4: Some(data),
            v6: None,
        },
    };
    Node {
        pod_cidrs: vec![pod_cidr.parse().unwrap()],
        addresses: vec![public_ip.parse().unwrap()],
        announced: Some(announced),
        ..Node::new(name.parse().unwrap())
    }
}

/// The overlay of a node on `eth0` of 172.30.0.0/24, by `flannel.1` with VNI 1 and `mac`.
#[must_use]
pub fn overlay(mac: &str, public_ip: &str) -> Overlay {
    Overlay {
        blackhole: false,
        v4: Some(Underlay {
            public_ip: public_ip.parse().unwrap(),
            uplink: "eth0".parse().unwrap(),
            adjacent: vec!["172.30.0.0/24".parse().unwrap()],
            carrier: Carrier::Vxlan {
                device: "flannel.1".parse().unwrap(),
                vni: 1.try_into().unwrap(),
                mac: mac.parse().unwrap(),
                direct_routing: false,
            },
        }),
        v6: None,
    }
}

/// A namespace with labels `key=value`, and the one that every namespace has.
#[must_use]
pub fn namespace(name: &str, labels: &[&str]) -> Namespace {
    let mut all = parse_labels(labels);
    all.insert("kubernetes.io/metadata.name".to_owned(), name.to_owned());
    Namespace {
        name: name.parse().unwrap(),
        labels: all,
    }
}

/// Labels from `key=value`.
#[must_use]
pub fn parse_labels(labels: &[&str]) -> Labels {
    labels
        .iter()
        .map(|label| label.split_once('=').unwrap())
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// A selector from `key=value`.
#[must_use]
pub fn selector(labels: &[&str]) -> LabelSelector {
    parse_labels(labels)
        .iter()
        .fold(LabelSelector::everything(), |selector, (key, value)| {
            selector.with_label(key, value)
        })
}

/// Pod `namespace/name` with an address and labels `key=value`.
#[must_use]
pub fn pod(name: &str, address: &str, labels: &[&str]) -> Pod {
    let uid = format!("uid-{}", name.replace('/', "-"));
    let mut pod = Pod::new(name.parse().unwrap(), uid.parse().unwrap());
    pod.addresses = vec![address.parse().unwrap()];
    pod.labels = parse_labels(labels);
    pod
}

impl Pod {
    /// With a named container port.
    #[must_use]
    pub fn with_port(mut self, name: &str, protocol: Protocol, number: u16) -> Self {
        let number = port(number);
        self.ports.push(ContainerPort {
            name: Some(name.to_owned()),
            protocol,
            number,
        });
        self
    }
}

/// A port number.
#[must_use]
pub fn port(number: u16) -> PortNumber {
    PortNumber::try_from(i32::from(number)).unwrap()
}

/// ClusterIP Service `namespace/name` on one address.
#[must_use]
pub fn service(name: &str, cluster_ip: &str) -> Service {
    Service {
        cluster_ips: vec![address(cluster_ip)],
        ..Service::new(name.parse().unwrap())
    }
}

impl Service {
    /// With a port.
    #[must_use]
    pub fn with_port(mut self, name: &str, protocol: Protocol, number: u16) -> Self {
        let name = name.to_owned();
        self.ports.push(ServicePort {
            name,
            protocol,
            port: port(number),
            node_port: None,
        });
        self
    }
}

/// Slice `namespace/name` of a service of the same namespace.
#[must_use]
pub fn slice(name: &str, service: &str) -> EndpointSlice {
    let name: crate::names::SliceName = name.parse().unwrap();
    let service = format!("{}/{service}", name.namespace).parse().unwrap();
    EndpointSlice::new(name, Some(service))
}

impl EndpointSlice {
    /// With a resolved target port.
    #[must_use]
    pub fn with_port(mut self, name: &str, protocol: Protocol, number: u16) -> Self {
        self.ports.push(SlicePort {
            name: name.to_owned(),
            protocol,
            port: Some(port(number)),
        });
        self
    }

    /// With a ready endpoint on a node.
    #[must_use]
    pub fn with_ready(self, endpoint: &str, node: &str) -> Self {
        self.with_endpoint(SliceEndpoint {
            node: Some(node.parse().unwrap()),
            ..SliceEndpoint::ready(address(endpoint))
        })
    }

    /// With an endpoint.
    #[must_use]
    pub fn with_endpoint(mut self, endpoint: SliceEndpoint) -> Self {
        self.endpoints.push(endpoint);
        self
    }
}

/// An address.
#[must_use]
pub fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Policy `namespace/name` for the pods with labels `key=value`, isolating no direction yet.
#[must_use]
pub fn policy(name: &str, pods: &[&str]) -> NetworkPolicy {
    NetworkPolicy {
        name: name.parse().unwrap(),
        pod_selector: selector(pods),
        ingress: None,
        egress: None,
    }
}

impl NetworkPolicy {
    /// Isolating ingress, with these exceptions.
    #[must_use]
    pub fn ingress(mut self, rules: impl IntoIterator<Item = Rule>) -> Self {
        self.ingress = Some(rules.into_iter().collect());
        self
    }

    /// Isolating egress, with these exceptions.
    #[must_use]
    pub fn egress(mut self, rules: impl IntoIterator<Item = Rule>) -> Self {
        self.egress = Some(rules.into_iter().collect());
        self
    }
}

impl Rule {
    /// A rule for any peer and any port.
    #[must_use]
    pub fn any() -> Self {
        Self::default()
    }

    /// Also for pods of the policy's namespace.
    #[must_use]
    pub fn pods(self, pods: &[&str]) -> Self {
        self.peer(Peer::Pods(PodPeer {
            namespaces: None,
            pods: selector(pods),
        }))
    }

    /// Also for pods of other namespaces.
    #[must_use]
    pub fn pods_in(self, namespaces: &[&str], pods: &[&str]) -> Self {
        let namespaces = Some(selector(namespaces));
        self.peer(Peer::Pods(PodPeer {
            namespaces,
            pods: selector(pods),
        }))
    }

    /// Also for a block of addresses.
    #[must_use]
    pub fn block(self, cidr: &str, except: &[&str]) -> Self {
        let except = except.iter().map(|part| part.parse().unwrap());
        self.peer(Peer::IpBlock(
            IpBlock::new(cidr.parse().unwrap(), except).unwrap(),
        ))
    }

    /// Also for this peer.
    #[must_use]
    pub fn peer(mut self, peer: Peer) -> Self {
        self.peers.get_or_insert_default().push(peer);
        self
    }

    /// Also on these ports of a protocol, both ends included.
    #[must_use]
    pub fn ports(self, protocol: Protocol, from: u16, to: u16) -> Self {
        self.port(protocol, PortMatch::Range(port(from), port(to)))
    }

    /// Also on this match.
    #[must_use]
    pub fn port(mut self, protocol: Protocol, port: PortMatch) -> Self {
        self.ports
            .get_or_insert_default()
            .push(PolicyPort { protocol, port });
        self
    }
}
