//! The masquerade loop against a real kernel, in network namespaces of the test's own. Needs root.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod packets;

use std::io::Write as _;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use agent::config::{MasqueradeBackend, OverlayOptions};
use agent::reconcile::masquerade::{MasqueradeLoop, MasqueradeSettings};
use agent::reconcile::{Pass, Reconciler};
use desired::cluster::Cluster;
use desired::fixture::{cluster, node};
use nix::sched::{CloneFlags, unshare};
use pretty_assertions::assert_eq;

const LOOK: Pass = Pass {
    changed: false,
    look: true,
};
const POSTROUTING: [&str; 7] = [
    "-A POSTROUTING -m comment --comment \"towline masquerade\" -j TOWLINE-POSTRTG",
    "-A TOWLINE-POSTRTG ! -s 10.244.1.0/24 -j RETURN",
    "-A TOWLINE-POSTRTG -d 10.244.0.0/16 -j RETURN",
    "-A TOWLINE-POSTRTG -d 172.30.0.1/32 -j RETURN",
    "-A TOWLINE-POSTRTG -d 172.30.0.2/32 -j RETURN",
    "-A TOWLINE-POSTRTG -d 224.0.0.0/4 -j RETURN",
    "-A TOWLINE-POSTRTG -j MASQUERADE --random-fully",
];
const FORWARD: [&str; 3] = [
    "-A FORWARD -m comment --comment \"towline forward\" -j TOWLINE-FWD",
    "-A TOWLINE-FWD -s 10.244.0.0/16 -j ACCEPT",
    "-A TOWLINE-FWD -d 10.244.0.0/16 -j ACCEPT",
];

