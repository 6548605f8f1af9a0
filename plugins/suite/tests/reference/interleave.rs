//! host-local of both sides at once on the same files: no address is given twice, and each frees
//! what the other gave.

use std::collections::BTreeMap;

use pretty_assertions::assert_eq;
use serde_json::json;

use crate::node::Node;
use crate::observe::reservations;
use crate::world::{Answer, Attachment, Maker, world};

/// A call of host-local for container `id`.
fn call(node: &Node, command: &str, id: &str) -> Answer {
    let config = json!({
        "cniVersion": "1.0.0", "name": "net", "type": "host-local",
        "ipam": { "type": "host-local", "dataDir": node.path("state"), "subnet": "10.1.0.0/26" },
    });
    let attachment = Attachment {
        plugin: "host-local".to_owned(),
        config,
        id: id.to_owned(),
        ifname: "eth0".to_owned(),
        netns: Some("/run/netns/none".to_owned()),
        args: String::new(),
    };
    node.does(command, &attachment)
}

fn by(node: &Node, maker: Maker, command: &str, id: &str) -> Answer {
    node.install("host-local", maker);
    call(node, command, id)
}

fn address(answer: &Answer) -> String {
    assert!(answer.success, "{answer:?}");
    answer.json()["ips"][0]["address"]
        .as_str()
        .unwrap()
        .to_owned()
}

fn maker(n: usize) -> Maker {
    if n.is_multiple_of(2) {
        Maker::Ours
    } else {
        Maker::Reference
    }
}

#[test]
fn each_notices_what_the_other_gave_and_freed() {
    world(Maker::Ours, |node| {
        // 61 addresses besides the gateway: 20 owners live at a time, many times round the range,
        // and every owner is checked and freed by the side that did not make it.
        let mut held: BTreeMap<String, String> = BTreeMap::new();
        for n in 0..200 {
            let id = format!("c{n}");
            let ip = address(&by(node, maker(n), "ADD", &id));
            let double = held.values().any(|other| *other == ip);
            assert!(
                !double,
                "{ip} is given twice, the second time by {:?}",
                maker(n)
            );
            held.insert(id.clone(), ip);
            by(node, maker(n + 1), "CHECK", &id).ok();
            if let Some(before) = n.checked_sub(20) {
                let old = format!("c{before}");
                by(node, maker(before + 1 + n / 50), "DEL", &old).ok();
                held.remove(&old);
                let answer = by(node, maker(before), "CHECK", &old);
                assert!(!answer.success, "the reservation of {old} is still seen");
            }
        }
        let mut expected: Vec<String> = held
            .iter()
            .map(|(id, ip)| format!("reserved {} for {id} eth0", ip.trim_end_matches("/26")))
            .collect();
        expected.sort();
        assert_eq!(reservations(node), expected);
    });
}

#[test]
fn one_round_robin_is_shared() {
    world(Maker::Ours, |node| {
        let given: Vec<String> = (0..8)
            .map(|n| address(&by(node, maker(n), "ADD", &format!("c{n}"))))
            .collect();
        let expected: Vec<String> = (2..10).map(|host| format!("10.1.0.{host}/26")).collect();
        assert_eq!(given, expected);
        // What the other side freed comes again only after the round, as if one had done it all.
        by(node, Maker::Reference, "DEL", "c0").ok();
        by(node, Maker::Ours, "DEL", "c1").ok();
        assert_eq!(address(&by(node, Maker::Ours, "ADD", "d0")), "10.1.0.10/26");
        assert_eq!(
            address(&by(node, Maker::Reference, "ADD", "d1")),
            "10.1.0.11/26"
        );
    });
}

#[test]
fn an_exhausted_range_is_exhausted_for_both_and_a_foreign_del_helps_at_once() {
    world(Maker::Ours, |node| {
        for n in 0..61 {
            address(&by(node, maker(n), "ADD", &format!("c{n}")));
        }
        for maker in [Maker::Ours, Maker::Reference] {
            assert!(
                !by(node, maker, "ADD", "late").success,
                "{maker:?} found another"
            );
        }
        for (victim, freer) in [("c40", Maker::Reference), ("c41", Maker::Ours)] {
            let other = match freer {
                Maker::Ours => Maker::Reference,
                Maker::Reference => Maker::Ours,
            };
            by(node, freer, "DEL", victim).ok();
            address(&by(node, other, "ADD", &format!("after-{victim}")));
        }
        assert_eq!(reservations(node).len(), 61);
    });
}

#[test]
fn both_at_once_never_give_one_address_twice() {
    world(Maker::Ours, |node| {
        // Both programs side by side, each under a name of its own.
        let bin = node.path("bin");
        std::fs::rename(bin.join("host-local"), bin.join("ours")).unwrap();
        node.install("host-local", Maker::Reference);
        std::fs::create_dir(bin.join("of")).unwrap();
        let own = bin.join("of").join("host-local");
        std::fs::rename(bin.join("ours"), &own).unwrap();
        let add = |n: usize| {
            let config = json!({
                "cniVersion": "1.0.0", "name": "net", "type": "host-local",
                "ipam": { "type": "host-local", "dataDir": node.path("state"),
                          "subnet": "10.1.0.0/24" },
            });
            let plugin = match maker(n) {
                Maker::Ours => "of/host-local",
                Maker::Reference => "host-local",
            };
            let attachment = Attachment {
                plugin: plugin.to_owned(),
                config,
                id: format!("c{n}"),
                ifname: "eth0".to_owned(),
                netns: Some("/run/netns/none".to_owned()),
                args: String::new(),
            };
            let address = address(&node.does("ADD", &attachment));
            // Every third is freed while others are being given.
            if n.is_multiple_of(3) {
                node.does("DEL", &attachment).ok();
                return None;
            }
            Some(address)
        };
        let mut given: Vec<String> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..150).map(|n| scope.spawn(move || add(n))).collect();
            threads
                .into_iter()
                .filter_map(|thread| thread.join().unwrap())
                .collect()
        });
        let all = given.len();
        given.sort();
        given.dedup();
        assert_eq!((all, given.len()), (100, 100));
        assert_eq!(reservations(node).len(), 100);
    });
}
