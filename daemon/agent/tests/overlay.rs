//! The overlay loop against a real kernel, in a network namespace of the test's own. Needs root.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use agent::config::{NetConf, UplinkChoice};
use agent::lease::Lease;
use agent::reconcile::overlay::{OverlayLoop, OverlaySettings};
use agent::reconcile::{Pass, Reconciler};
use agent::subnet_file::SubnetFiles;
use desired::cluster::{Backend, Cluster, Node};
use desired::fixture;
use hostnet::{Netlink, PROTOCOL_TOWLINE};
use netstate::{Address, IfName, Link, LinkKind, MacAddr, VethPeer, Vxlan};
use nix::sched::{CloneFlags, unshare};
use pretty_assertions::assert_eq;
use tokio::sync::watch;

const LOOK: Pass = Pass {
    changed: false,
    look: true,
};

/// A namespace with an uplink `eth0` (172.30.0.1), and an overlay loop in it.
struct Host {
    overlay: OverlayLoop,
    lease: watch::Receiver<Option<Lease>>,
    netlink: Netlink,
    subnet_file: PathBuf,
    _folder: tempfile::TempDir,
}

/// Runs `test` on a thread in a new network namespace, which ends with the thread.
fn in_new_namespace(test: impl FnOnce(Host) + Send + 'static) {
    assert!(
        nix::unistd::geteuid().is_root(),
        "this test makes a network namespace: run it as root"
    );
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        test(Host::new());
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

impl Host {
    fn new() -> Self {
        let mut netlink = Netlink::open().unwrap();
        let peer = VethPeer {
            name: name("eth0p"),
            netns: None,
            mac: None,
        };
        netlink
            .create_link(&Link::new(name("eth0"), LinkKind::Veth(peer)).up())
            .unwrap();
        netlink.set_up(&name("eth0p")).unwrap();
        netlink.set_up(&name("lo")).unwrap();
        let address = Address::new("172.30.0.1/24".parse().unwrap());
        netlink.add_address(&name("eth0"), &address).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let subnet_file = folder.path().join("subnet.env");
        let conf = r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}"#;
        let settings = OverlaySettings {
            net: NetConf::parse("net-conf.json", conf).unwrap(),
            uplink: UplinkChoice::default(),
            ip_masq: true,
            subnet_files: SubnetFiles::new(vec![subnet_file.clone()]),
        };
        let (lease_in, lease) = watch::channel(None);
        let overlay = OverlayLoop::open(settings, lease_in).unwrap();
        Self {
            overlay,
            lease,
            netlink,
            subnet_file,
            _folder: folder,
        }
    }

    fn pass(&mut self, cluster: &Cluster) -> (usize, usize) {
        let report = self.overlay.pass(&Arc::new(cluster.clone()), LOOK);
        assert!(report.errors.is_empty(), "{:?}", report.errors);
        (report.puts, report.deletes)
    }

    fn routes(&mut self) -> Vec<String> {
        let routes = self.netlink.routes(Some(PROTOCOL_TOWLINE)).unwrap();
        let shown = routes.iter().map(|route| {
            let via = route.gateway.unwrap();
            let device = route.device.as_ref().unwrap();
            format!(
                "{} via {via} dev {device} onlink {}",
                route.key.destination, route.onlink
            )
        });
        shown.collect()
    }
}

/// The IPv4 device's MAC that others are told.
fn told_mac(lease: &Lease) -> Option<MacAddr> {
    match &lease.announced.backend {
        Backend::Vxlan { v4, .. } => v4.map(|data| data.vtep_mac),
        _ => None,
    }
}

fn name(text: &str) -> IfName {
    text.parse().unwrap()
}

fn own_node() -> Node {
    let mut node = Node::new("n1".parse().unwrap());
    node.pod_cidrs = vec!["10.244.0.0/24".parse().unwrap()];
    node.addresses = vec!["172.30.0.1".parse().unwrap()];
    node
}

fn peer(number: u8) -> Node {
    fixture::node(
        &format!("n{number}"),
        &format!("10.244.{number}.0/24"),
        &format!("02:00:00:00:00:{number:02x}"),
        &format!("172.30.0.{number}"),
    )
}