fn in_new_namespace(test: impl FnOnce() + Send + 'static) {
    assert!(
        nix::unistd::geteuid().is_root(),
        "this test makes a network namespace: run it as root"
    );
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let mut netlink = hostnet::Netlink::open().unwrap();
        netlink.set_up(&"lo".parse().unwrap()).unwrap();
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn two_nodes() -> Cluster {
    let own = node("n1", "10.244.1.0/24", "02:00:00:00:00:01", "172.30.0.1");
    let other = node("n2", "10.244.2.0/24", "02:00:00:00:00:02", "172.30.0.2");
    cluster("n1").with_node(own).with_node(other)
}

fn open(backend: MasqueradeBackend, refusals: bool) -> MasqueradeLoop {
    let options = OverlayOptions {
        backend,
        ..OverlayOptions::default()
    };
    MasqueradeLoop::open(&MasqueradeSettings {
        options,
        refusals,
        healthz: Vec::new(),
    })
    .unwrap()
}

fn pass(keeper: &mut MasqueradeLoop) -> (usize, usize) {
    let report = keeper.pass(&Arc::new(two_nodes()), LOOK);
    assert!(report.errors.is_empty(), "{:?}", report.errors);
    (report.puts, report.deletes)
}

/// Runs a program in the namespace of the calling thread.
fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

fn restore(text: &str) {
    let mut child = Command::new("iptables-restore")
        .arg("--noflush")
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    assert!(child.wait().unwrap().success());
}

/// The rules of a table, and no chains.
fn rules(table: &str) -> Vec<String> {
    let text = run("iptables-save", &["-t", table]);
    let rules = text.lines().filter(|line| line.starts_with("-A"));
    rules.map(str::to_owned).collect()
}

fn tables() -> Vec<String> {
    let text = run("nft", &["list", "tables"]);
    let tables = text
        .lines()
        .filter(|line| !line.contains(" filter") && !line.contains(" nat"));
    tables.map(str::to_owned).collect()
}

#[test]
fn a_flushed_reordered_or_doubled_table_is_put_right() {
    in_new_namespace(|| {
        let mut keeper = open(MasqueradeBackend::Nftables, true);
        pass(&mut keeper);
        let before = run("nft", &["-s", "list", "table", "inet", "towline"]);
        assert!(before.contains("masquerade fully-random"), "{before}");
        assert_eq!(pass(&mut keeper), (0, 0));
        let forward = ["table", "inet", "towline"];
        let damages: [&[&str]; 6] = [
            &["flush", forward[0], forward[1], forward[2]],
            &["flush", "chain", "inet", "towline", "postrouting"],
            &["delete", "table", "inet", "towline"],
            &[
                "add", "rule", "inet", "towline", "forward", "ip", "saddr", "@pods4", "accept",
            ],
            &["insert", "rule", "inet", "towline", "postrouting", "return"],
            &[
                "add",
                "element",
                "inet",
                "towline",
                "inside4",
                "{ 192.0.2.0/24 }",
            ],
        ];
        for damage in damages {
            run("nft", damage);
            assert_eq!(pass(&mut keeper), (1, 0), "{damage:?}");
            let after = run("nft", &["-s", "list", "table", "inet", "towline"]);
            assert_eq!(after, before, "{damage:?}");
        }
        assert_eq!(tables(), ["table inet towline"], "and no iptables");
    });
}

#[test]
fn iptables_holds_the_same_in_chains_of_our_own() {
    in_new_namespace(|| {
        restore("*nat\n-A POSTROUTING -o lo -j ACCEPT\nCOMMIT\n");
        let mut keeper = open(MasqueradeBackend::Iptables, false);
        assert_eq!(pass(&mut keeper), (2, 0));
        let mut nat = vec!["-A POSTROUTING -o lo -j ACCEPT"];
        nat.extend(POSTROUTING);
        assert_eq!(
            (rules("nat"), rules("filter")),
            (text(&nat), text(&FORWARD))
        );
        assert_eq!(pass(&mut keeper), (0, 0));
        let damages = [
            "*nat\n-F TOWLINE-POSTRTG\nCOMMIT\n",
            "*nat\n-F POSTROUTING\n-A POSTROUTING -o lo -j ACCEPT\nCOMMIT\n",
            "*nat\n-A POSTROUTING -m comment --comment \"towline masquerade\" -j TOWLINE-POSTRTG\nCOMMIT\n",
            "*nat\n-I TOWLINE-POSTRTG 1 -j RETURN\nCOMMIT\n",
            "*nat\n-D TOWLINE-POSTRTG -d 172.30.0.1/32 -j RETURN\n-A TOWLINE-POSTRTG -d 172.30.0.1/32 -j RETURN\nCOMMIT\n",
            "*filter\n-F FORWARD\n-F TOWLINE-FWD\n-X TOWLINE-FWD\nCOMMIT\n",
        ];
        for damage in damages {
            restore(damage);
            assert_eq!(pass(&mut keeper), (1, 0), "{damage}");
            assert_eq!(
                (rules("nat"), rules("filter")),
                (text(&nat), text(&FORWARD)),
                "{damage}"
            );
        }
        assert_eq!(
            tables(),
            Vec::<String>::new(),
            "nothing of ours in nftables"
        );
    });
}

fn text(rules: &[&str]) -> Vec<String> {
    rules.iter().map(|rule| (*rule).to_owned()).collect()
}

#[test]
fn a_node_whose_subnet_is_not_known_for_a_while_keeps_its_rules() {
    for backend in [MasqueradeBackend::Nftables, MasqueradeBackend::Iptables] {
        in_new_namespace(move || {
            let mut keeper = open(backend, true);
            let mut alone = two_nodes();
            alone.nodes.clear();
            // Before there is one, what needs none is there.
            let report = keeper.pass(&Arc::new(alone.clone()), LOOK);
            assert!(report.errors.is_empty(), "{:?}", report.errors);
            assert_eq!(tables(), ["table inet towline"]);
            pass(&mut keeper);
            let show = || match backend {
                MasqueradeBackend::Nftables => run("nft", &["-s", "list", "ruleset"]),
                MasqueradeBackend::Iptables => rules("nat").join("\n"),
            };
            let before = show();
            assert!(before.to_lowercase().contains("masquerade"), "{before}");
            // The Node object was deleted, and is about to be registered again.
            let report = keeper.pass(&Arc::new(alone), LOOK);
            assert_eq!(
                (report.puts, report.deletes, report.errors.len()),
                (0, 0, 0)
            );
            assert_eq!(show(), before);
        });
    }
}

#[test]
fn what_was_put_right_is_counted_and_what_is_wanted_otherwise_is_not() {
    in_new_namespace(|| {
        let mut keeper = open(MasqueradeBackend::Nftables, true);
        let mut drift = |cluster: Cluster| keeper.pass(&Arc::new(cluster), LOOK).drift;
        assert_eq!(drift(two_nodes()), 0);
        let third = node("n3", "10.244.3.0/24", "02:00:00:00:00:03", "172.30.0.3");
        assert_eq!(drift(two_nodes().with_node(third)), 0);
        run("nft", &["flush", "chain", "inet", "towline", "postrouting"]);
        assert_eq!(drift(two_nodes()), 1);
    });
}

#[test]
fn a_change_of_backend_leaves_nothing_of_the_other() {
    in_new_namespace(|| {
        pass(&mut open(MasqueradeBackend::Iptables, false));
        assert_eq!(rules("nat"), POSTROUTING);
        let mut keeper = open(MasqueradeBackend::Nftables, false);
        pass(&mut keeper);
        assert_eq!((rules("nat"), rules("filter")), (vec![], vec![]));
        assert_eq!(tables(), ["table inet towline"]);
        assert_eq!(pass(&mut keeper), (0, 0));
        // The data path's refusals stay in nftables.
        pass(&mut open(MasqueradeBackend::Iptables, true));
        let table = run("nft", &["list", "table", "inet", "towline"]);
        assert!(
            table.contains("hook prerouting") && !table.contains("hook forward"),
            "{table}"
        );
        pass(&mut open(MasqueradeBackend::Iptables, false));
        assert_eq!(tables(), Vec::<String>::new());
    });
}

/// A process called flanneld in the namespace of the calling thread, until it is dropped.
struct Flanneld {
    process: Child,
    _folder: tempfile::TempDir,
}

impl Flanneld {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("flanneld");
        std::os::unix::fs::symlink("/bin/sleep", &program).unwrap();
        Self {
            process: Command::new(program).arg("600").spawn().unwrap(),
            _folder: folder,
        }
    }
}

