//! Which device the default route leaves by, against the kernel.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod fresh;

use netstate::{Address, Link, LinkKind, Route, VethPeer};
use pretty_assertions::assert_eq;
use towline_hostnet::{Netlink, PROTOCOL_BOOT};

fn wired(netlink: &mut Netlink, name: &str, peer: &str, address: &str) {
    let peer = VethPeer {
        name: peer.parse().unwrap(),
        netns: None,
        mac: None,
    };
    let link = Link::new(name.parse().unwrap(), LinkKind::Veth(peer.clone())).up();
    netlink.create_link(&link).unwrap();
    netlink.set_up(&peer.name).unwrap();
    netlink
        .add_address(&link.name, &Address::new(address.parse().unwrap()))
        .unwrap();
}

fn found(netlink: &mut Netlink) -> Option<String> {
    let link = netlink.default_route_device().unwrap();
    link.map(|link| link.name.to_string())
}

fn route(to: &str, via: &str, device: &str) -> Route {
    Route::via_device(to.parse().unwrap(), device.parse().unwrap()).gateway(via.parse().unwrap())
}

#[test]
fn the_default_routes_device_is_found_whatever_else_is_there() {
    fresh::netns(|| {
        let mut netlink = Netlink::open().unwrap();
        assert_eq!(found(&mut netlink), None);
        wired(&mut netlink, "a", "a1", "10.0.0.1/24");
        wired(&mut netlink, "b", "b1", "10.0.1.1/24");
        wired(&mut netlink, "c", "c1", "fd00::1/64");
        assert_eq!(found(&mut netlink), None);
        netlink
            .add_route(&route("::/0", "fd00::2", "c"), PROTOCOL_BOOT)
            .unwrap();
        assert_eq!(found(&mut netlink).as_deref(), Some("c"));
        netlink
            .add_route(&route("0.0.0.0/0", "10.0.0.2", "a"), PROTOCOL_BOOT)
            .unwrap();
        assert_eq!(found(&mut netlink).as_deref(), Some("a"));
        // A tunnel that takes everything over without touching the default route.
        for half in ["0.0.0.0/1", "128.0.0.0/1"] {
            netlink
                .add_route(&route(half, "10.0.1.2", "b"), PROTOCOL_BOOT)
                .unwrap();
        }
        assert_eq!(found(&mut netlink).as_deref(), Some("a"));
    });
}

#[test]
fn of_several_next_hops_the_first_counts() {
    fresh::netns(|| {
        let mut netlink = Netlink::open().unwrap();
        wired(&mut netlink, "a", "a1", "10.0.0.1/24");
        wired(&mut netlink, "b", "b1", "10.0.1.1/24");
        let added = std::process::Command::new("ip")
            .args(["route", "add", "default"])
            .args(["nexthop", "via", "10.0.1.2", "dev", "b"])
            .args(["nexthop", "via", "10.0.0.2", "dev", "a"])
            .status();
        if !added.unwrap().success() {
            eprintln!("SKIPPED: this kernel has no multipath routes");
            return;
        }
        assert_eq!(found(&mut netlink).as_deref(), Some("b"));
    });
}

fn ip(arguments: &str) -> bool {
    let mut command = std::process::Command::new("ip");
    command
        .args(arguments.split(' '))
        .status()
        .unwrap()
        .success()
}

#[test]
fn the_main_tables_default_route_counts_whatever_rules_say() {
    fresh::netns(|| {
        let mut netlink = Netlink::open().unwrap();
        let main = |netlink: &mut Netlink, v4| {
            let link = netlink.main_default_device(v4).unwrap();
            link.map(|link| link.name.to_string())
        };
        assert_eq!(
            (main(&mut netlink, true), main(&mut netlink, false)),
            (None, None)
        );
        wired(&mut netlink, "a", "a1", "10.0.0.1/24");
        wired(&mut netlink, "b", "b1", "10.0.1.1/24");
        wired(&mut netlink, "c", "c1", "fd00::1/64");
        // As a tunnel's client makes them, and a network for documentation in use.
        assert!(ip("route add default via 10.0.1.2 dev b table 52"));
        assert!(ip("rule add pref 5270 table 52"));
        assert_eq!(main(&mut netlink, true), None);
        assert!(ip("route add default via 10.0.0.2 dev a metric 100"));
        assert!(ip("route add default via 10.0.1.2 dev b metric 200"));
        assert!(ip("-6 route add default via fd00::2 dev c"));
        assert!(ip("route add 203.0.113.0/24 via 10.0.1.2 dev b"));
        assert_eq!(main(&mut netlink, true).as_deref(), Some("a"));
        assert_eq!(main(&mut netlink, false).as_deref(), Some("c"));
        assert!(ip("route del default metric 100"));
        let hops = "nexthop via 10.0.0.2 dev a nexthop via 10.0.1.2 dev b";
        if ip(&format!("route add default metric 50 {hops}")) {
            assert_eq!(main(&mut netlink, true).as_deref(), Some("a"));
        }
    });
}
