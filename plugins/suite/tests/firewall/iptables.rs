//! The programs: their variants, one family's without the other's, and the reference's rules.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use pretty_assertions::assert_eq;
use serde_json::{Value, json};

use crate::node::{self, Pod, node};
use crate::{behind, firewall, rules, run};

const REFERENCE: &str = "/usr/lib/cni/firewall";

#[test]
fn a_late_del_spares_the_pod_that_has_the_address_now() {
    node(|node| {
        let (old, new) = (node.pod("old"), node.pod("new"));
        let config = firewall(
            "net",
            &behind("br0", &["10.1.0.2/24"]),
            json!({ "backend": "iptables" }),
        );
        node.attachment("firewall", "ADD", &config, &old).result();
        node.attachment("firewall", "ADD", &config, &new).result();
        node.attachment("firewall", "DEL", &config, &old).ok();
        node.attachment("firewall", "CHECK", &config, &new).ok();
        assert!(run("iptables-save").contains("-A CNI-FORWARD -s 10.1.0.2/32 -j ACCEPT"));
    });
}

/// Runs the reference plugin.
fn reference(command: &str, config: &Value, pod: &Pod) {
    let mut config = config.clone();
    config["cniVersion"] = "1.0.0".into();
    config["prevResult"]["cniVersion"] = "1.0.0".into();
    let mut child = Command::new(REFERENCE);
    child
        .env("CNI_COMMAND", command)
        .env("CNI_CONTAINERID", &pod.id);
    child
        .env("CNI_IFNAME", "eth0")
        .env("CNI_NETNS", &pod.path)
        .env("CNI_PATH", "/usr/lib/cni");
    let answer = node::run(&mut child, config.to_string().as_bytes());
    assert!(answer.success, "{}", answer.stdout);
}

#[test]
fn either_side_removes_what_the_other_has_made() {
    if !Path::new(REFERENCE).exists() {
        eprintln!("SKIPPED: {REFERENCE} is not installed");
        return;
    }
    node(|node| {
        let (a, b) = (node.pod("a"), node.pod("b"));
        let extra = json!({ "backend": "iptables", "ingressPolicy": "same-bridge" });
        let of = |ips: &[&str]| firewall("net", &behind("br0", ips), extra.clone());
        let (first, second) = (
            of(&["10.1.0.2/24", "fd00::2/64"]),
            of(&["10.1.0.3/24", "fd00::3/64"]),
        );
        reference("ADD", &first, &a);
        let theirs = rules();
        node.attachment("firewall", "CHECK", &first, &a).ok();
        node.attachment("firewall", "ADD", &second, &b).result();
        reference("CHECK", &second, &b);
        node.attachment("firewall", "DEL", &second, &b).ok();
        assert_eq!(rules(), theirs, "shared rules are said in the same words");
        node.attachment("firewall", "DEL", &first, &a).ok();
        let none = rules();
        assert!(
            !none.contains("10.1.0.") && !none.contains("fd00::"),
            "{none}"
        );
        node.attachment("firewall", "ADD", &second, &b).result();
        reference("DEL", &second, &b);
        let left = rules();
        let left: Vec<&str> = left
            .lines()
            .filter(|line| line.contains("10.1.0.3"))
            .collect();
        assert!(
            left.iter()
                .all(|line| line.starts_with("-A CNI-FORWARD-OWNERS ")),
            "{left:?}"
        );
        let gc = json!({ "cniVersion": "1.1.0", "name": "net", "type": "firewall", "cni.dev/valid-attachments": [] });
        node.call("firewall", "GC", &gc, &[]).ok();
        assert!(!rules().contains("10.1.0."));
    });
}

/// Leaves only the programs of one family in `/usr/sbin`, for this thread.
fn hide_ip6tables() {
    let program = std::fs::read("/usr/sbin/xtables-nft-multi").unwrap();
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let nothing = None::<&str>;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(nothing, "/", nothing, private, nothing).unwrap();
    let empty = MsFlags::empty();
    mount(Some("tmpfs"), "/usr/sbin", Some("tmpfs"), empty, nothing).unwrap();
    for name in ["iptables-save", "iptables-restore"] {
        let path = format!("/usr/sbin/{name}");
        std::fs::write(&path, &program).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    }
}

#[test]
fn a_family_without_programs_fails_only_pods_that_have_it() {
    if !Path::new("/usr/sbin/xtables-nft-multi").exists() {
        eprintln!("SKIPPED: no iptables programs of the nft variant in /usr/sbin");
        return;
    }
    node(|node| {
        let (a, b) = (node.pod("a"), node.pod("b"));
        let of =
            |ips: &[&str]| firewall("net", &behind("br0", ips), json!({ "backend": "iptables" }));
        let (v4, both) = (of(&["10.1.0.2/24"]), of(&["10.1.0.3/24", "fd00::3/64"]));
        hide_ip6tables();
        node.attachment("firewall", "ADD", &v4, &a).result();
        node.attachment("firewall", "CHECK", &v4, &a).ok();
        let error = node.attachment("firewall", "ADD", &both, &b).error();
        let message = "run ip6tables-save: is not installed; install the package iptables, or \
                       choose the backend nftables";
        assert_eq!(error, (999, message.to_owned()));
        let saved = run("iptables-save");
        assert!(
            saved.contains("10.1.0.2") && !saved.contains("10.1.0.3"),
            "{saved}"
        );
        node.attachment("firewall", "DEL", &both, &b).ok();
        node.attachment("firewall", "DEL", &v4, &a).ok();
        assert!(!run("iptables-save").contains("10.1.0."));
    });
}

#[test]
fn the_legacy_variant_is_used_where_it_discards() {
    node(|node| {
        let policy = Command::new("iptables-legacy")
            .args(["-P", "FORWARD", "DROP"])
            .status();
        if !policy.is_ok_and(|status| status.success()) {
            eprintln!("SKIPPED: iptables-legacy does not work here");
            return;
        }
        let pod = node.pod("a");
        let before = behind("br0", &["10.1.0.2/24", "fd00::2/64"]);
        let config = firewall("net", &before, json!({ "ingressPolicy": "same-bridge" }));
        node.attachment("firewall", "ADD", &config, &pod).result();
        node.attachment("firewall", "CHECK", &config, &pod).ok();
        let legacy = run("iptables-legacy-save");
        assert!(
            legacy.contains("-A CNI-FORWARD -s 10.1.0.2/32 -j ACCEPT"),
            "{legacy}"
        );
        let own = run("nft list table inet cni_firewall");
        assert!(
            own.contains("fd00::2") && !own.contains("10.1.0.2"),
            "{own}"
        );
        run("iptables-legacy -F FORWARD");
        let (code, message) = node.attachment("firewall", "CHECK", &config, &pod).error();
        assert!(code == 999 && message.contains("FORWARD"), "{message}");
        node.attachment("firewall", "DEL", &config, &pod).ok();
        let left = [run("iptables-legacy-save"), run("nft list ruleset")].concat();
        assert!(
            !left.contains("10.1.0.2") && !left.contains("fd00::2"),
            "{left}"
        );
    });
}
