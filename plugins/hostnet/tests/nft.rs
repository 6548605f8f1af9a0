//! nftables: what is written is what `nft list` shows, in one transaction, and drift is noticed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod fresh;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use ipnetwork::IpNetwork;
use netstate::nft::{
    Addresses, Base, Chain, CtStates, DeviceName, Family, FibKind, Hook, Mark, Match, Reject, Rule,
    Set, Table, Verdict,
};
use netstate::{Report, Wanted, reconcile};
use pretty_assertions::assert_eq;
use towline_hostnet::{NftTarget, Nftables};

fn net(text: &str) -> IpNetwork {
    text.parse().unwrap()
}

fn nft(arguments: &str) -> String {
    let output = Command::new("nft")
        .args(arguments.split(' '))
        .output()
        .expect("run nft");
    assert!(
        output.status.success(),
        "nft {arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn set(family: Family, interval: bool, elements: &[&str]) -> Set {
    Set {
        family,
        interval,
        elements: elements.iter().map(|text| net(text)).collect(),
    }
}

fn prefix(text: &str) -> Addresses {
    Addresses::Prefix(net(text))
}

fn named(text: &str) -> Addresses {
    Addresses::Set(text.to_owned())
}

/// The table that a node needs, with one rule of every sort.
fn node_table() -> Table {
    let reject = Mark {
        mask: 0x4000,
        value: 0x4000,
    };
    let tcp = Match::Protocol(6);
    let device = |text: &str| text.parse().unwrap();
    let masquerade = vec![
        Rule::new(vec![Match::NotSource(named("pods"))], Verdict::Return),
        Rule::new(vec![Match::Destination(named("pods"))], Verdict::Return),
        Rule::new(
            vec![Match::Destination(prefix("224.0.0.0/4"))],
            Verdict::Return,
        ),
        Rule::new(
            vec![Match::DestinationKind(FibKind::Local)],
            Verdict::Accept,
        ),
        Rule::new(vec![], Verdict::Masquerade { random_fully: true }).counted(),
    ];
    let forward = vec![
        Rule::new(
            vec![Match::Mark(reject), tcp.clone()],
            Verdict::Reject(Reject::TcpReset),
        ),
        Rule::new(
            vec![Match::Mark(reject)],
            Verdict::Reject(Reject::PortUnreachable),
        ),
        Rule::new(
            vec![Match::CtState(CtStates::ESTABLISHED.or(CtStates::RELATED))],
            Verdict::Accept,
        ),
        Rule::new(
            vec![Match::InDevice(DeviceName::BeginsWith(device("veth")))],
            Verdict::Accept,
        )
        .counted()
        .comment("pods may send"),
        Rule::new(
            vec![Match::OutDevice(DeviceName::Is(device("flannel.1")))],
            Verdict::Accept,
        ),
        Rule::new(
            vec![Match::NotInDevice(DeviceName::Is(device("lo")))],
            Verdict::Jump("more".into()),
        ),
    ];
    let mut marking = Rule::new(vec![tcp, Match::DestinationPort(80)], Verdict::Return);
    marking.set_mark = Some(Mark {
        mask: 0x8000,
        value: 0x8000,
    });
    let more = vec![
        marking,
        Rule::new(
            vec![Match::Source(prefix("fd00::/64")), Match::Dnatted],
            Verdict::Drop,
        ),
        Rule::new(
            vec![Match::NotDestination(prefix("10.1.2.3/32"))],
            Verdict::Reject(Reject::AdminProhibited),
        ),
        Rule::new(vec![Match::Source(named("blocked6"))], Verdict::Drop),
    ];
    let mut table = Table::new("towline");
    table.sets = BTreeMap::from([
        (
            "pods".into(),
            set(Family::V4, true, &["10.244.0.0/16", "10.96.0.0/16"]),
        ),
        (
            "blocked6".into(),
            set(Family::V6, false, &["fd00::1/128", "fd00::2/128"]),
        ),
    ]);
    table.chains = BTreeMap::from([
        (
            "postrouting".into(),
            Chain::base(Base::nat(Hook::Postrouting, 100), masquerade),
        ),
        (
            "forward".into(),
            Chain::base(Base::filter(Hook::Forward, -5), forward),
        ),
        (
            "more".into(),
            Chain {
                base: None,
                rules: more,
            },
        ),
    ]);
    table
}

const LISTING: &str = "table inet towline {
	set blocked6 {
		type ipv6_addr
		elements = { fd00::1,
			     fd00::2 }
	}

	set pods {
		type ipv4_addr
		flags interval
		elements = { 10.96.0.0/16, 10.244.0.0/16 }
	}

	chain forward {
		type filter hook forward priority filter - 5; policy accept;
		meta mark & 0x00004000 == 0x00004000 meta l4proto tcp reject with tcp reset
		meta mark & 0x00004000 == 0x00004000 reject
		ct state established,related accept
		iifname \"veth*\" counter packets 0 bytes 0 accept comment \"pods may send\"
		oifname \"flannel.1\" accept
		iifname != \"lo\" jump more
	}

	chain more {
		tcp dport 80 meta mark set meta mark | 0x00008000 return
		ip6 saddr fd00::/64 ct status dnat drop
		ip daddr != 10.1.2.3 reject with icmpx admin-prohibited
		ip6 saddr @blocked6 drop
	}

	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr != @pods return
		ip daddr @pods return
		ip daddr 224.0.0.0/4 return
		fib daddr type local accept
		counter packets 0 bytes 0 masquerade fully-random
	}
}
";

