//! The iptables programs in a fresh namespace, both variants: what is shared is added once, what a
//! stranger changes meanwhile is planned anew, and nothing is run where nothing is in use.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod fresh;

use std::cell::Cell;
use std::process::{Command, Output};

use netstate::iptables::{Batch, Rule, Saved};
use netstate::nft::Family;
use pretty_assertions::assert_eq;
use towline_hostnet::iptables::{has_table, is_forwarding_filtered, may_have_chain, save, update};
use towline_hostnet::{ErrorKind, Netns};

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

fn run(line: &str) -> Output {
    let mut words = line.split(' ');
    let program = words.next().unwrap();
    let output = Command::new(program).args(words).output().expect(program);
    assert!(output.status.success(), "{line}: {output:?}");
    output
}

fn program(family: Family, variant: &str) -> String {
    match family {
        Family::V4 => format!("iptables{variant}"),
        Family::V6 => format!("ip6tables{variant}"),
    }
}

fn address(family: Family) -> &'static str {
    match family {
        Family::V4 => "10.0.0.1/32",
        Family::V6 => "fd00::1/128",
    }
}

/// A shared jump to a shared chain, and a rule of `owner` in it.
fn plan(saved: &Saved, family: Family, owner: &str) -> Batch {
    let mut batch = Batch::new("nat");
    let own = Rule::of(&format!("-s {}", address(family)))
        .comment(format!("name: \"net\" id: \"{owner}\""))
        .jump("MASQUERADE");
    batch
        .ensure_chain(saved, "CNI-TEST")
        .ensure_first(
            saved,
            "POSTROUTING",
            Rule::of("").comment("shared").jump("CNI-TEST"),
        )
        .ensure_last(saved, "CNI-TEST", own);
    batch
}

/// The variants that this kernel and machine have; a missing one is said.
fn each_variant(test: impl Fn(&str) + Sync) {
    for variant in ["nft", "legacy"] {
        fresh::netns(|| {
            let probe = format!("iptables-{variant}");
            let works = Command::new(&probe).args(["-t", "nat", "-S"]).output();
            if works.is_ok_and(|output| output.status.success()) {
                test(variant);
            } else {
                eprintln!("SKIPPED: {probe} does not work here");
            }
        });
    }
}

#[test]
fn an_untouched_namespace_has_nothing_and_asking_changes_nothing() {
    fresh::netns(|| {
        for family in FAMILIES {
            assert!(!has_table(family, "nat").unwrap());
            assert!(!may_have_chain(family, "nat", "POSTROUTING").unwrap());
            assert!(!is_forwarding_filtered(family).unwrap());
        }
        assert_eq!(run("nft list ruleset").stdout, b"");
    });
}

#[test]
fn each_variant_is_seen_and_used_where_only_it_has_the_table() {
    each_variant(|variant| {
        for family in FAMILIES {
            run(&format!(
                "{} -t nat -N CNI-X",
                program(family, &format!("-{variant}"))
            ));
            assert!(has_table(family, "nat").unwrap());
            assert!(may_have_chain(family, "nat", "CNI-X").unwrap());
            let other = may_have_chain(family, "nat", "CNI-OTHER").unwrap();
            assert_eq!(other, variant == "legacy", "only nft tells chains apart");
            update(family, "nat", &|saved| plan(saved, family, "c1")).unwrap();
            let output = run(&format!(
                "{} -t nat",
                program(family, &format!("-{variant}-save"))
            ));
            let text = String::from_utf8(output.stdout).unwrap();
            let rule = format!(
                "-A CNI-TEST -s {} -m comment --comment \"name: \\\"net\\\" id: \\\"c1\\\"\" -j MASQUERADE",
                address(family)
            );
            assert_eq!(text.matches(&rule).count(), 1, "{text}");
            let seen = save(family, "nat").unwrap();
            assert!(seen.chains.contains_key("CNI-X"));
            assert_eq!(
                plan(&seen, family, "c1"),
                Batch::new("nat"),
                "all is there already"
            );
        }
    });
}

