//! A host in a network namespace: an uplink `eth0` (172.30.0.1, fd99::1) and an overlay loop.

use std::path::PathBuf;
use std::sync::Arc;

use agent::config::{NetConf, OverlayOptions, UplinkChoice};
use agent::lease::Lease;
use agent::reconcile::overlay::{OverlayLoop, OverlaySettings};
use agent::reconcile::{Pass, Reconciler};
use agent::subnet_file::SubnetFiles;
use desired::cluster::{Announced, Backend, Cluster, Node};
use desired::fixture;
use desired::lease::attributes::VxlanData;
use hostnet::{LinkInfo, Netlink, PROTOCOL_TOWLINE};
use netstate::{Address, IfName, Link, LinkKind, MacAddr, Report, RouteKind, VethPeer};
use nix::sched::{CloneFlags, unshare};
use tokio::sync::watch;

/// What the loop does when nothing has changed.
pub(crate) const LOOK: Pass = Pass {
    changed: false,
    look: true,
};
pub(crate) const VXLAN: &str = r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}"#;
pub(crate) const DUAL: &str = r#"{"Network": "10.244.0.0/16", "EnableIPv6": true,
    "IPv6Network": "fd00::/48", "Backend": {"Type": "vxlan"}}"#;

/// The namespace of the test's thread, with the loop.
pub(crate) struct Host {
    pub(crate) overlay: OverlayLoop,
    pub(crate) lease: watch::Receiver<Option<Lease>>,
    pub(crate) netlink: Netlink,
    pub(crate) subnet_file: PathBuf,
    settings: OverlaySettings,
    _folder: tempfile::TempDir,
}

/// Runs `test` on a thread in a new network namespace, which ends with the thread.
pub(crate) fn in_new_namespace(conf: &str, test: impl FnOnce(Host) + Send + 'static) {
    with_options(conf, OverlayOptions::default(), test);
}

