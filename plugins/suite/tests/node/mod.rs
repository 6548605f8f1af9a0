//! A private "host": a network namespace on a thread of its own, folders for state, the built
//! program under its plugins' names, and pods as named namespaces that are removed on drop.
#![allow(dead_code, reason = "every test file uses some of it")]

pub(crate) mod ports;
pub(crate) mod setup;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use hostnet::{Netlink, Netns, netns};
use nix::sched::{CloneFlags, unshare};
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_towline-cni");

pub(crate) struct Node {
    folder: tempfile::TempDir,
}

pub(crate) struct Pod {
    pub(crate) id: String,
    pub(crate) path: PathBuf,
}

/// What a plugin printed, and whether it succeeded.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) success: bool,
    pub(crate) stdout: String,
}

/// Runs `test` on a new node. Needs root.
pub(crate) fn node<T: Send>(test: impl FnOnce(&Node) -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("make a network namespace (root needed)");
            test(&Node::new())
        });
        match thread.join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

impl Node {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for part in ["bin", "state", "netns"] {
            fs::create_dir(folder.path().join(part)).unwrap();
        }
        // Links rather than copies: a file just written cannot be executed while another thread's
        // child still has it open.
        let plugins = towline_suite::PLUGINS.iter().map(|plugin| plugin.name());
        for name in plugins.chain(["towline-cni"]) {
            std::os::unix::fs::symlink(PROGRAM, folder.path().join("bin").join(name)).unwrap();
        }
        Self { folder }
    }

    pub(crate) fn path(&self, part: &str) -> PathBuf {
        self.folder.path().join(part)
    }

    pub(crate) fn pod(&self, id: &str) -> Pod {
        let path = self.path("netns").join(id);
        netns::create_at(&path).unwrap();
        Pod {
            id: id.to_owned(),
            path,
        }
    }

    /// Runs `plugin` with these variables besides `CNI_COMMAND` and `CNI_PATH`.
    pub(crate) fn call(
        &self,
        plugin: &str,
        command: &str,
        config: &Value,
        variables: &[(&str, &str)],
    ) -> Answer {
        let mut child = Command::new(self.path("bin").join(plugin));
        child
            .env_clear()
            .env("CNI_COMMAND", command)
            .env("CNI_PATH", self.path("bin"));
        child.envs(variables.iter().copied());
        run(&mut child, config.to_string().as_bytes())
    }

    pub(crate) fn attachment(
        &self,
        plugin: &str,
        command: &str,
        config: &Value,
        pod: &Pod,
    ) -> Answer {
        let netns = pod.path.to_str().unwrap();
        let variables = [
            ("CNI_CONTAINERID", pod.id.as_str()),
            ("CNI_IFNAME", "eth0"),
            ("CNI_NETNS", netns),
        ];
        self.call(plugin, command, config, &variables)
    }

    /// Files that hold an address.
    pub(crate) fn reservations(&self, network: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path("state").join(network)) else {
            return vec![];
        };
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut ips: Vec<String> = names
            .filter(|name| name.parse::<std::net::IpAddr>().is_ok())
            .collect();
        ips.sort();
        ips
    }

    /// The host's links but `lo`.
    pub(crate) fn links(&self) -> Vec<String> {
        let links = Netlink::open().unwrap().links().unwrap();
        links
            .into_iter()
            .map(|link| link.name.to_string())
            .filter(|name| name != "lo")
            .collect()
    }
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {:?}", self.stdout))
    }

    #[track_caller]
    pub(crate) fn result(&self) -> Value {
        assert!(self.success, "failed: {}", self.stdout);
        self.json()
    }

    #[track_caller]
    pub(crate) fn ok(&self) {
        assert!(self.success, "failed: {}", self.stdout);
        assert_eq!(self.stdout, "");
    }

    /// Code and message of the one error document.
    #[track_caller]
    pub(crate) fn error(&self) -> (u64, String) {
        assert!(!self.success, "succeeded: {}", self.stdout);
        let document = self.json();
        (
            document["code"].as_u64().unwrap(),
            document["msg"].as_str().unwrap().to_owned(),
        )
    }
}

impl Pod {
    pub(crate) fn open(&self) -> Netns {
        Netns::open(&self.path.to_str().unwrap().parse().unwrap()).unwrap()
    }

    pub(crate) fn netlink(&self) -> Netlink {
        Netlink::open_in(&self.open()).unwrap()
    }

    pub(crate) fn has_link(&self, name: &str) -> bool {
        self.netlink()
            .link(&name.parse().unwrap())
            .unwrap()
            .is_some()
    }

    /// Routes as `destination via gateway src source`, sorted.
    pub(crate) fn routes(&self) -> Vec<String> {
        shown_routes(&mut self.netlink())
    }

    /// Removes the namespace, as a runtime that died would.
    pub(crate) fn destroy(&self) {
        netns::delete_at(&self.path).unwrap();
    }

    /// Runs a program in the pod.
    pub(crate) fn exec(&self, program: &str, arguments: &[&str]) -> Output {
        let run = || {
            Command::new(program)
                .args(arguments)
                .output()
                .expect("run program")
        };
        self.open().run_in(run).unwrap()
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        netns::delete_at(&self.path).expect("remove the test's namespace");
    }
}

/// Routes as `destination via gateway src source dev device`, sorted, link-local ones left out.
pub(crate) fn shown_routes(netlink: &mut Netlink) -> Vec<String> {
    let mut shown: Vec<String> = netlink
        .routes(None)
        .unwrap()
        .iter()
        .filter(|route| !route.key.destination.to_string().starts_with("fe80"))
        .map(|route| {
            let mut text = route.key.destination.to_string();
            for (word, ip) in [("via", route.gateway), ("src", route.source)] {
                text += &ip.map(|ip| format!(" {word} {ip}")).unwrap_or_default();
            }
            text
        })
        .collect();
    shown.sort();
    shown
}

pub(crate) fn run(command: &mut Command, stdin: &[u8]) -> Answer {
    let piped = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = piped.spawn().expect("run the plugin");
    // A plugin that refuses its environment ends without reading.
    let _ = child.stdin.take().unwrap().write_all(stdin);
    let output = child.wait_with_output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    Answer {
        success: output.status.success(),
        stdout,
    }
}

pub(crate) fn config_file(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
}