#[test]
fn the_kernel_shows_the_table_that_was_written() {
    fresh::netns(|| {
        let mut nftables = Nftables::open().unwrap();
        nftables.replace(&node_table()).unwrap();
        assert_eq!(nft("list table inet towline"), LISTING);
        nftables.replace(&node_table()).unwrap();
        assert_eq!(
            nft("list ruleset"),
            LISTING,
            "replacing twice is replacing once"
        );
        nftables.delete("towline").unwrap();
        nftables.delete("towline").unwrap();
        assert_eq!(nft("list ruleset"), "");
    });
}

#[test]
fn a_refused_table_changes_nothing() {
    fresh::netns(|| {
        let mut nftables = Nftables::open().unwrap();
        nftables.replace(&node_table()).unwrap();
        let mut broken = node_table();
        let nowhere = Rule::new(vec![], Verdict::Jump("nowhere".into()));
        broken.chains.get_mut("more").unwrap().rules.push(nowhere);
        let error = nftables.replace(&broken).unwrap_err();
        assert!(error.is_not_found(), "{error}");
        assert_eq!(error.object, "towline");
        assert_eq!(nft("list ruleset"), LISTING);

        let mut wrong = node_table();
        wrong
            .sets
            .insert("mixed".into(), set(Family::V4, true, &["fd00::/64"]));
        assert_eq!(
            nftables.replace(&wrong).unwrap_err().to_string(),
            "encode set element fd00::/64 of set mixed: is of the other address family"
        );
    });
}

#[test]
fn ten_thousand_elements_go_in_one_transaction() {
    fresh::netns(|| {
        let mut table = Table::new("towline");
        let elements: BTreeSet<IpNetwork> = (0..10_000_u32)
            .map(|n| IpNetwork::from(std::net::IpAddr::from((0x0a00_0000 + n * 2).to_be_bytes())))
            .collect();
        for (name, interval) in [("plain", false), ("ranges", true)] {
            let elements = elements.clone();
            table.sets.insert(
                name.into(),
                Set {
                    family: Family::V4,
                    interval,
                    elements,
                },
            );
        }
        Nftables::open().unwrap().replace(&table).unwrap();
        for name in ["plain", "ranges"] {
            let listing = nft(&format!("-j list set inet towline {name}"));
            assert_eq!(listing.matches("\"10.0.").count(), 10_000, "in set {name}");
        }
    });
}

#[test]
fn every_sort_of_drift_is_noticed_and_healed() {
    fresh::netns(|| {
        let mut target = NftTarget::new(Nftables::open().unwrap(), "towline");
        let wanted = BTreeMap::from([("towline".to_owned(), node_table())]);
        let mut pass = |wanted: &BTreeMap<String, Table>| {
            reconcile(&mut [&mut Wanted::new("nftables", &mut target, wanted)])
        };
        let one = Report {
            puts: 1,
            deletes: 0,
            drift: 0,
            errors: vec![],
        };
        assert_eq!(pass(&wanted), one);
        assert!(pass(&wanted).is_quiet());
        for change in [
            "delete table inet towline",
            "flush chain inet towline forward",
            "add rule inet towline more accept",
            "insert rule inet towline more accept",
            "add element inet towline pods { 172.16.0.0/12 }",
            "delete element inet towline blocked6 { fd00::1 }",
            "add chain inet towline stray",
            "add set inet towline stray { type ipv4_addr; }",
            "chain inet towline forward { policy drop; }",
        ] {
            nft(change);
            assert_eq!(pass(&wanted), one, "after nft {change}");
            assert_eq!(
                nft("list table inet towline"),
                LISTING,
                "after nft {change}"
            );
            assert!(pass(&wanted).is_quiet(), "after nft {change}");
        }
        nft("add table inet other");
        assert!(
            pass(&wanted).is_quiet(),
            "somebody else's table is none of ours"
        );
        assert_eq!(pass(&BTreeMap::new()).deletes, 1);
        assert_eq!(nft("list ruleset"), "table inet other {\n}\n");
    });
}
