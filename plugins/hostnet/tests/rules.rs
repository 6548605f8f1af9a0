//! Rules of the routing policy against the real kernel, and routes that are taken and put back.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod fresh;

use netstate::{Address, IfName, Link, LinkKind, Op, Route, SourceRule, Step};
use pretty_assertions::assert_eq;
use towline_hostnet::{Netlink, Netns, apply};

#[test]
fn rules_for_single_addresses_come_and_go() {
    fresh::netns(|| {
        let mut netlink = Netlink::open().unwrap();
        let rule = |source: &str, table| SourceRule {
            source: source.parse().unwrap(),
            table,
        };
        let wanted = [rule("10.1.0.5", 100), rule("fd00::5", 70_000)];
        for rule in &wanted {
            netlink.add_rule(rule).unwrap();
        }
        let (rules, tables) = netlink.source_rules().unwrap();
        assert_eq!(rules, wanted);
        assert!(
            [100, 70_000, 254]
                .iter()
                .all(|table| tables.contains(table))
        );
        for rule in &wanted {
            netlink.delete_rule(rule).unwrap();
            netlink.delete_rule(rule).unwrap();
        }
        assert_eq!(netlink.source_rules().unwrap().0, []);
    });
}

#[test]
fn routes_that_were_taken_are_put_back_when_a_later_step_fails() {
    fresh::netns(|| {
        let mut places = apply::Places::open(Some(Netns::current().unwrap())).unwrap();
        let br0: IfName = "br0".parse().unwrap();
        let host = places.host();
        host.create_link(&Link::new(br0.clone(), LinkKind::Bridge).up())
            .unwrap();
        host.add_address(&br0, &Address::new("10.1.0.5/24".parse().unwrap()))
            .unwrap();
        let default = Route::via_device("0.0.0.0/0".parse().unwrap(), br0);
        let default = default.gateway("10.1.0.1".parse().unwrap());
        host.add_route(&default, 3).unwrap();
        let before = host.routes(None).unwrap();
        let connected = before.iter().find(|route| route.gateway.is_none());
        let rule = SourceRule {
            source: "10.1.0.5".parse().unwrap(),
            table: 100,
        };
        let mut steps = vec![
            Step::host(Op::AddSourceRule(rule)),
            Step::host(Op::TakeRoute(default)),
            Step::host(Op::TakeRoute(connected.unwrap().clone())),
        ];
        apply::run(&mut places, &steps).unwrap();
        let left = places.host().routes(None).unwrap();
        assert!(left.iter().all(|route| route.key.destination.is_ipv6()));
        assert_eq!(apply::revert(&mut places, &steps), []);

        steps.push(Step::host(Op::SetUp("nowhere".parse().unwrap())));
        let failed = apply::run(&mut places, &steps).unwrap_err();
        assert_eq!(failed.leftovers, []);
        assert_eq!(places.host().routes(None).unwrap(), before);
        assert_eq!(places.host().source_rules().unwrap().0, []);
    });
}