/// The same with other settings.
pub(crate) fn with_options(
    conf: &str,
    options: OverlayOptions,
    test: impl FnOnce(Host) + Send + 'static,
) {
    assert!(
        nix::unistd::geteuid().is_root(),
        "this test makes a network namespace: run it as root"
    );
    let conf = conf.to_owned();
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        test(Host::new(&conf, options));
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

impl Host {
    fn new(conf: &str, options: OverlayOptions) -> Self {
        let mut netlink = Netlink::open().unwrap();
        netlink.set_up(&name("lo")).unwrap();
        add_uplink(&mut netlink, &["172.30.0.1/24", "fd99::1/64"]);
        let folder = tempfile::tempdir().unwrap();
        let subnet_file = folder.path().join("subnet.env");
        let settings = OverlaySettings {
            net: NetConf::parse("net-conf.json", conf).unwrap(),
            uplink: UplinkChoice {
                interfaces: vec!["eth0".to_owned()],
                ..UplinkChoice::default()
            },
            options,
            subnet_files: SubnetFiles::new(vec![subnet_file.clone()]),
            state_dir: folder.path().to_owned(),
        };
        let (lease_in, lease) = watch::channel(None);
        let overlay = OverlayLoop::open(settings.clone(), lease_in).unwrap();
        Self {
            overlay,
            lease,
            netlink,
            subnet_file,
            settings,
            _folder: folder,
        }
    }

    /// The daemon ends, and another one starts.
    pub(crate) fn restart(&mut self) {
        let (lease_in, lease) = watch::channel(None);
        self.overlay = OverlayLoop::open(self.settings.clone(), lease_in).unwrap();
        self.lease = lease;
    }

    /// The daemon ends, and another one starts with other settings.
    pub(crate) fn restart_with(&mut self, change: impl FnOnce(&mut OverlaySettings)) {
        change(&mut self.settings);
        self.restart();
    }

    /// What a pass could not do.
    pub(crate) fn errors(&mut self, cluster: &Cluster) -> Vec<String> {
        let report = self.report(cluster);
        report.errors.iter().map(ToString::to_string).collect()
    }

    /// One pass without errors: entries written and removed.
    pub(crate) fn pass(&mut self, cluster: &Cluster) -> (usize, usize) {
        let report = self.report(cluster);
        assert!(report.errors.is_empty(), "{:?}", report.errors);
        (report.puts, report.deletes)
    }

    pub(crate) fn report(&mut self, cluster: &Cluster) -> Report {
        self.overlay.pass(&Arc::new(cluster.clone()), LOOK)
    }

    /// A pass that repairs something, and one that finds nothing more to do.
    pub(crate) fn repairs(&mut self, cluster: &Cluster) -> usize {
        let (puts, deletes) = self.pass(cluster);
        assert_eq!(self.pass(cluster), (0, 0), "what was repaired stays so");
        puts + deletes
    }

    pub(crate) fn device(&mut self, device: &str) -> LinkInfo {
        let found = self.netlink.link(&name(device)).unwrap();
        found.unwrap_or_else(|| panic!("there is no {device}"))
    }

    /// The lease that others are told of.
    pub(crate) fn told(&self) -> Lease {
        self.lease.borrow().clone().unwrap()
    }

    /// The daemon's routes as `ip route` shows them.
    pub(crate) fn routes(&mut self) -> Vec<String> {
        let all = self.netlink.routes_of_any_kind(Some(PROTOCOL_TOWLINE));
        let shown = all.unwrap().into_iter().map(|route| {
            let mut text = route.key.destination.to_string();
            if route.kind == RouteKind::Blackhole {
                text = format!("blackhole {text}");
            }
            for (word, part) in [
                ("via", route.gateway.map(|one| one.to_string())),
                ("dev", route.device.map(|one| one.to_string())),
            ] {
                text += &part
                    .map(|part| format!(" {word} {part}"))
                    .unwrap_or_default();
            }
            text + if route.onlink { " onlink" } else { "" }
        });
        shown.collect()
    }

    /// The peers on a VXLAN device: neighbours, then forwarding entries.
    pub(crate) fn peers(&mut self, device: &str) -> Vec<String> {
        let device = name(device);
        let neighbours = self.netlink.neighbours(&device).unwrap().into_iter();
        let neighbours = neighbours.filter(|one| !one.key.ip.is_multicast());
        let mut peers: Vec<String> = neighbours
            .map(|one| format!("{} at {}", one.key.ip, one.mac))
            .collect();
        let fdb = self.netlink.fdb(&device).unwrap().into_iter();
        peers.extend(fdb.map(|one| format!("{} to {}", one.key.mac, one.remote)));
        peers.sort();
        peers
    }

    pub(crate) fn subnet_env(&self) -> String {
        std::fs::read_to_string(&self.subnet_file).unwrap()
    }
}

/// The interface towards other nodes: one end of a pair whose other end is up beside it.
pub(crate) fn add_uplink(netlink: &mut Netlink, addresses: &[&str]) {
    add_interface(netlink, "eth0", addresses);
}

/// The same under another name.
pub(crate) fn add_interface(netlink: &mut Netlink, device: &str, addresses: &[&str]) {
    let peer = VethPeer {
        name: name(&format!("{device}p")),
        netns: None,
        mac: None,
    };
    netlink
        .create_link(&Link::new(name(device), LinkKind::Veth(peer.clone())).up())
        .unwrap();
    netlink.set_up(&peer.name).unwrap();
    for address in addresses {
        let address = Address::new(address.parse().unwrap());
        netlink.add_address(&name(device), &address).unwrap();
    }
}

/// Runs `ip` or `bridge` in the namespace of the calling thread.
pub(crate) fn run(command: &str) {
    let mut words = command.split(' ');
    let mut program = std::process::Command::new(words.next().unwrap());
    let output = program.args(words).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {said}");
}

/// The MACs that others are told, IPv4's and IPv6's.
pub(crate) fn told_macs(lease: &Lease) -> [Option<MacAddr>; 2] {
    match &lease.announced.backend {
        Backend::Vxlan { v4, v6 } => [v4, v6].map(|data| data.map(|data| data.vtep_mac)),
        _ => [None, None],
    }
}

pub(crate) fn name(text: &str) -> IfName {
    text.parse().unwrap()
}

/// This node: 10.244.0.0/24 and fd00::/64, not announced yet.
pub(crate) fn own_node() -> Node {
    let mut node = Node::new("n1".parse().unwrap());
    node.pod_cidrs = vec![
        "10.244.0.0/24".parse().unwrap(),
        "fd00::/64".parse().unwrap(),
    ];
    node
}

/// The cluster with this node and the others.
pub(crate) fn cluster(peers: impl IntoIterator<Item = Node>) -> Cluster {
    let alone = fixture::cluster("n1").with_node(own_node());
    peers.into_iter().fold(alone, Cluster::with_node)
}

/// Node `n<number>` at 172.30.0.<number> and fd99::<number>, with a MAC of each family.
pub(crate) fn peer(number: u8) -> Node {
    at(number, &format!("172.30.0.{number}"))
}

/// The same at another IPv4 address.
pub(crate) fn at(number: u8, public_ip: &str) -> Node {
    let data = |mac: String| VxlanData {
        vni: 1.try_into().unwrap(),
        vtep_mac: mac.parse().unwrap(),
    };
    let mut node = Node::new(format!("n{number}").parse().unwrap());
    node.pod_cidrs = vec![
        format!("10.244.{number}.0/24").parse().unwrap(),
        format!("fd00:0:0:{number}::/64").parse().unwrap(),
    ];
    node.announced = Some(Announced {
        public_ip: public_ip.parse().ok(),
        public_ipv6: format!("fd99::{number}").parse().ok(),
        backend: Backend::Vxlan {
            v4: Some(data(format!("02:00:00:00:04:{number:02x}"))),
            v6: Some(data(format!("02:00:00:00:06:{number:02x}"))),
        },
    });
    node
}

/// Node `n<number>` with another backend.
pub(crate) fn speaking(number: u8, public_ip: &str, backend: Backend) -> Node {
    let mut node = at(number, public_ip);
    if let Some(announced) = &mut node.announced {
        announced.backend = backend;
    }
    node
}
