//! Whose plugins a node has, and calls of them as a runtime makes them.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::node::{self, Node, Pod};

const REFERENCE: &str = "/usr/lib/cni";
const PROGRAMS: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// Whose program is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Maker {
    Ours,
    Reference,
}

/// What a plugin printed, and whether it succeeded.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) success: bool,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// One interface of a pod under one configuration: what a runtime keeps between ADD and DEL.
#[derive(Debug, Clone)]
pub(crate) struct Attachment {
    pub(crate) plugin: String,
    pub(crate) config: Value,
    pub(crate) id: String,
    pub(crate) ifname: String,
    pub(crate) netns: Option<String>,
    pub(crate) args: String,
}

/// Runs `test` on a new node that has the plugins of `maker`. Without the reference plugins it
/// fails: `make setup` installs them, and a comparison with nothing proves nothing.
pub(crate) fn world<T: Send>(maker: Maker, test: impl FnOnce(&Node) -> T + Send) -> T {
    assert!(
        Path::new(REFERENCE).join("bridge").is_file(),
        "no reference plugins in {REFERENCE}; run `make setup`"
    );
    node::node(|node| {
        run("ip", &["link", "set", "lo", "up"]);
        node.install_all(maker);
        test(node)
    })
}

// === impl Node: whose plugins ===

impl Node {
    /// Gives the node every plugin of `maker`, and no other.
    pub(crate) fn install_all(&self, maker: Maker) {
        let bin = self.path("bin");
        let program = bin.join("towline-cni").read_link().unwrap();
        for entry in fs::read_dir(&bin).unwrap() {
            let path = entry.unwrap().path();
            if !path.ends_with("towline-cni") {
                fs::remove_file(path).unwrap();
            }
        }
        let names: Vec<String> = match maker {
            Maker::Ours => towline_suite::PLUGINS
                .iter()
                .map(|plugin| plugin.name().to_owned())
                .collect(),
            Maker::Reference => fs::read_dir(REFERENCE)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect(),
        };
        for name in names {
            let target = match maker {
                Maker::Ours => program.clone(),
                Maker::Reference => Path::new(REFERENCE).join(&name),
            };
            std::os::unix::fs::symlink(target, bin.join(name)).unwrap();
        }
    }

    /// Replaces one plugin by that of `maker`.
    pub(crate) fn install(&self, plugin: &str, maker: Maker) {
        let bin = self.path("bin");
        let target = match maker {
            Maker::Ours => bin.join("towline-cni").read_link().unwrap(),
            Maker::Reference => Path::new(REFERENCE).join(plugin),
        };
        assert!(target.is_file(), "{} is missing", target.display());
        let link = bin.join(plugin);
        if link.symlink_metadata().is_ok() {
            fs::remove_file(&link).unwrap();
        }
        std::os::unix::fs::symlink(target, link).unwrap();
    }

    /// Runs a plugin with exactly these variables besides `CNI_PATH` and `PATH`.
    pub(crate) fn raw(&self, plugin: &str, stdin: &[u8], variables: &[(&str, &str)]) -> Answer {
        let mut child = Command::new(self.path("bin").join(plugin));
        child
            .env_clear()
            .env("PATH", PROGRAMS)
            .env("CNI_PATH", self.path("bin"))
            .envs(variables.iter().copied());
        let piped = child.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = piped
            .stderr(Stdio::piped())
            .spawn()
            .expect("run the plugin");
        // A plugin that refuses its environment ends without reading.
        let _ = std::io::Write::write_all(&mut child.stdin.take().unwrap(), stdin);
        let output = child.wait_with_output().unwrap();
        Answer {
            success: output.status.success(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// An attachment of `pod` as `eth0`.
    pub(crate) fn attach(&self, config: &Value, pod: &Pod) -> Attachment {
        Attachment {
            plugin: config["type"].as_str().unwrap().to_owned(),
            config: config.clone(),
            id: pod.id.clone(),
            ifname: "eth0".to_owned(),
            netns: Some(pod.path.to_str().unwrap().to_owned()),
            args: String::new(),
        }
    }

    /// Does `command` for `attachment`.
    pub(crate) fn does(&self, command: &str, attachment: &Attachment) -> Answer {
        let mut variables = vec![
            ("CNI_COMMAND", command),
            ("CNI_CONTAINERID", attachment.id.as_str()),
            ("CNI_IFNAME", attachment.ifname.as_str()),
        ];
        if let Some(netns) = &attachment.netns {
            variables.push(("CNI_NETNS", netns));
        }
        if !attachment.args.is_empty() {
            variables.push(("CNI_ARGS", &attachment.args));
        }
        let stdin = attachment.config.to_string();
        self.raw(&attachment.plugin, stdin.as_bytes(), &variables)
    }

    /// ADD, after which the attachment knows its result as a runtime does.
    #[track_caller]
    pub(crate) fn added(&self, attachment: &mut Attachment) -> Value {
        let answer = self.does("ADD", attachment);
        assert!(answer.success, "ADD failed: {answer:?}");
        attachment.config["prevResult"] = answer.json();
        answer.json()
    }

    /// GC of `attachment`'s network, `valid` being all that is left of it.
    pub(crate) fn collects(&self, attachment: &Attachment, valid: &[&Attachment]) -> Answer {
        let mut config = attachment.config.clone();
        config.as_object_mut().unwrap().remove("prevResult");
        let named = |one: &&Attachment| json!({ "containerID": one.id, "ifname": one.ifname });
        let valid: Vec<Value> = valid.iter().map(named).collect();
        config["cni.dev/valid-attachments"] = valid.into();
        config["cniVersion"] = "1.1.0".into();
        let stdin = config.to_string();
        self.raw(
            &attachment.plugin,
            stdin.as_bytes(),
            &[("CNI_COMMAND", "GC")],
        )
    }
}

// === impl Answer ===

impl Answer {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    #[track_caller]
    pub(crate) fn ok(&self) {
        assert!(self.success, "failed: {self:?}");
        assert_eq!(self.stdout, "", "more than nothing was said");
    }
}

/// Runs a program that must succeed, and returns what it printed.
#[track_caller]
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    let output = command.args(arguments).env("PATH", PROGRAMS).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}; run `make setup`"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}
