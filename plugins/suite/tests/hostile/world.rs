//! The node on which the cases run: what it has, what of it may change, and where files may be.
//!
//! The test's thread has a mount namespace of its own whose root is an overlay, so that every file
//! that a plugin makes anywhere is seen, and none is made on the machine.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use hostnet::Netlink;
use netstate::{Link, LinkKind, VethPeer};
use serde_json::{Value, json};

use crate::files::{self, Root};
use crate::input::Input;
use crate::node::{Node, Pod};
use crate::snapshot::Snapshot;
use crate::values::{TEXTS, plugin_names};

/// Longer than anything takes; only a plugin that hangs gets there.
const PATIENCE: Duration = Duration::from_secs(20);
/// The interface that chained plugins go on with.
const BASE: &str = "base0";
/// Where plugins keep state if the configuration does not say.
const OWN_FOLDERS: &[&str] = &[
    "/var/lib/cni",
    "/run/cni",
    "/run/towline",
    "/run/xtables.lock",
];

pub(crate) struct World<'a> {
    node: &'a Node,
    pod: Pod,
    other: Pod,
    before: Value,
    files: RefCell<BTreeSet<PathBuf>>,
    _root: Root,
}

/// How a plugin ended.
pub(crate) struct Ended {
    /// -1 for a signal.
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

// === impl World ===

impl<'a> World<'a> {
    pub(crate) fn new(node: &'a Node) -> Option<Self> {
        let folder = node.path("");
        let program = Path::new(env!("CARGO_BIN_EXE_towline-cni"))
            .parent()
            .unwrap();
        let root = match Root::new(&[&folder, program]) {
            Ok(root) => root,
            Err(errno) => {
                eprintln!("SKIPPED: hostile input: no overlay file system ({errno})");
                return None;
            }
        };
        fs::write(folder.join("plain"), "").unwrap();
        let fifo = folder.join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let subnet = "FLANNEL_NETWORK=10.3.0.0/16\nFLANNEL_SUBNET=10.3.1.1/24\nFLANNEL_MTU=1400\nFLANNEL_IPMASQ=true\n";
        fs::write(folder.join("subnet.env"), subnet).unwrap();
        let mut netlink = Netlink::open().unwrap();
        let peer = VethPeer {
            name: "up1".parse().unwrap(),
            netns: None,
            mac: None,
        };
        let up0 = Link::new("up0".parse().unwrap(), LinkKind::Veth(peer)).up();
        // A device that went to a pod comes back down.
        let spare0 = Link::new("spare0".parse().unwrap(), LinkKind::Ifb);
        for link in [up0, spare0] {
            netlink.create_link(&link).unwrap();
        }
        let mut world = Self {
            node,
            pod: node.pod("c1"),
            other: node.pod("other"),
            before: Value::Null,
            files: RefCell::default(),
            _root: root,
        };
        world.before = world.attach(&world.pod, BASE, "base", "10.1.0.0/24");
        world.attach(&world.other, "eth0", "othernet", "10.9.0.0/24");
        *world.files.borrow_mut() = world.list_files();
        Some(world)
    }

    fn attach(&self, pod: &Pod, ifname: &str, network: &str, subnet: &str) -> Value {
        let config = json!({
            "cniVersion": "1.1.0", "name": network, "type": "ptp", "ipMasq": true,
            "ipam": { "type": "host-local", "dataDir": self.node.path("state"), "subnet": subnet },
        });
        let variables = [
            ("CNI_CONTAINERID", pod.id.as_str()),
            ("CNI_IFNAME", ifname),
            ("CNI_NETNS", pod.path.to_str().unwrap()),
        ];
        self.node.call("ptp", "ADD", &config, &variables).result()
    }

    /// Folders that good configurations name.
    pub(crate) fn folders(&self) -> Vec<String> {
        vec![
            self.node
                .path("state")
                .into_os_string()
                .into_string()
                .unwrap(),
        ]
    }