#[test]
fn peers_come_and_go_and_drift_is_put_right() {
    in_new_namespace(|mut host| {
        let alone = fixture::cluster("n1").with_node(own_node());
        let both = alone.clone().with_node(peer(2)).with_node(peer(3));
        host.pass(&both);
        let wanted = [
            "10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink true",
            "10.244.3.0/24 via 10.244.3.0 dev flannel.1 onlink true",
        ];
        assert_eq!(host.routes(), wanted);
        assert_eq!(
            host.netlink.neighbours(&name("flannel.1")).unwrap().len(),
            2
        );
        assert_eq!(host.netlink.fdb(&name("flannel.1")).unwrap().len(), 2);
        assert_eq!(host.pass(&both), (0, 0));

        let device = host.netlink.link(&name("flannel.1")).unwrap().unwrap();
        assert_eq!(device.mtu.unwrap().get(), 1450);
        assert!(device.up);
        let addresses = host.netlink.addresses(&name("flannel.1")).unwrap();
        let v4: Vec<_> = addresses
            .iter()
            .filter(|a| a.ip.is_ipv4())
            .map(|a| a.ip.to_string())
            .collect();
        assert_eq!(v4, ["10.244.0.0/32"]);
        let text = std::fs::read_to_string(&host.subnet_file).unwrap();
        assert_eq!(
            text,
            "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.0.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
        );
        let lease = host.lease.borrow().clone().unwrap();
        assert_eq!(lease.announced.public_ip, "172.30.0.1".parse().ok());
        assert_eq!(told_mac(&lease), device.mac);

        // Down and up loses routes and neighbours; deletion loses everything.
        host.netlink.set_down(&name("flannel.1")).unwrap();
        host.pass(&both);
        assert_eq!(host.routes(), wanted);
        host.netlink.delete_link(&name("flannel.1")).unwrap();
        host.pass(&both);
        assert_eq!(host.routes(), wanted);
        let again = host.netlink.link(&name("flannel.1")).unwrap().unwrap();
        assert_eq!(again.mac, device.mac, "others go on by the MAC they know");

        host.pass(&alone.clone().with_node(peer(3)));
        assert_eq!(host.routes(), [wanted[1]]);
        assert_eq!(
            host.netlink.neighbours(&name("flannel.1")).unwrap().len(),
            1
        );
        assert_eq!(host.netlink.fdb(&name("flannel.1")).unwrap().len(), 1);
        host.pass(&alone);
        assert!(host.routes().is_empty());
    });
}

#[test]
fn a_device_that_flannel_left_is_adopted_with_its_mac() {
    in_new_namespace(|mut host| {
        let vxlan = Vxlan {
            vni: 1.try_into().unwrap(),
            port: 8472,
            local: Some("172.30.0.1".parse().unwrap()),
            device: Some(name("eth0")),
            learning: false,
            gbp: false,
        };
        let mut link = Link::new(name("flannel.1"), LinkKind::Vxlan(vxlan)).up();
        link.mac = Some("3a:00:00:00:00:07".parse().unwrap());
        host.netlink.create_link(&link).unwrap();
        let before = host.netlink.link(&name("flannel.1")).unwrap().unwrap();
        host.pass(
            &fixture::cluster("n1")
                .with_node(own_node())
                .with_node(peer(2)),
        );
        let after = host.netlink.link(&name("flannel.1")).unwrap().unwrap();
        assert_eq!((after.index, after.mac), (before.index, link.mac));
        assert_eq!(told_mac(host.lease.borrow().as_ref().unwrap()), link.mac);
    });
}

#[test]
fn the_announced_mac_wins_and_another_vni_makes_the_device_anew() {
    in_new_namespace(|mut host| {
        let vxlan = Vxlan {
            vni: 7.try_into().unwrap(),
            port: 8472,
            local: None,
            device: None,
            learning: true,
            gbp: false,
        };
        let link = Link::new(name("flannel.1"), LinkKind::Vxlan(vxlan));
        host.netlink.create_link(&link).unwrap();
        let mut node = own_node();
        node.announced = peer(9).announced;
        host.pass(&fixture::cluster("n1").with_node(node));
        let device = host.netlink.link(&name("flannel.1")).unwrap().unwrap();
        assert_eq!(device.mac.unwrap().to_string(), "02:00:00:00:00:09");
        assert_eq!(device.vxlan.unwrap().vni.get(), 1);
    });
}

#[test]
fn without_a_subnet_there_is_only_the_device_and_a_foreign_subnet_is_refused() {
    in_new_namespace(|mut host| {
        let mut node = own_node();
        node.pod_cidrs.clear();
        host.pass(&fixture::cluster("n1").with_node(node.clone()));
        let device = host.netlink.link(&name("flannel.1")).unwrap().unwrap();
        let addresses = host.netlink.addresses(&device.name).unwrap();
        assert!(addresses.iter().all(|address| address.ip.is_ipv6()));
        assert!(!host.lease.borrow().as_ref().unwrap().is_up());
        assert!(!host.subnet_file.exists());

        node.pod_cidrs = vec!["192.168.0.0/24".parse().unwrap()];
        let cluster = Arc::new(fixture::cluster("n1").with_node(node));
        let report = host.overlay.pass(&cluster, LOOK);
        let errors: Vec<String> = report.errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            errors,
            [
                "overlay: compute : subnet 192.168.0.0/24 of node n1 is not within Network 10.244.0.0/16: make net-conf.json agree with the cluster CIDR"
            ]
        );
        let addresses: BTreeSet<_> = agent::host::addresses(&mut host.netlink).unwrap();
        assert!(addresses.contains(&"172.30.0.1".parse().unwrap()));
    });
}
