//! Rules of many owners in one nftables table.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod fresh;

use std::time::{Duration, Instant};

use netstate::nft::{
    Addresses, Base, Chain, ChainRef, Hook, Mark, Match, Owner, Rule, SharedRule, SharedRules,
    SharedTable, Table, TableFamily, Verdict,
};
use pretty_assertions::assert_eq;
use towline_hostnet::Nftables;

fn shared(owner: &str, address: &str) -> SharedRules {
    let mut frame = Table::new("shared");
    let entry = vec![Rule::new(vec![], Verdict::Goto("checks".into()))];
    let base = Base::nat(Hook::Postrouting, 100);
    frame
        .chains
        .insert("entry".into(), Chain::base(base, entry));
    frame.chains.insert("checks".into(), Chain::default());
    let source = Match::Source(Addresses::Prefix(address.parse().unwrap()));
    let rule = Rule::new(
        vec![source],
        Verdict::Masquerade {
            random_fully: false,
        },
    );
    SharedRules::in_chain(frame, "checks", owner, vec![rule])
}

fn checks() -> [ChainRef; 1] {
    [ChainRef::inet("shared", "checks")]
}

fn comments(nftables: &mut Nftables) -> Vec<String> {
    let owners = nftables.rule_owners(&checks()[0]).unwrap().into_iter();
    owners.map(|owner| owner.comment).collect()
}

fn ruleset() -> String {
    nft("list ruleset")
}

fn nft(line: &str) -> String {
    let output = std::process::Command::new("nft")
        .args(line.split(' '))
        .output()
        .unwrap();
    assert!(output.status.success(), "nft {line}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_whole_frame_is_left_alone_and_a_damaged_one_is_repaired() {
    fresh::netns(|| {
        let mut nftables = Nftables::open().unwrap();
        let mut add = |address| nftables.add_rules(&shared("a", address)).unwrap();
        add("10.0.0.1/32");
        let jump = || {
            let list = nft("-a list chain inet shared entry");
            let line = list.lines().find(|line| line.contains("goto"));
            line.map(|line| line.trim().to_owned())
        };
        let first = jump().expect("the frame's rule");
        add("10.0.0.2/32");
        assert_eq!(jump().as_ref(), Some(&first), "the same rule, not another");

        nft("flush chain inet shared entry");
        add("10.0.0.3/32");
        assert!(jump().is_some(), "the frame's rule was not put back");

        nft("flush table inet shared");
        nft("delete chain inet shared checks");
        add("10.0.0.4/32");
        assert_eq!(comments(&mut nftables), ["a"]);
        assert!(jump().is_some());
    });
}

#[test]
fn owners_come_and_go_without_touching_each_other() {
    fresh::netns(|| {
        let mut nftables = Nftables::open().unwrap();
        let nobody = nftables.delete_rules(&checks(), &|_| true).unwrap();
        assert_eq!(nobody, 0, "a table that is not there has no rules");
        for (owner, address) in [
            ("a", "10.0.0.1/32"),
            ("b", "10.0.0.2/32"),
            ("a", "fd00::1/128"),
        ] {
            nftables.add_rules(&shared(owner, address)).unwrap();
        }
        assert_eq!(
            ruleset(),
            "table inet shared {
\tchain checks {
\t\tip saddr 10.0.0.1 masquerade comment \"a\"
\t\tip saddr 10.0.0.2 masquerade comment \"b\"
\t\tip6 saddr fd00::1 masquerade comment \"a\"
\t}

\tchain entry {
\t\ttype nat hook postrouting priority srcnat; policy accept;
\t\tgoto checks
\t}
}
"
        );
        assert_eq!(comments(&mut nftables), ["a", "b", "a"]);
        assert_eq!(
            nftables
                .delete_rules(&checks(), &|owner| owner.comment == "a")
                .unwrap(),
            2
        );
        assert_eq!(
            nftables
                .delete_rules(&checks(), &|owner| owner.comment == "a")
                .unwrap(),
            0
        );
        assert_eq!(comments(&mut nftables), ["b"]);
    });
}

#[test]
fn parallel_owners_leave_one_entry_rule() {
    fresh::netns(|| {
        let own = towline_hostnet::Netns::current().unwrap();
        std::thread::scope(|scope| {
            for n in 0..20 {
                let own = &own;
                scope.spawn(move || {
                    let mut nftables = Nftables::open_in(own).unwrap();
                    nftables
                        .add_rules(&shared(&n.to_string(), &format!("10.0.0.{n}/32")))
                        .unwrap();
                });
            }
        });
        let text = ruleset();
        assert_eq!(text.matches("goto checks").count(), 1);
        assert_eq!(text.matches("masquerade").count(), 20);
    });
}

#[test]
fn rules_that_somebody_else_removes_meanwhile_do_not_save_the_others() {
    fresh::netns(|| {
        let (mut first, mut second) = (Nftables::open().unwrap(), Nftables::open().unwrap());
        for (owner, address) in [("a", "10.0.0.1/32"), ("b", "10.0.0.2/32")] {
            first.add_rules(&shared(owner, address)).unwrap();
        }
        let second = std::cell::RefCell::new(&mut second);
        // Asked about a rule after the list was read, the other one removes it first.
        let is_stale = |owner: &Owner| {
            if owner.comment == "a" {
                let removed = second
                    .borrow_mut()
                    .delete_rules(&checks(), &|owner| owner.comment == "a");
                removed.unwrap();
            }
            true
        };
        first.delete_rules(&checks(), &is_stale).unwrap();
        let left = comments(&mut first);
        assert_eq!(left, [""; 0]);
    });
}