impl Drop for Flanneld {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

const FLANNELS: &str = "*nat\n:FLANNEL-POSTRTG - [0:0]\n-A POSTROUTING -j FLANNEL-POSTRTG\n\
    -A POSTROUTING -o lo -j ACCEPT\n-A FLANNEL-POSTRTG -s 10.244.0.0/16 -j RETURN\nCOMMIT\n\
    *filter\n:FLANNEL-FWD - [0:0]\n-A FORWARD -j FLANNEL-FWD\n\
    -A FLANNEL-FWD -s 10.244.0.0/16 -j ACCEPT\nCOMMIT\n";

/// What flanneld has in a namespace, in both of its modes.
fn make_flannels_rules() {
    restore(FLANNELS);
    for (family, table) in [("ip", "flannel-ipv4"), ("ip6", "flannel-ipv6")] {
        run("nft", &["add", "table", family, table]);
        let chain = "{ type nat hook postrouting priority srcnat; }";
        run("nft", &["add", "chain", family, table, "postrtg", chain]);
        run("nft", &["add", "rule", family, table, "postrtg", "return"]);
    }
}

/// Whether anything of it is there: rules of iptables, and tables of nftables.
fn flannels_rules() -> (usize, usize) {
    let rules = rules("nat").into_iter().chain(rules("filter"));
    let rules = rules.filter(|rule| rule.contains("FLANNEL")).count();
    (
        rules,
        tables()
            .iter()
            .filter(|table| table.contains("flannel"))
            .count(),
    )
}

#[test]
fn flannelds_rules_are_left_alone_while_it_runs_and_removed_when_it_is_gone() {
    for backend in [MasqueradeBackend::Nftables, MasqueradeBackend::Iptables] {
        in_new_namespace(move || {
            make_flannels_rules();
            let flanneld = Flanneld::start();
            let mut keeper = open(backend, false);
            pass(&mut keeper);
            assert_eq!(flannels_rules(), (4, 2));
            drop(flanneld);
            // Its rules are not ours: their removal is no repair of anything.
            assert_eq!(pass(&mut keeper), (0, 0));
            assert_eq!(flannels_rules(), (0, 0));
            let kept = "-A POSTROUTING -o lo -j ACCEPT".to_owned();
            assert!(rules("nat").contains(&kept), "others' rules stay");
            // One that comes back is left alone again, even where it is not seen: there are its rules.
            make_flannels_rules();
            pass(&mut keeper);
            assert_eq!(flannels_rules(), (4, 2));
            let flanneld = Flanneld::start();
            pass(&mut keeper);
            assert_eq!(flannels_rules(), (4, 2));
            drop(flanneld);
        });
    }
}

#[test]
fn a_flanneld_elsewhere_does_not_count() {
    let elsewhere = Flanneld::start();
    in_new_namespace(|| {
        make_flannels_rules();
        pass(&mut open(MasqueradeBackend::Nftables, false));
        assert_eq!(flannels_rules(), (0, 0));
    });
    drop(elsewhere);
}

#[test]
fn a_flanneld_that_cannot_be_seen_is_known_by_its_health_port() {
    in_new_namespace(|| {
        make_flannels_rules();
        let health = TcpListener::bind("127.0.0.1:8081").unwrap();
        let mut keeper = open(MasqueradeBackend::Nftables, false);
        pass(&mut keeper);
        assert_eq!(flannels_rules(), (4, 2));
        drop(health);
        pass(&mut keeper);
        assert_eq!(flannels_rules(), (0, 0));
    });
}
