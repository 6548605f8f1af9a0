//! Under which address a pod's packets arrive: real ones, between three namespaces.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use agent::config::{MasqueradeBackend, OverlayOptions};
use agent::reconcile::Reconciler as _;
use agent::reconcile::masquerade::{MasqueradeLoop, MasqueradeSettings};
use hostnet::netns::{self, Netns};
use hostnet::{Netlink, PROTOCOL_BOOT};
use netstate::{Address, IfName, Link, LinkKind, Route, VethPeer};
use pretty_assertions::assert_eq;

use super::{LOOK, in_new_namespace, two_nodes};

const POD: &str = "10.244.1.5";
const NODE: &str = "172.30.0.1";
/// Another node, one of its pods, and a host outside of the cluster: all behind one interface.
const OTHER_NODE: &str = "172.30.0.2";
const OTHER_POD: &str = "10.244.2.7";
const OUTSIDE: &str = "192.0.2.9";

fn name(text: &str) -> IfName {
    text.parse().unwrap()
}

/// A pair with one end here and the other as `eth0` in `other`, both up with their addresses.
fn wire(here: &str, other: &Netns, near: &[&str], far: &[&str]) {
    let mut netlink = Netlink::open().unwrap();
    let mut inside = Netlink::open_in(other).unwrap();
    let peer = VethPeer {
        name: name("eth0"),
        netns: Some(other.path().to_str().unwrap().parse().unwrap()),
        mac: None,
    };
    let link = Link::new(name(here), LinkKind::Veth(peer)).up();
    netlink.create_link(&link).unwrap();
    inside.set_up(&name("eth0")).unwrap();
    for (netlink, device, addresses) in [(&mut netlink, here, near), (&mut inside, "eth0", far)] {
        for address in addresses {
            let address = Address::new(address.parse().unwrap());
            netlink.add_address(&name(device), &address).unwrap();
        }
    }
}

/// The network: this node between a pod of its own and everybody else.
struct Network {
    pod: Netns,
    others: Netns,
    folder: tempfile::TempDir,
}

impl Network {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let make = |name: &str| netns::create_at(&folder.path().join(name)).unwrap();
        let (pod, others) = (make("pod"), make("others"));
        wire("veth0", &pod, &["10.244.1.1/24"], &["10.244.1.5/24"]);
        let far = ["172.30.0.2/24", "10.244.2.7/32", "192.0.2.9/32"];
        wire("eth0", &others, &["172.30.0.1/24"], &far);
        let route = |to: &str, via: &str, device: &str| {
            Route::via_device(to.parse().unwrap(), name(device)).gateway(via.parse().unwrap())
        };
        let add = |netlink: &mut Netlink, route: &Route| {
            netlink.add_route(route, PROTOCOL_BOOT).unwrap();
        };
        let mut netlink = Netlink::open().unwrap();
        add(&mut netlink, &route("10.244.2.0/24", OTHER_NODE, "eth0"));
        add(&mut netlink, &route("0.0.0.0/0", OTHER_NODE, "eth0"));
        let mut inside = Netlink::open_in(&pod).unwrap();
        add(&mut inside, &route("0.0.0.0/0", "10.244.1.1", "eth0"));
        let mut inside = Netlink::open_in(&others).unwrap();
        add(&mut inside, &route("10.244.1.0/24", NODE, "eth0"));
        hostnet::sysctl::write("net/ipv4/ip_forward", "1").unwrap();
        Self {
            pod,
            others,
            folder,
        }
    }

    /// The source under which a packet from the pod to `to` arrives, and an answer comes back.
    fn seen_at(&self, to: &str) -> IpAddr {
        let open = |place: &Netns, at: &str| {
            let socket = place.run_in(|| UdpSocket::bind((at, 0)).unwrap()).unwrap();
            let patience = Some(Duration::from_secs(5));
            socket.set_read_timeout(patience).unwrap();
            socket
        };
        let (from, at) = (open(&self.pod, POD), open(&self.others, to));
        let target: SocketAddr = at.local_addr().unwrap();
        from.send_to(b"ping", target).unwrap();
        let mut buffer = [0; 16];
        let (_, source) = at.recv_from(&mut buffer).unwrap();
        at.send_to(b"pong", source).unwrap();
        let (_, answerer) = from.recv_from(&mut buffer).unwrap();
        assert_eq!(answerer, target, "the answer comes from whom was asked");
        source.ip()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in ["pod", "others"] {
            netns::delete_at(&self.folder.path().join(name)).unwrap();
        }
    }
}

/// The sources seen at another pod, another node and outside.
fn sources(options: OverlayOptions) -> [String; 3] {
    let (told, seen) = std::sync::mpsc::channel();
    in_new_namespace(move || {
        let network = Network::new();
        let settings = MasqueradeSettings {
            options,
            ..MasqueradeSettings::default()
        };
        let mut keeper = MasqueradeLoop::open(&settings).unwrap();
        let report = keeper.pass(&Arc::new(two_nodes()), LOOK);
        assert!(report.errors.is_empty(), "{:?}", report.errors);
        let at = |to| network.seen_at(to).to_string();
        told.send([OTHER_POD, OTHER_NODE, OUTSIDE].map(at)).unwrap();
    });
    seen.recv().unwrap()
}

const BACKENDS: [MasqueradeBackend; 2] = [MasqueradeBackend::Nftables, MasqueradeBackend::Iptables];

#[test]
fn only_what_leaves_the_cluster_has_the_nodes_address() {
    for backend in BACKENDS {
        let options = OverlayOptions {
            backend,
            ..OverlayOptions::default()
        };
        assert_eq!(sources(options), [POD, POD, NODE], "{backend:?}");
    }
}

#[test]
fn nodes_see_the_nodes_address_if_that_was_asked_for() {
    for backend in BACKENDS {
        let mut options = OverlayOptions {
            backend,
            ..OverlayOptions::default()
        };
        options.rules.nodes = true;
        assert_eq!(sources(options), [POD, NODE, NODE], "{backend:?}");
    }
}

#[test]
fn without_masquerade_everybody_sees_the_pod() {
    for backend in BACKENDS {
        let mut options = OverlayOptions {
            backend,
            ..OverlayOptions::default()
        };
        options.rules.masquerade = false;
        // The host outside has a way back only for this.
        assert_eq!(sources(options), [POD, POD, POD], "{backend:?}");
    }
}

#[test]
fn pods_pass_where_others_drop_if_iptables_accepts_them() {
    in_new_namespace(|| {
        let network = Network::new();
        super::run("iptables", &["-P", "FORWARD", "DROP"]);
        let options = OverlayOptions {
            backend: MasqueradeBackend::Iptables,
            ..OverlayOptions::default()
        };
        let settings = MasqueradeSettings {
            options,
            ..MasqueradeSettings::default()
        };
        let mut keeper = MasqueradeLoop::open(&settings).unwrap();
        keeper.pass(&Arc::new(two_nodes()), LOOK);
        assert_eq!(network.seen_at(OTHER_POD).to_string(), POD);
    });
}
