//! Three nodes on one network with an etcd, each with a pod; and what is outside of the cluster.

use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::node::Node;
use crate::place::{Place, until};
use crate::process::Process;
use crate::traffic::Target;

/// Where etcd is, and what pods see of the world outside: no node has this address.
const OUTSIDE: [&str; 2] = ["172.30.0.254", "fd99::fe"];
const ETCD: &str = "http://172.30.0.254:2379";
const PREFIX: &str = "/coreos.com/network";

/// Dropping it ends everything that runs in it.
pub(crate) struct Cluster {
    // In this order: what runs in a namespace ends before it.
    pub(crate) nodes: Vec<Node>,
    _etcd: Process,
    pub(crate) outside: Place,
    _folder: TempDir,
}

// === impl Cluster ===

impl Cluster {
    /// Three nodes on which nothing runs yet.
    pub(crate) fn new() -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "this test makes network namespaces: run it as root"
        );
        let folder = tempfile::tempdir().unwrap();
        let outside = Place::new();
        outside.ip("link add br0 type bridge");
        outside.ip("link set br0 up");
        let addresses = [format!("{}/24", OUTSIDE[0]), format!("{}/64", OUTSIDE[1])];
        outside.address("br0", &addresses);
        let nodes = (1..=3).map(|number| {
            let node = Node::new(number, folder.path(), ETCD);
            let port = format!("port{number}");
            node.place.cable("eth0", &outside, &port);
            outside.ip(&format!("link set {port} master br0"));
            let addresses = node.addresses();
            let addresses = [
                format!("{}/24", addresses[0]),
                format!("{}/64", addresses[1]),
            ];
            node.place.address("eth0", &addresses);
            node
        });
        let nodes = nodes.collect();
        let mut etcd = Command::new("etcd");
        etcd.arg("--data-dir").arg(folder.path().join("etcd"));
        etcd.args([
            "--listen-client-urls",
            ETCD,
            "--advertise-client-urls",
            ETCD,
        ]);
        let log = folder.path().join("etcd.log");
        let etcd = Process::start(&outside, etcd, log);
        let cluster = Self {
            nodes,
            _etcd: etcd,
            outside,
            _folder: folder,
        };
        let config = json!({
            "Network": "10.5.0.0/16",
            "EnableIPv6": true,
            "IPv6Network": "fc00:5::/48",
            "Backend": { "Type": "vxlan" },
        });
        let key = format!("{PREFIX}/config");
        let etcd = &cluster._etcd;
        until(|| {
            let written = cluster.etcdctl(&["put", &key, &config.to_string()]);
            written.ok_or_else(|| etcd.said())
        });
        cluster
    }

    fn etcdctl(&self, arguments: &[&str]) -> Option<String> {
        let answer = self.outside.run(|| {
            Command::new("etcdctl")
                .env("ETCDCTL_API", "3")
                .args(["--endpoints", ETCD, "--command-timeout=2s"])
                .args(arguments)
                .output()
                .unwrap()
        });
        let text = String::from_utf8(answer.stdout).unwrap();
        answer.status.success().then_some(text)
    }

    /// All leases: the names of the keys and their values.
    pub(crate) fn leases(&self) -> Vec<(String, Value)> {
        let prefix = format!("{PREFIX}/subnets/");
        let all = self.etcdctl(&["get", "--prefix", &prefix]).unwrap();
        let lines: Vec<&str> = all.lines().collect();
        let pairs = lines.chunks(2);
        pairs
            .map(|pair| {
                let name = pair[0].replace(&prefix, "");
                (name, serde_json::from_str(pair[1]).unwrap())
            })
            .collect()
    }

    /// A lease of a node that is only a key.
    pub(crate) fn put_lease(&self, name: &str, value: &str) {
        let key = format!("{PREFIX}/subnets/{name}");
        self.etcdctl(&["put", &key, value]).unwrap();
    }

    pub(crate) fn delete_lease(&self, name: &str) {
        let key = format!("{PREFIX}/subnets/{name}");
        self.etcdctl(&["del", &key]).unwrap();
    }

    /// Whom a pod talks to: all other pods, all nodes, and the world outside.
    pub(crate) fn of_pod(&self, number: usize) -> Vec<Target> {
        let mut all = self.of_node(number);
        for node in &self.nodes {
            let name = format!("node{}", node.number);
            all.extend(node.addresses().map(|ip| Target::new(&name, &ip)));
        }
        all.extend(OUTSIDE.map(|ip| Target::new("outside", ip)));
        all
    }

    /// Whom a node talks to: the other nodes' pods.
    pub(crate) fn of_node(&self, number: usize) -> Vec<Target> {
        let others = self.nodes.iter().filter(|node| node.number != number);
        let pods = others.flat_map(|node| {
            let name = format!("pod{}", node.number);
            node.pod()
                .addresses
                .clone()
                .map(|ip| Target::new(&name, &ip))
        });
        pods.collect()
    }
}