#[test]
fn what_the_programs_added_in_the_same_words_is_not_added_again() {
    each_variant(|variant| {
        let iptables = program(Family::V4, &format!("-{variant}"));
        run(&format!("{iptables} -t nat -N CNI-TEST"));
        run(&format!(
            "{iptables} -t nat -A POSTROUTING -m comment --comment shared -j CNI-TEST"
        ));
        update(Family::V4, "nat", &|saved| plan(saved, Family::V4, "c1")).unwrap();
        let saved = save(Family::V4, "nat").unwrap();
        assert_eq!(saved.rules("POSTROUTING").len(), 1);
    });
}

#[test]
fn parallel_callers_add_what_is_shared_once() {
    each_variant(|variant| {
        run(&format!("iptables-{variant} -t nat -N CNI-X"));
        let own = Netns::current().unwrap();
        std::thread::scope(|scope| {
            for n in 0..12 {
                let own = &own;
                scope.spawn(move || {
                    let _inside = own.enter().unwrap();
                    let owner = n.to_string();
                    update(Family::V4, "nat", &|saved| plan(saved, Family::V4, &owner)).unwrap();
                });
            }
        });
        let saved = save(Family::V4, "nat").unwrap();
        assert_eq!(saved.rules("POSTROUTING").len(), 1);
        assert_eq!(saved.rules("CNI-TEST").len(), 12);
    });
}

#[test]
fn a_stranger_in_between_makes_it_plan_anew() {
    each_variant(|variant| {
        run(&format!("iptables-{variant} -t nat -N CNI-X"));
        let first = Cell::new(true);
        let interrupted = |saved: &Saved| {
            if first.replace(false) {
                run(&format!("iptables-{variant} -t nat -N CNI-TEST"));
            }
            plan(saved, Family::V4, "c1")
        };
        update(Family::V4, "nat", &interrupted).unwrap();
        assert_eq!(save(Family::V4, "nat").unwrap().rules("CNI-TEST").len(), 1);
    });
}

#[test]
fn a_refused_batch_changes_nothing_and_names_program_and_reason() {
    each_variant(|variant| {
        run(&format!("iptables-{variant} -t nat -N CNI-X"));
        let before = save(Family::V4, "nat").unwrap();
        let bad = |_: &Saved| {
            let mut batch = Batch::new("nat");
            batch
                .new_chain("CNI-Y")
                .append("CNI-Y", Rule::of("").jump("NOSUCH"));
            batch
        };
        let error = update(Family::V4, "nat", &bad).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Other);
        let text = error.to_string();
        assert!(
            text.contains("iptables") && text.contains("-restore"),
            "{text}"
        );
        assert!(text.contains("NOSUCH") || text.contains("line"), "{text}");
        assert_eq!(save(Family::V4, "nat").unwrap(), before);
    });
}

#[test]
fn whatever_is_removed_goes_in_one_batch() {
    each_variant(|variant| {
        run(&format!("iptables-{variant} -t nat -N CNI-X"));
        let before = save(Family::V4, "nat").unwrap();
        update(Family::V4, "nat", &|saved| plan(saved, Family::V4, "c1")).unwrap();
        let clean = |saved: &Saved| {
            let mut batch = Batch::new("nat");
            batch
                .delete_where(saved, "POSTROUTING", |rule| {
                    rule.target() == Some("CNI-TEST")
                })
                .flush_chain("CNI-TEST")
                .delete_chain("CNI-TEST");
            batch
        };
        update(Family::V4, "nat", &clean).unwrap();
        assert_eq!(save(Family::V4, "nat").unwrap(), before);
    });
}

#[test]
fn a_forward_chain_that_can_discard_is_noticed() {
    each_variant(|variant| {
        for family in FAMILIES {
            let iptables = program(family, &format!("-{variant}"));
            run(&format!("{iptables} -N CNI-X"));
            assert!(!is_forwarding_filtered(family).unwrap());
            run(&format!("{iptables} -A FORWARD -j CNI-X"));
            assert!(is_forwarding_filtered(family).unwrap());
            run(&format!("{iptables} -F FORWARD"));
            run(&format!("{iptables} -P FORWARD DROP"));
            assert!(is_forwarding_filtered(family).unwrap());
        }
    });
}
