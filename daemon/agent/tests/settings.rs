//! Every setting of towlined, wrong: one line on stderr that names it, the value and what to write
//! instead, and exit code 1. By flag, by variable and by file.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use nix::sched::{CloneFlags, unshare};
use pretty_assertions::assert_eq;

const PROGRAM: &str = env!("CARGO_BIN_EXE_towlined");

/// A setting, a value that it cannot have, and something of the remedy.
const WRONG: &[(&str, &str, &str)] = &[
    ("node-name", "Node_1", "lower case letters"),
    (
        "kubeconfig",
        "/none/kubeconfig",
        "name a readable kubeconfig",
    ),
    ("kube-subnet-mgr", "perhaps", "true"),
    ("kube-annotation-prefix", "A/b/c", "write a domain"),
    ("set-node-network-unavailable", "perhaps", "true"),
    (
        "net-config-path",
        "/none/net-conf.json",
        "mount the ConfigMap",
    ),
    (
        "etcd-endpoints",
        "192.0.2.1:2379",
        "write http:// or https://",
    ),
    ("etcd-prefix", "mine", "begins with /"),
    ("iface-regex", "eth(", "write a regular expression"),
    ("iface-can-reach", "here", "IP"),
    ("public-ip", "fd00::1", "IPv4"),
    ("public-ipv6", "192.0.2.1", "IPv6"),
    ("subnet-file", "subnet.env", "an absolute path"),
    ("ip-masq", "perhaps", "true"),
    ("ip-masq-nodes", "perhaps", "true"),
    ("ip-masq-fully-random-disable", "perhaps", "true"),
    ("iptables-forward-rules", "perhaps", "true"),
    ("masquerade-backend", "ebtables", "nftables"),
    ("ip-blackhole-route", "perhaps", "true"),
    ("vxlan-tx-checksum", "perhaps", "auto"),
    ("datapath", "nftables", "ebpf"),
    ("services", "perhaps", "true"),
    ("policy", "perhaps", "true"),
    ("state-dir", "/run/../etc", "an absolute path"),
    ("bpf-root", "bpf", "an absolute path"),
    ("cgroup-root", "cgroup", "an absolute path"),
    ("socket", "towlined.sock", "an absolute path"),
    (
        "metrics-bind-address",
        "203.0.113.1:10249",
        "choose a free one",
    ),
    ("metrics-bind-address", "10249", "IP:PORT"),
    (
        "healthz-bind-address",
        "203.0.113.1:10256",
        "choose a free one",
    ),
    ("healthz-bind-address", "here", "IP:PORT"),
    ("healthz-ip", "here", "IP"),
    ("healthz-port", "70000", "65535"),
    ("resync-seconds", "0", "1 to 3600"),
    ("resync-seconds", "often", "invalid"),
    ("log", "a=b=c", "write a level"),
    ("log-format", "xml", "json"),
];

/// Settings whose values are not judged at the start: what they name may come later (an interface),
/// or be replaced (certificates), or only the other of a pair can be missing.
const JUDGED_LATER: &[&str] = &[
    "iface",
    "etcd-cafile",
    "etcd-certfile",
    "etcd-keyfile",
    "etcd-username",
    "etcd-password",
];
/// What can be given several times.
const LISTS: &[&str] = &["etcd-endpoints", "iface-regex"];

/// How a setting is given.
#[derive(Clone, Copy, Debug)]
enum Way {
    Flag,
    Variable,
    File,
}

/// Runs it with what is needed and with `name` set to `value`; it must end by itself.
fn run(folder: &Path, way: Way, name: &str, value: &str) -> Output {
    let net_conf = folder.join("net-conf.json");
    std::fs::write(
        &net_conf,
        r#"{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}"#,
    )
    .unwrap();
    let net_conf = net_conf.display().to_string();
    let state = folder.join("state").display().to_string();
    let mut given = vec![
        ("node-name", "n1"),
        ("datapath", "none"),
        ("metrics-bind-address", "none"),
        ("healthz-bind-address", "none"),
        ("net-config-path", &net_conf),
        ("state-dir", &state),
    ];
    if name.starts_with("etcd-") {
        given.push(("kube-subnet-mgr", "false"));
    }
    given.retain(|(other, _)| *other != name);
    let mut command = Command::new("timeout");
    command.args(["10", PROGRAM]).env_clear();
    command.args(
        given
            .iter()
            .map(|(name, value)| format!("--{name}={value}")),
    );
    match way {
        Way::Flag => {
            command.arg(format!("--{name}={value}"));
        }
        Way::Variable => {
            let name = name.to_uppercase().replace('-', "_");
            command.env(format!("TOWLINED_{name}"), value);
        }
        Way::File => {
            let file = folder.join("towlined.yaml");
            let text = match LISTS.contains(&name) {
                true => format!("{name}:\n- \"{value}\"\n"),
                false => format!("{name}: {value}\n"),
            };
            std::fs::write(&file, text).unwrap();
            command.arg("--config").arg(file);
        }
    }
    command.stdin(Stdio::null()).output().unwrap()
}

#[test]
fn every_wrong_setting_is_one_line_with_name_value_and_remedy() {
    assert!(
        nix::unistd::geteuid().is_root(),
        "this test makes a network namespace: run it as root"
    );
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    let mut netlink = hostnet::Netlink::open().unwrap();
    netlink.set_up(&"lo".parse().unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut failures = Vec::new();
    for (name, value, remedy) in WRONG {
        for way in [Way::Flag, Way::Variable, Way::File] {
            let output = run(folder.path(), way, name, value);
            let said = String::from_utf8(output.stderr).unwrap();
            // YAML has types, and says which one it wants.
            let typed = matches!(way, Way::File) && said.contains("expected ");
            let good = output.status.code() == Some(1)
                && said.starts_with("towlined: ")
                && said.lines().count() == 1
                && said.contains(name)
                && said.contains(value)
                && (typed || said.contains(remedy));
            if !good {
                failures.push(format!("{way:?} {name}={value}: {}: {said}", output.status));
            }
        }
    }
    assert_eq!(failures, [] as [String; 0], "{}", failures.join("\n"));
}

#[test]
fn no_setting_is_forgotten() {
    let help = Command::new(PROGRAM).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let words = help
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("--"));
    let flags = words.filter_map(|word| word.split(['=', ' ', '[']).next());
    let flags: BTreeSet<&str> = flags.filter(|flag| *flag != "config").collect();
    let known = WRONG.iter().map(|(name, _, _)| *name);
    let known: BTreeSet<&str> = known.chain(JUDGED_LATER.iter().copied()).collect();
    assert_eq!(flags, known);
}
