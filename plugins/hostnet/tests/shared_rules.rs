//! Rules of many owners in one nftables table.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod fresh;

use netstate::nft::{Addresses, Base, Chain, Hook, Match, Rule, SharedRules, Table, Verdict};
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
    let (chain, comment) = ("checks".into(), owner.into());
    SharedRules {
        frame,
        chain,
        comment,
        rules: vec![rule],
    }
}

#[test]
fn owners_come_and_go_without_touching_each_other() {
    fresh::netns(|| {
        let mut nftables = Nftables::open().unwrap();
        let nobody = nftables
            .delete_rules("shared", "checks", &|_| true)
            .unwrap();
        assert_eq!(nobody, 0, "a table that is not there has no rules");
        for (owner, address) in [
            ("a", "10.0.0.1/32"),
            ("b", "10.0.0.2/32"),
            ("a", "fd00::1/128"),
        ] {
            nftables.add_rules(&shared(owner, address)).unwrap();
        }
        let list = std::process::Command::new("nft")
            .args(["list", "ruleset"])
            .output()
            .unwrap();
        assert_eq!(
            String::from_utf8(list.stdout).unwrap(),
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
        let comments = |n: &mut Nftables| n.rule_comments("shared", "checks").unwrap();
        assert_eq!(comments(&mut nftables), ["a", "b", "a"]);
        assert_eq!(
            nftables
                .delete_rules("shared", "checks", &|c| c == "a")
                .unwrap(),
            2
        );
        assert_eq!(
            nftables
                .delete_rules("shared", "checks", &|c| c == "a")
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
        let list = std::process::Command::new("nft")
            .args(["list", "ruleset"])
            .output()
            .unwrap()
            .stdout;
        let text = String::from_utf8(list).unwrap();
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
        let is_stale = |comment: &str| {
            if comment == "a" {
                let removed = second
                    .borrow_mut()
                    .delete_rules("shared", "checks", &|c| c == "a");
                removed.unwrap();
            }
            true
        };
        first.delete_rules("shared", "checks", &is_stale).unwrap();
        let left = first.rule_comments("shared", "checks").unwrap();
        assert_eq!(left, [""; 0]);
    });
}