    /// A good configuration of `plugin`.
    pub(crate) fn config(&self, plugin: &str) -> Value {
        let state = self.node.path("state");
        let ipam = json!({
            "type": "host-local", "dataDir": state, "routes": [{ "dst": "0.0.0.0/0" }],
            "ranges": [[{ "subnet": "10.2.0.0/24", "rangeStart": "10.2.0.10" }], [{ "subnet": "fd00:2::/64" }]],
        });
        let limits = json!({ "ingressRate": 8000, "ingressBurst": 80_000, "egressRate": 8000, "egressBurst": 80_000 });
        let own = match plugin {
            "bridge" => {
                json!({ "bridge": "br0", "isGateway": true, "ipMasq": true, "mtu": 1400, "ipam": ipam })
            }
            "macvlan" | "ipvlan" => json!({ "master": "up0", "mode": "bridge", "ipam": ipam }),
            "vlan" => json!({ "master": "up0", "vlanId": 5, "ipam": ipam }),
            "host-device" => json!({ "device": "spare0", "ipam": ipam }),
            "host-local" => json!({ "ipam": ipam }),
            "static" => json!({ "ipam": {
                "type": "static", "addresses": [{ "address": "10.2.0.5/24", "gateway": "10.2.0.1" }] } }),
            "flannel" | "towline" => json!({
                "subnetFile": self.node.path("subnet.env"), "dataDir": state, "ipam": { "dataDir": state },
                "socket": self.node.path("sock"), "delegate": { "hairpinMode": true } }),
            "loopback" => json!({}),
            "bandwidth" => limits,
            "portmap" => json!({ "snat": true, "runtimeConfig": { "portMappings": [
                { "hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": "10.1.0.1" } ] } }),
            "firewall" => json!({ "ingressPolicy": "same-bridge", "backend": "nftables" }),
            "tuning" => json!({ "sysctl": { "net.ipv4.conf.IFNAME.arp_filter": "1" }, "mtu": 1400,
                "mac": "02:00:00:00:00:09", "dataDir": state }),
            "vrf" => json!({ "vrfname": "vrf0", "table": 7 }),
            "sbr" => json!({ "table": 100 }),
            _ => json!({ "ipam": ipam }),
        };
        let mut config = json!({ "cniVersion": "1.1.0", "name": "net", "type": plugin });
        for (key, value) in own.as_object().unwrap() {
            config[key] = value.clone();
        }
        if is_chained(plugin) {
            config["prevResult"] = self.before.clone();
        }
        config
    }

    /// A good environment for `plugin`.
    pub(crate) fn env(&self, plugin: &str, command: &str) -> Vec<(String, Vec<u8>)> {
        let ifname = if is_chained(plugin) { BASE } else { "net1" };
        let text = |path: PathBuf| path.into_os_string().into_string().unwrap();
        [
            ("CNI_COMMAND", command.to_owned()),
            ("CNI_CONTAINERID", self.pod.id.clone()),
            ("CNI_IFNAME", ifname.to_owned()),
            ("CNI_NETNS", text(self.pod.path.clone())),
            ("CNI_ARGS", String::new()),
            ("CNI_PATH", text(self.node.path("bin"))),
        ]
        .map(|(name, value)| (name.to_owned(), value.into_bytes()))
        .to_vec()
    }

    /// Changes or removes a variable of `env`.
    pub(crate) fn spoil(&self, env: &mut Vec<(String, Vec<u8>)>, variable: usize, pick: usize) {
        let (at, remove) = (variable % 6, variable >= 6);
        if remove {
            env.remove(pick % env.len());
            return;
        }
        let Some((name, value)) = env.get_mut(at) else {
            return;
        };
        let own = |part: &str| self.node.path(part).into_os_string().into_vec();
        let mut choices: Vec<Vec<u8>> = match name.as_str() {
            "CNI_NETNS" => [own("plain"), own("fifo"), own("bin"), own("missing")]
                .into_iter()
                .chain(["/proc/self/ns/net", "/proc/self/ns/mnt", "/dev/zero"].map(|p| p.into()))
                .collect(),
            "CNI_ARGS" => [
                "IP=10.2.0.77",
                "IP=1.2.3.4/99;MAC=x",
                "=",
                ";;;",
                "MAC=02:00:00:00:00:07",
                "IgnoreUnknown=1;K8S_POD_NAME=a",
                "K8S_POD_NAME=a",
                "IgnoreUnknown=true;IP=,;GATEWAY=::",
            ]
            .map(|text| text.into())
            .to_vec(),
            "CNI_COMMAND" => ["add", "ADD ", "UPDATE", "VERSION"]
                .map(|text| text.into())
                .to_vec(),
            "CNI_PATH" => vec![own("missing"), own("state"), b":::".to_vec()],
            _ => plugin_names().into_iter().map(String::into_bytes).collect(),
        };
        choices.extend(
            TEXTS
                .iter()
                .map(|text| text.replace('\0', "\u{1}").into_bytes()),
        );
        choices.extend([vec![0xff, 0xfe], b"a".repeat(300), b"a/".repeat(3000)]);
        value.clone_from(&choices[pick % choices.len()]);
    }

