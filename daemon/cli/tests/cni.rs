//! `towline cni` with the real plugins, in network namespaces. Needs root.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use hostnet::netns;
use nix::sched::{CloneFlags, unshare};
use pretty_assertions::assert_eq;
use serde_json::{Value, json};

/// A node: this thread's network namespace, folders, and one pod.
struct Node {
    folder: tempfile::TempDir,
    pod: PathBuf,
}

/// The plugins' program lies beside the command's; a test of this package alone does not build it.
fn plugins() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_towline")).with_file_name("towline-cni");
    if !program.is_file() {
        let mut build = Command::new(env!("CARGO"));
        let build = build.args(["build", "--locked", "--quiet", "-p", "towline-suite"]);
        assert!(build.status().unwrap().success());
    }
    program
}

fn node(test: impl FnOnce(&Node) + Send) {
    let program = plugins();
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("make a network namespace (root needed)");
            let folder = tempfile::tempdir().unwrap();
            for part in ["bin", "net.d", "empty"] {
                fs::create_dir(folder.path().join(part)).unwrap();
            }
            for plugin in ["bridge", "host-local", "loopback"] {
                let link = folder.path().join("bin").join(plugin);
                std::os::unix::fs::symlink(&program, link).unwrap();
            }
            let pod = folder.path().join("pod");
            netns::create_at(&pod).unwrap();
            test(&Node { folder, pod });
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

impl Drop for Node {
    fn drop(&mut self) {
        // A test may have removed it already.
        let _ = netns::delete_at(&self.pod);
    }
}

impl Node {
    fn path(&self, part: &str) -> PathBuf {
        self.folder.path().join(part)
    }

    fn network(&self, version: &str, more: &Value) -> Value {
        let mut list = json!({
            "cniVersion": version, "name": "net",
            "plugins": [
                { "type": "bridge", "bridge": "br0", "isGateway": true, "capabilities": { "ips": true },
                  "ipam": { "type": "host-local", "dataDir": self.path("state"), "subnet": "10.1.0.0/24" } },
                { "type": "loopback" },
            ],
        });
        let fields = list.as_object_mut().unwrap();
        fields.extend(more.as_object().unwrap().clone());
        fs::write(self.path("net.d/10-net.conflist"), list.to_string()).unwrap();
        list
    }

    /// `towline cni` with these arguments and variables.
    fn cni(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
        let path = format!(
            "{}:{}",
            self.path("empty").display(),
            self.path("bin").display()
        );
        let mut command = Command::new(env!("CARGO_BIN_EXE_towline"));
        command
            .env_clear()
            .env("NETCONFPATH", self.path("net.d"))
            .env("CNI_PATH", path)
            .envs(variables.iter().copied())
            .arg("cni")
            .args(arguments)
            .arg("--cache-dir")
            .arg(self.path("cache"));
        command.output().unwrap()
    }

    #[track_caller]
    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.cni(arguments, &[]);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{arguments:?}: {stderr}");
        assert_eq!(stderr, "");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Exit code 1, nothing on standard output, one line on standard error: that line.
    #[track_caller]
    fn refused(&self, arguments: &[&str]) -> String {
        let output = self.cni(arguments, &[]);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        stderr
    }

    fn kept(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path("cache/results")) else {
            return vec![];
        };
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    fn reserved(&self, ip: &str) -> bool {
        self.path("state/net").join(ip).exists()
    }
}

#[test]
fn a_namespace_is_attached_checked_and_detached() {
    node(|node| {
        let list = node.network("1.1.0", &json!({}));
        let pod = node.pod.to_str().unwrap();
        node.ok(&["status", "net"]);
        let variables = [("CAP_ARGS", r#"{"ips":["10.1.0.77"],"other":1}"#)];
        let output = node.cni(&["add", "net", pod], &variables);
        assert!(output.status.success(), "{output:?}");
        let result: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(result["cniVersion"], "1.1.0");
        assert_eq!(result["ips"][0]["address"], "10.1.0.77/24");
        // libcni's file, from which other runtimes detach too.
        let [file] = &node.kept()[..] else {
            panic!("{:?}", node.kept());
        };
        let text = fs::read(node.path("cache/results").join(file)).unwrap();
        let cached: Value = serde_json::from_slice(&text).unwrap();
        let id = cached["containerId"].as_str().unwrap();
        assert_eq!(*file, format!("net-{id}-eth0"));
        assert!(id.starts_with("cnitool-") && id.len() == 28, "{id}");
        assert_eq!(cached["kind"], "cniCacheV1");
        assert_eq!(cached["networkName"], "net");
        assert_eq!(cached["netns"], pod);
        assert_eq!(cached["result"], result);
        assert_eq!(cached["capabilityArgs"]["ips"], json!(["10.1.0.77"]));
        assert!(cached["config"].as_str().unwrap().len() > list.to_string().len());

        node.ok(&["check", "net", pod]);
        let again = node.refused(&["add", "net", pod]);
        let expected = "towline: plugin bridge, ADD: interface eth0 is in the container already; \
                        DEL it first (code 999)\n";
        assert_eq!(again, expected);
        node.ok(&["check", "net", pod]);
        let other = node.ok(&[
            "add",
            "net",
            pod,
            "--ifname",
            "eth1",
            "--container-id",
            "c2",
        ]);
        let other: Value = serde_json::from_str(&other).unwrap();
        // Round robin goes on after the address that was asked for.
        assert_eq!(other["ips"][0]["address"], "10.1.0.78/24");

        node.ok(&["del", "net", pod]);
        node.ok(&["del", "net", pod]);
        assert_eq!(node.kept(), ["net-c2-eth1"]);
        assert!(!node.reserved("10.1.0.77") && node.reserved("10.1.0.78"));
        let gone = node.refused(&["check", "net", pod]);
        assert!(
            gone.contains("has no result of container cnitool-"),
            "{gone}"
        );
        node.ok(&[
            "del",
            "net",
            pod,
            "--ifname",
            "eth1",
            "--container-id",
            "c2",
        ]);
        assert!(!node.reserved("10.1.0.78"));
    });
}

#[test]
fn gc_frees_what_a_vanished_namespace_left() {
    node(|node| {
        node.network("1.1.0", &json!({}));
        let gone = node.path("gone");
        netns::create_at(&gone).unwrap();
        let (pod, gone) = (node.pod.to_str().unwrap(), gone.to_str().unwrap());
        node.ok(&["add", "net", pod, "--container-id", "a"]);
        node.ok(&["add", "net", gone, "--container-id", "b"]);
        // An address that no result speaks of, as a lost cache leaves it.
        fs::write(node.path("state/net/10.1.0.9"), "c\r\neth0").unwrap();
        node.ok(&["gc", "net"]);
        assert_eq!(node.kept(), ["net-a-eth0", "net-b-eth0"]);
        assert!(!node.reserved("10.1.0.9"));
        netns::delete_at(Path::new(gone)).unwrap();
        fs::write(gone, "").unwrap();
        node.ok(&["gc", "net", pod]);
        assert_eq!(node.kept(), ["net-a-eth0"]);
        assert!(node.reserved("10.1.0.2") && !node.reserved("10.1.0.3"));
        node.ok(&["check", "net", pod, "--container-id", "a"]);
        // Without any kept result nothing is known to be stale.
        fs::write(node.path("state/net/10.1.0.9"), "c\r\neth0").unwrap();
        fs::remove_file(node.path("cache/results/net-a-eth0")).unwrap();
        node.ok(&["gc", "net"]);
        assert!(node.reserved("10.1.0.2") && node.reserved("10.1.0.9"));
        node.ok(&["gc", "net", "--valid", "c/eth0"]);
        assert!(!node.reserved("10.1.0.2") && node.reserved("10.1.0.9"));
        node.network("1.1.0", &json!({ "disableGC": true }));
        node.ok(&["gc", "net", "--none-valid"]);
        assert!(node.reserved("10.1.0.9"), "disableGC forbids it");
        node.network("1.1.0", &json!({}));
        node.ok(&["gc", "net", "--none-valid"]);
        assert!(!node.reserved("10.1.0.9"));
    });
}

#[test]
fn an_older_list_has_no_check_gc_or_status() {
    node(|node| {
        node.network("0.3.1", &json!({}));
        let pod = node.pod.to_str().unwrap();
        let result: Value = serde_json::from_str(&node.ok(&["add", "net", pod])).unwrap();
        assert_eq!(result["ips"][0]["version"], "4");
        let check = node.refused(&["check", "net", pod]);
        let expected = "towline: CHECK needs cniVersion 0.4.0, not 0.3.1 (code 1)\n";
        assert_eq!(check, expected);
        node.ok(&["status", "net"]);
        node.ok(&["gc", "net"]);
        // The list has another version by the time of DEL and CHECK: results are converted.
        node.network(
            "0.3.1",
            &json!({ "cniVersions": ["1.0.0", "0.4.0", "9.0.0"] }),
        );
        node.ok(&["check", "net", pod]);
        node.network("1.0.0", &json!({ "disableCheck": "true" }));
        fs::write(node.path("cache/results").join(&node.kept()[0]), "{").unwrap();
        node.ok(&["check", "net", pod]);
        node.ok(&["del", "net", pod]);
        assert_eq!(node.kept(), [""; 0]);
        assert!(!node.reserved("10.1.0.2"));
    });
}

#[test]
fn a_failing_plugin_undoes_those_before_it() {
    node(|node| {
        let mut list = node.network("1.0.0", &json!({}));
        list["plugins"][1]["type"] = "absent".into();
        fs::write(node.path("net.d/10-net.conflist"), list.to_string()).unwrap();
        let pod = node.pod.to_str().unwrap();
        let error = node.refused(&["add", "net", pod]);
        assert!(
            error.starts_with("towline: plugin absent, ADD: plugin \"absent\" is not in CNI_PATH "),
            "{error}"
        );
        assert!(!node.reserved("10.1.0.2"));
        assert_eq!(node.kept(), [""; 0]);
    });
}

#[test]
fn what_is_wrong_with_the_call_is_said() {
    node(|node| {
        fs::write(node.path("net.d/05-broken.conflist"), "{").unwrap();
        let pod = node.pod.to_str().unwrap();
        let error = node.refused(&["add", "net", pod]);
        assert!(error.contains("there is no network \"net\" in "), "{error}");
        assert!(
            error.contains("05-broken.conflist: the configuration is no JSON"),
            "{error}"
        );
        node.network("1.0.0", &json!({}));
        let error = node.refused(&["add", "net", pod, "--container-id", "../x"]);
        assert!(
            error.contains("CNI_CONTAINERID \"../x\" must begin"),
            "{error}"
        );
        let error = node.refused(&["add", "net", pod, "--cap-args", "[]"]);
        assert!(error.contains("CAP_ARGS is no JSON object"), "{error}");
        let error = node.refused(&["add", "net", pod, "--args", "X"]);
        assert!(
            error.contains("CNI_ARGS: \"X\" is not KEY=VALUE"),
            "{error}"
        );
        let error = node.refused(&["gc", "net", "--valid", "c1"]);
        assert!(
            error.contains("--valid \"c1\" is not CONTAINER/IFNAME"),
            "{error}"
        );
        let error = node.refused(&["add", "net", "/nowhere"]);
        assert!(error.contains("(code 8)"), "{error}");
    });
}
