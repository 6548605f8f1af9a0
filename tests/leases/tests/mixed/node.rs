//! A node: a namespace with an uplink, a daemon that is flanneld or towlined, and a pod.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use pretty_assertions::assert_eq;

use crate::place::{Place, until};
use crate::process::{Process, ask};

/// A node of number 1, 2 or 3.
pub(crate) struct Node {
    pub(crate) number: usize,
    pub(crate) flanneld: Option<Process>,
    pub(crate) towlined: Option<Process>,
    pub(crate) place: Place,
    pod: Option<Pod>,
    folder: PathBuf,
    etcd: String,
}

/// A pod behind the node's bridge, as flannel's plugin makes one.
pub(crate) struct Pod {
    pub(crate) place: Place,
    /// IPv4 and IPv6.
    pub(crate) addresses: [String; 2],
}

// === impl Node ===

impl Node {
    pub(crate) fn new(number: usize, folder: &Path, etcd: &str) -> Self {
        let folder = folder.join(format!("n{number}"));
        fs::create_dir(&folder).unwrap();
        let place = Place::new();
        // As the bridge plugin sets them for a gateway.
        place.set("net/ipv4/ip_forward", "1");
        place.set("net/ipv6/conf/all/forwarding", "1");
        Self {
            number,
            flanneld: None,
            towlined: None,
            place,
            pod: None,
            folder,
            etcd: etcd.to_owned(),
        }
    }

    /// The addresses on its uplink.
    pub(crate) fn addresses(&self) -> [String; 2] {
        [
            format!("172.30.0.{}", self.number),
            format!("fd99::{}", self.number),
        ]
    }

    pub(crate) fn pod(&self) -> &Pod {
        self.pod.as_ref().unwrap()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Starts flanneld, and waits until it has a lease and everything that hangs on it.
    pub(crate) fn start_flanneld(&mut self, more: &[&str]) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flanneld"));
        command
            .args(["--iface=eth0", "--etcd-endpoints", &self.etcd])
            .arg("--subnet-file")
            .arg(self.file("subnet.env"))
            .args(more);
        let mut flanneld = Process::start(&self.place, command, self.file("flanneld.log"));
        flanneld.says(|line| line == "running");
        self.flanneld = Some(flanneld);
    }

    /// Kills flanneld: it tears nothing down, however it ends.
    pub(crate) fn kill_flanneld(&mut self) {
        let mut flanneld = self.flanneld.take().unwrap();
        flanneld.alive();
        flanneld.end(Signal::SIGKILL);
    }

    /// Starts towlined with the same configuration, and waits until it is ready.
    pub(crate) fn start_towlined(&mut self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_towlined-under-test"));
        command
            .args(["--kube-subnet-mgr=false", "--datapath=none"])
            .arg(format!("--node-name=n{}", self.number))
            .args(["--iface=eth0", "--etcd-endpoints", &self.etcd])
            .arg("--resync-seconds=1")
            .arg("--state-dir")
            .arg(self.file("state"))
            .arg("--subnet-file")
            .arg(self.file("subnet.env"));
        let towlined = Process::start(&self.place, command, self.file("towlined.log"));
        let towlined = self.towlined.insert(towlined);
        let socket = self.folder.join("state/towlined.sock");
        until(|| {
            towlined.alive();
            match ask(&socket, "/v1/status") {
                Some(status) if status["ready"] == true => Ok(()),
                status => Err(format!("{status:?} {}", towlined.said())),
            }
        });
    }

    /// Ends towlined as a service manager does.
    pub(crate) fn stop_towlined(&mut self) {
        let mut towlined = self.towlined.take().unwrap();
        towlined.alive();
        assert_eq!(towlined.end(Signal::SIGTERM).code(), Some(0));
    }

    /// What towlined says is not as it should be.
    pub(crate) fn differences(&self) -> serde_json::Value {
        ask(&self.file("state/towlined.sock"), "/v1/drift").unwrap()
    }

    /// The subnet file.
    pub(crate) fn subnet_env(&self) -> BTreeMap<String, String> {
        let text = fs::read_to_string(self.file("subnet.env")).unwrap();
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        pairs
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    }

    /// Puts a pod behind the bridge `cni0`, with the addresses after the gateway's.
    pub(crate) fn add_pod(&mut self) {
        let env = self.subnet_env();
        let mtu = &env["FLANNEL_MTU"];
        let gateways = ["FLANNEL_SUBNET", "FLANNEL_IPV6_SUBNET"].map(|key| env[key].clone());
        let place = Place::new();
        // For the ICMP sockets of the traffic.
        for place in [&place, &self.place] {
            place.set("net/ipv4/ping_group_range", "0 2147483647");
        }
        let node = &self.place;
        node.ip("link add cni0 type bridge");
        node.ip("link set cni0 up");
        node.address("cni0", &gateways);
        node.cable("veth0", &place, "eth0");
        node.ip(&format!("link set veth0 mtu {mtu} master cni0"));
        place.ip(&format!("link set eth0 mtu {mtu}"));
        let own = gateways.clone().map(|text| text.replacen("1/", "2/", 1));
        place.address("eth0", &own);
        for gateway in gateways {
            let (ip, _) = gateway.split_once('/').unwrap();
            let family = if ip.contains(':') { "-6" } else { "-4" };
            place.ip(&format!("{family} route add default via {ip}"));
        }
        let addresses = own.map(|text| text.split_once('/').unwrap().0.to_owned());
        self.pod = Some(Pod { place, addresses });
    }
}
