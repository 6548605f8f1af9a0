//! `host-local` under fire: many callers at once, and callers killed at any point.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod node;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use node::{Answer, Node, node};
use pretty_assertions::assert_eq;
use serde_json::{Value, json};

const CALLERS: usize = 200;
const ROUNDS: u32 = 300;

fn config(node: &Node, subnet: &str) -> Value {
    json!({
        "cniVersion": "1.1.0", "name": "net", "type": "bridge",
        "ipam": { "type": "host-local", "dataDir": node.path("state"), "subnet": subnet },
    })
}

fn variables(id: &str) -> [(&str, &str); 3] {
    [
        ("CNI_CONTAINERID", id),
        ("CNI_IFNAME", "eth0"),
        ("CNI_NETNS", "/run/netns/x"),
    ]
}

fn call(node: &Node, command: &str, config: &Value, id: &str) -> Answer {
    node.call("host-local", command, config, &variables(id))
}

/// Starts an ADD or DEL and does not wait for it.
fn start(node: &Node, command: &str, config: &Value, id: &str) -> Child {
    let mut child = Command::new(node.path("bin/host-local"))
        .env_clear()
        .envs(variables(id))
        .env("CNI_COMMAND", command)
        .env("CNI_PATH", node.path("bin"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("run the plugin");
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(config.to_string().as_bytes()).unwrap();
    child
}

fn address(answer: &Answer) -> String {
    let result = answer.result();
    result["ips"][0]["address"].as_str().unwrap().to_owned()
}

/// Who holds which address, as the files say.
fn files(node: &Node) -> BTreeMap<String, String> {
    let folder = node.path("state").join("net");
    let held = node.reservations("net").into_iter().map(|ip| {
        let text = fs::read_to_string(folder.join(&ip)).unwrap();
        (ip, text)
    });
    held.collect()
}

#[test]
fn two_hundred_callers_at_once_get_distinct_addresses() {
    node(|node| {
        let config = config(node, "10.1.0.0/24");
        let started: Vec<Child> = (0..CALLERS)
            .map(|n| start(node, "ADD", &config, &format!("c{n}")))
            .collect();
        let given: BTreeSet<String> = started
            .into_iter()
            .map(|child| {
                let output = child.wait_with_output().unwrap();
                assert!(output.status.success(), "{output:?}");
                let result: Value = serde_json::from_slice(&output.stdout).unwrap();
                result["ips"][0]["address"].as_str().unwrap().to_owned()
            })
            .collect();
        assert_eq!(given.len(), CALLERS);
        let owners: BTreeSet<String> = files(node).into_values().collect();
        assert_eq!(owners.len(), CALLERS);
    });
}

/// A number that looks random and is the same on every run.
fn scattered(seed: u64) -> u64 {
    let mut x = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[test]
fn a_caller_killed_at_any_point_costs_no_address_and_gives_none_twice() {
    node(|node| {
        let config = config(node, "10.1.0.0/26");
        // How long an undisturbed call takes, so that the kills fall all over it: the shortest of
        // some, because one that the machine held up would put most kills behind the end of others.
        let undisturbed = (0..5).map(|_| {
            let begun = Instant::now();
            call(node, "ADD", &config, "probe").result();
            let took = begun.elapsed();
            call(node, "DEL", &config, "probe").ok();
            took
        });
        let whole = undisturbed.min().unwrap();
        let mut valid: BTreeMap<String, String> = BTreeMap::new();
        let mut killed = 0;
        for round in 0..u64::from(ROUNDS) {
            let victim = format!("v{round}");
            let command = if round % 3 == 2 { "DEL" } else { "ADD" };
            let id = if command == "DEL" {
                format!("v{}", round - 1)
            } else {
                victim
            };
            let mut child = start(node, command, &config, &id);
            let percent = u32::try_from(scattered(round) % 110).unwrap();
            // The point of the kill is what is varied here; nothing is waited for.
            let end = Instant::now() + whole * percent / 100;
            while Instant::now() < end {
                std::hint::spin_loop();
            }
            if matches!(child.try_wait(), Ok(None)) {
                child.kill().unwrap();
                killed += 1;
            }
            child.wait().unwrap();
            // A call after it works as ever, and gets an address that nobody has.
            let id = format!("c{}", round % 20);
            let before = files(node);
            if valid.remove(&id).is_some() {
                call(node, "DEL", &config, &id).ok();
            }
            let answer = call(node, "ADD", &config, &id);
            let ip = address(&answer).split('/').next().unwrap().to_owned();
            let mine = before.get(&ip).is_none_or(|owner| owner.starts_with(&id));
            assert!(mine, "{ip} of {:?} was given again", before.get(&ip));
            assert!(!valid.values().any(|held| *held == ip), "{ip} given twice");
            valid.insert(id, ip);
            for (id, ip) in &valid {
                assert_eq!(files(node)[ip], format!("{id}\r\neth0"), "round {round}");
            }
            if round % 10 == 9 {
                collect(node, &config, &valid);
            }
        }
        assert!(killed > ROUNDS / 4, "only {killed} calls were killed");
        collect(node, &config, &valid);
        // All addresses that nobody has can still be had.
        let free = 61 - valid.len();
        for n in 0..free {
            call(node, "ADD", &config, &format!("last{n}")).result();
        }
        assert_eq!(files(node).len(), 61);
        assert_eq!(call(node, "ADD", &config, "one-too-many").error().0, 999);
    });
}

/// GC leaves exactly what is valid.
fn collect(node: &Node, config: &Value, valid: &BTreeMap<String, String>) {
    let named = valid
        .keys()
        .map(|id| json!({ "containerID": id, "ifname": "eth0" }));
    let mut config = config.clone();
    config["cni.dev/valid-attachments"] = named.collect();
    node.call("host-local", "GC", &config, &[]).ok();
    let left: BTreeMap<String, String> = files(node)
        .into_iter()
        .map(|(ip, owner)| (owner.split("\r\n").next().unwrap().to_owned(), ip))
        .collect();
    assert_eq!(&left, valid);
}

#[test]
fn a_file_cut_short_costs_its_address_only_until_gc() {
    node(|node| {
        let mut config = config(node, "10.1.0.0/29");
        call(node, "ADD", &config, "c1").result();
        let folder = node.path("state").join("net");
        for (ip, text) in [("10.1.0.3", ""), ("10.1.0.4", "c"), ("10.1.0.5", "\r\n")] {
            fs::write(folder.join(ip), text).unwrap();
        }
        fs::write(folder.join("last_reserved_ip.0"), "10.1.").unwrap();
        assert_eq!(address(&call(node, "ADD", &config, "c2")), "10.1.0.6/29");
        assert_eq!(call(node, "ADD", &config, "c3").error().0, 999);
        config["cni.dev/valid-attachments"] = json!([
            { "containerID": "c1", "ifname": "eth0" }, { "containerID": "c2", "ifname": "eth0" },
        ]);
        node.call("host-local", "GC", &config, &[]).ok();
        assert_eq!(node.reservations("net"), ["10.1.0.2", "10.1.0.6"]);
    });
}

#[test]
fn the_reference_plugin_works_in_the_same_folder() {
    let theirs = std::path::Path::new("/usr/lib/cni/host-local");
    if !theirs.exists() {
        eprintln!("SKIPPED: no reference plugin at {}", theirs.display());
        return;
    }
    node(|node| {
        let mut config = config(node, "10.1.0.0/24");
        config["cniVersion"] = "1.0.0".into();
        let foreign = |command: &str, id: &str| -> Answer {
            let mut child = Command::new(theirs);
            child
                .env_clear()
                .envs(variables(id))
                .env("CNI_COMMAND", command)
                .env("CNI_PATH", "/usr/lib/cni");
            node::run(&mut child, config.to_string().as_bytes())
        };
        let mut given = BTreeSet::new();
        for n in 0..20 {
            let answer = if n % 2 == 0 {
                call(node, "ADD", &config, &format!("c{n}"))
            } else {
                foreign("ADD", &format!("c{n}"))
            };
            assert!(given.insert(address(&answer)), "{answer:?} given twice");
        }
        assert_eq!(given.len(), 20);
        for n in 0..20 {
            // Each frees what the other has reserved.
            if n % 2 == 1 {
                call(node, "DEL", &config, &format!("c{n}")).ok();
            } else {
                assert!(foreign("DEL", &format!("c{n}")).success);
            }
        }
        assert_eq!(node.reservations("net"), [""; 0]);
    });
}

/// How long all of this may take at most, so that a call that hangs is noticed.
#[test]
fn a_lock_that_is_held_delays_and_does_not_fail() {
    node(|node| {
        let config = config(node, "10.1.0.0/24");
        call(node, "ADD", &config, "c1").result();
        let lock = fs::File::open(node.path("state/net/lock")).unwrap();
        let held = nix::fcntl::Flock::lock(lock, nix::fcntl::FlockArg::LockExclusive)
            .map_err(|(_, errno)| errno)
            .unwrap();
        let mut child = start(node, "ADD", &config, "c2");
        let deadline = Instant::now() + Duration::from_secs(10);
        let waits = || {
            let stack = fs::read_to_string(format!("/proc/{}/wchan", child.id()));
            let blocked = fs::read_to_string("/proc/locks").unwrap_or_default();
            stack.is_ok_and(|at| at.contains("lock"))
                || blocked.contains(&format!("-> FLOCK  ADVISORY  WRITE {}", child.id()))
        };
        while !waits() {
            assert!(
                Instant::now() < deadline,
                "the call does not wait for the lock"
            );
            std::thread::yield_now();
        }
        assert!(matches!(child.try_wait(), Ok(None)));
        drop(held);
        assert!(child.wait().unwrap().success());
    });
}