/// An owner's rules in chains of tables of two families, one of them a base chain.
fn ports(owner: &Owner, port: u16) -> SharedRules {
    let table = |family, target: &str| {
        let mut frame = Table::of(family, "ports");
        let jump = Rule::new(vec![], Verdict::Jump("targets".into()));
        let entry = Chain::base(Base::nat(Hook::Prerouting, -100), vec![jump]);
        frame.chains.insert("entry".into(), entry);
        frame.chains.insert("targets".into(), Chain::default());
        let leave = Chain::base(Base::nat(Hook::Postrouting, 100), vec![]);
        frame.chains.insert("leave".into(), leave);
        let address = target.parse().unwrap();
        let dnat = Verdict::Dnat {
            address,
            port: Some(80),
        };
        let matches = vec![Match::Protocol(6), Match::DestinationPort(port)];
        let own = Match::Source(Addresses::Prefix(address.into()));
        let mut mark = Rule::new(vec![own.clone()], Verdict::Return);
        mark.set_mark = Some(Mark {
            mask: 0x2000,
            value: 0x2000,
        });
        let random_fully = false;
        let rules = vec![
            SharedRule::last("targets", Rule::new(matches, dnat)),
            SharedRule::first("targets", mark),
            SharedRule::last(
                "leave",
                Rule::new(vec![own], Verdict::Masquerade { random_fully }),
            ),
        ];
        SharedTable { frame, rules }
    };
    SharedRules {
        owner: owner.clone(),
        tables: vec![
            table(TableFamily::Ip, "10.0.0.2"),
            table(TableFamily::Ip6, "fd00::2"),
        ],
    }
}

#[test]
fn an_owner_has_rules_in_several_chains_and_families_and_a_tag_that_nft_does_not_show() {
    fresh::netns(|| {
        let mut nftables = Nftables::open().unwrap();
        let owners = [Owner::tagged("c1", "one"), Owner::tagged("c1", "two")];
        nftables.add_rules(&ports(&owners[0], 8080)).unwrap();
        let one = ruleset();
        assert_eq!(
            one.split("table ip6").next().unwrap(),
            "table ip ports {
\tchain entry {
\t\ttype nat hook prerouting priority dstnat; policy accept;
\t\tjump targets
\t}

\tchain leave {
\t\ttype nat hook postrouting priority srcnat; policy accept;
\t\tip saddr 10.0.0.2 masquerade comment \"c1\"
\t}

\tchain targets {
\t\tip saddr 10.0.0.2 meta mark set meta mark | 0x00002000 return comment \"c1\"
\t\ttcp dport 8080 dnat to 10.0.0.2:80 comment \"c1\"
\t}
}
"
        );
        assert!(one.contains("tcp dport 8080 dnat to [fd00::2]:80 comment \"c1\""));
        let second = ports(&owners[1], 8081);
        nftables.add_rules(&second).unwrap();
        assert!(ruleset().find("8080") < ruleset().find("8081"));
        let chains = second.chains();
        let is_second = |owner: &Owner| *owner == owners[1];
        let again = nftables.replace_rules(&second, &chains, &is_second);
        assert_eq!(again.unwrap(), 6, "the same rules again are made once");
        assert_eq!(ruleset().matches("8081").count(), 2);
        assert_eq!(nftables.delete_rules(&chains, &is_second).unwrap(), 6);
        assert_eq!(ruleset(), one);
        let found = nftables.rule_owners(&chains[0]).unwrap();
        assert_eq!(found, [owners[0].clone()]);
    });
}

#[test]
fn a_rule_of_the_other_family_is_refused() {
    fresh::netns(|| {
        let mut shared = ports(&Owner::commented("c1"), 1);
        let rules = shared.tables[1].rules.clone();
        shared.tables[0].rules = rules;
        let error = Nftables::open().unwrap().add_rules(&shared).unwrap_err();
        assert_eq!(
            error.to_string(),
            "encode rule of table ports: matches addresses of the other family"
        );
        assert_eq!(ruleset(), "");
    });
}

/// A node whose pods come and go at once changes its rules all the time, and a long list of them is
/// never read whole without a change in between.
#[test]
fn a_long_list_is_read_while_others_change_the_rules() {
    fresh::netns(|| {
        let mut nftables = Nftables::open().unwrap();
        let mut many = shared("many", "10.0.0.1/32");
        let rule = many.tables[0].rules[0].clone();
        many.tables[0].rules = vec![rule; 1500];
        nftables.add_rules(&many).unwrap();
        let own = towline_hostnet::Netns::current().unwrap();
        // Others stop well before a reader loses its patience, so that a slow machine is no failure.
        let end = Instant::now() + Duration::from_secs(3);
        std::thread::scope(|scope| {
            for n in 0..2 {
                let own = &own;
                scope.spawn(move || {
                    let mut nftables = Nftables::open_in(own).unwrap();
                    let other = shared(&n.to_string(), "10.0.0.2/32");
                    while Instant::now() < end {
                        nftables.add_rules(&other).unwrap();
                    }
                });
            }
            while Instant::now() < end {
                let read = nftables.rule_owners(&checks()[0]).unwrap().into_iter();
                assert_eq!(read.filter(|owner| owner.comment == "many").count(), 1500);
            }
        });
    });
}