    pub(crate) fn run(&self, input: &Input) -> Result<Ended, String> {
        let mut child = Command::new(self.node.path("bin").join(input.plugin));
        let env = input.env.iter();
        child.env_clear();
        child.envs(env.map(|(name, value)| (name, OsString::from_vec(value.clone()))));
        let piped = child
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = piped.spawn().map_err(|error| format!("{error}: {input}"))?;
        let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
        // A plugin that refuses its environment ends without reading.
        let _ = child.stdin.take().unwrap().write_all(&input.stdin);
        let (sender, receiver) = mpsc::channel();
        let waiting = std::thread::spawn(move || sender.send(child.wait_with_output()));
        let Ok(output) = receiver.recv_timeout(PATIENCE) else {
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
            return Err(format!("hangs: {input}"));
        };
        waiting.join().unwrap().unwrap();
        let output = output.unwrap();
        Ok(Ended {
            status: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).map_err(|_| format!("no text: {input}"))?,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot::take(&self.pod, &self.other)
    }

    /// Every file that is new must be in a folder that the configuration names, or in a plugin's own.
    pub(crate) fn check_files(&self, input: &Input) -> Result<(), String> {
        let now = self.list_files();
        let mut known = self.files.borrow_mut();
        let named = input
            .folders
            .iter()
            .filter_map(|folder| files::plain(&Path::new("/").join(folder)));
        let own = OWN_FOLDERS.iter().map(PathBuf::from);
        let allowed: Vec<PathBuf> = named.chain(own).collect();
        let is_allowed = |path: &Path| {
            allowed
                .iter()
                .any(|a| path.starts_with(a) || a.starts_with(path))
        };
        let stray = now
            .difference(&known)
            .find(|path| !is_allowed(path))
            .cloned();
        *known = now;
        stray.map_or(Ok(()), |path| Err(format!("made {}", path.display())))
    }

    fn list_files(&self) -> BTreeSet<PathBuf> {
        files::list(&self.node.path(""))
    }

    /// Takes back a case that succeeded and changed something: an ADD, by the same input's DEL.
    pub(crate) fn clean_up(&self, input: &Input, before: &Snapshot) -> Result<(), String> {
        if input.command != b"ADD" {
            let change = before.difference(&self.snapshot());
            return Err(format!("changed {change}"));
        }
        self.delete(input, before)
    }

    /// Does a DEL with what ADD got, after which everything must be as before it.
    pub(crate) fn delete(&self, input: &Input, before: &Snapshot) -> Result<(), String> {
        let ended = self.run(&input.with_command("DEL"))?;
        if ended.status != 0 {
            return Err(format!("DEL of what ADD accepted failed: {ended}"));
        }
        let after = self.snapshot();
        let kept = after.host.is_superset(&before.host);
        if !kept || (&after.pod, &after.other) != (&before.pod, &before.other) {
            return Err(format!("DEL left {}", before.difference(&after)));
        }
        self.remove_shared(before)
    }

    /// Removes new devices that pods share, which stay behind also when an ADD fails: another one
    /// may have begun to use them.
    pub(crate) fn remove_shared(&self, before: &Snapshot) -> Result<(), String> {
        let mut netlink = Netlink::open().unwrap();
        for link in netlink.links().unwrap() {
            let is_new = link.name.as_str() != "lo"
                && !before
                    .host
                    .iter()
                    .any(|line| line.contains(&format!("{:?}", link.name)));
            match link.kind.as_str() {
                // Shared by pods, so left behind.
                "bridge" | "vrf" if is_new => netlink.delete_link(&link.name).unwrap(),
                _ if is_new => return Err(format!("left link {}", link.name)),
                _ => {}
            }
        }
        Ok(())
    }
}

fn is_chained(plugin: &str) -> bool {
    matches!(
        plugin,
        "bandwidth" | "firewall" | "portmap" | "sbr" | "tuning" | "vrf"
    )
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{}", self.status, self.stdout, self.stderr)
    }
}
