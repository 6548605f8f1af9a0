//! Addresses, routes, neighbours and forwarding entries, and their Targets, against the kernel.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod fresh;

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netstate::{
    Address, FdbKey, IfName, Link, LinkKind, MacAddr, NeighbourKey, Report, Route, RouteKey, Scope,
    Target, VethPeer, Vni, Vxlan, Wanted, reconcile,
};
use pretty_assertions::assert_eq;
use towline_hostnet::{
    FdbTarget, NeighbourTarget, Netlink, PROTOCOL_BOOT, PROTOCOL_TOWLINE, RouteTarget,
};

fn name(text: &str) -> IfName {
    text.parse().unwrap()
}

fn net(text: &str) -> IpNetwork {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A veth `a` that is up with an address of each family, in the test's namespace.
fn wired() -> Netlink {
    let mut netlink = Netlink::open().unwrap();
    let peer = VethPeer {
        name: name("b"),
        netns: None,
        mac: None,
    };
    netlink
        .create_link(&Link::new(name("a"), LinkKind::Veth(peer)).up())
        .unwrap();
    netlink.set_up(&name("b")).unwrap();
    netlink
        .add_address(&name("a"), &Address::new(net("10.0.0.1/24")))
        .unwrap();
    netlink
        .add_address(&name("a"), &Address::new(net("fd00::1/64")))
        .unwrap();
    netlink
}

#[test]
fn an_ipv6_address_is_usable_at_once() {
    fresh::netns(|| {
        let mut netlink = wired();
        let found = netlink.addresses(&name("a")).unwrap();
        let ours = found.iter().filter(|address| address.scope == 0);
        let shown: Vec<_> = ours.map(|a| (a.ip, a.tentative, a.permanent)).collect();
        assert_eq!(
            shown,
            [
                (net("10.0.0.1/24"), false, true),
                (net("fd00::1/64"), false, true)
            ]
        );
        let error = netlink
            .add_address(&name("a"), &Address::new(net("10.0.0.1/24")))
            .unwrap_err();
        assert!(error.is_exists());
        netlink
            .delete_address(&name("a"), net("10.0.0.1/24"))
            .unwrap();
        netlink
            .delete_address(&name("a"), net("10.0.0.1/24"))
            .unwrap();
        netlink
            .delete_address(&name("gone"), net("10.0.0.1/24"))
            .unwrap();
        assert!(
            netlink
                .all_addresses()
                .unwrap()
                .iter()
                .all(|a| a.ip != net("10.0.0.1/24"))
        );
    });
}

#[test]
fn routes_are_read_back_as_they_were_written() {
    fresh::netns(|| {
        let mut netlink = wired();
        let device = || name("a");
        let mut tuned = Route::via_device(net("10.9.0.0/16"), device()).gateway(ip("10.0.0.2"));
        tuned.mtu = Some(1400);
        tuned.advmss = Some(1360);
        tuned.key.priority = 50;
        tuned.key.table = 100;
        let mut global = Route::via_device(net("10.8.0.0/16"), device());
        global.scope = Some(Scope::Universe);
        let wanted = [
            Route::via_device(net("0.0.0.0/0"), device()).gateway(ip("10.0.0.254")),
            Route::via_device(net("10.244.1.0/24"), device())
                .gateway(ip("10.244.1.0"))
                .onlink(),
            Route::via_device(net("10.244.2.5/32"), device()).source(ip("10.0.0.1")),
            Route::via_device(net("::/0"), device()).gateway(ip("fd00::2")),
            Route::via_device(net("fd01::5/128"), device()),
            tuned,
            global,
        ];
        let mut target = RouteTarget::new(Netlink::open().unwrap());
        for route in &wanted {
            target.put(&route.key, route).unwrap();
        }
        let expected: BTreeMap<RouteKey, Route> = wanted
            .iter()
            .map(|route| (route.key, route.clone()))
            .collect();
        assert_eq!(target.observe().unwrap(), expected);
        let (gateway, index, source) = netlink.route_to(ip("10.9.1.1")).unwrap();
        assert_eq!(
            (gateway, source),
            (Some(ip("10.0.0.254")), Some(ip("10.0.0.1")))
        );
        assert_eq!(index, netlink.link_index(&device()).unwrap());
    });
}

#[test]
fn a_destination_may_have_several_next_hops_but_each_only_once() {
    fresh::netns(|| {
        let mut netlink = wired();
        for (dst, hops) in [
            ("0.0.0.0/0", ["10.0.0.2", "10.0.0.3"]),
            ("::/0", ["fd00::2", "fd00::3"]),
        ] {
            for hop in hops {
                let route = Route::via_device(net(dst), name("a")).gateway(ip(hop));
                netlink.add_route(&route, PROTOCOL_BOOT).unwrap();
                let again = netlink.add_route(&route, PROTOCOL_BOOT).unwrap_err();
                assert!(again.is_exists(), "{again}");
            }
        }
    });
}

#[test]
fn the_route_target_heals_drift_and_leaves_others_alone() {
    fresh::netns(|| {
        let mut netlink = wired();
        let other = Route::via_device(net("10.50.0.0/16"), name("a")).gateway(ip("10.0.0.9"));
        netlink.add_route(&other, PROTOCOL_BOOT).unwrap();
        let leases: BTreeMap<RouteKey, Route> = (1..=200_u8)
            .map(|n| {
                let subnet = net(&format!("10.244.{n}.0/24"));
                let route = Route::via_device(subnet, name("a"))
                    .gateway(subnet.ip())
                    .onlink();
                (route.key, route)
            })
            .collect();
        let mut target = RouteTarget::new(Netlink::open().unwrap());
        let mut pass = |wanted: &BTreeMap<RouteKey, Route>| {
            reconcile(&mut [&mut Wanted::new("routes", &mut target, wanted)])
        };
        assert_eq!(
            pass(&leases),
            Report {
                puts: 200,
                deletes: 0,
                drift: 0,
                errors: vec![]
            }
        );
        assert!(pass(&leases).is_quiet());

        let key = RouteKey::main(net("10.244.7.0/24"));
        netlink.delete_route(&key, None, None).unwrap();
        let mut wrong = leases[&RouteKey::main(net("10.244.8.0/24"))].clone();
        wrong.gateway = Some(ip("10.0.0.77"));
        netlink.replace_route(&wrong, PROTOCOL_TOWLINE).unwrap();
        let stray = Route::via_device(net("10.66.0.0/16"), name("a"));
        netlink.add_route(&stray, PROTOCOL_TOWLINE).unwrap();
        assert_eq!(
            pass(&leases),
            Report {
                puts: 2,
                deletes: 1,
                drift: 0,
                errors: vec![]
            }
        );
        assert!(pass(&leases).is_quiet());

        assert_eq!(
            pass(&BTreeMap::new()),
            Report {
                puts: 0,
                deletes: 200,
                drift: 0,
                errors: vec![]
            }
        );
        let left = netlink.routes(Some(PROTOCOL_BOOT)).unwrap();
        assert_eq!(left, [other]);
    });
}

#[test]
fn neighbours_and_forwarding_entries_of_a_vxlan_device_follow_the_wish() {
    fresh::netns(|| {
        let mut netlink = wired();
        let vxlan = Vxlan {
            vni: Vni::try_from(1).unwrap(),
            port: 8472,
            local: Some(ip("10.0.0.1")),
            device: Some(name("a")),
            learning: false,
            gbp: false,
        };
        let device = || name("flannel.1");
        let mut neighbours = NeighbourTarget::new(Netlink::open().unwrap(), device());
        let mut fdb = FdbTarget::new(Netlink::open().unwrap(), device());
        assert_eq!(neighbours.observe().unwrap(), BTreeMap::new());
        assert_eq!(fdb.observe().unwrap(), BTreeMap::new());
        netlink
            .create_link(&Link::new(device(), LinkKind::Vxlan(vxlan)).up())
            .unwrap();

        let mac = |n: u8| MacAddr::local([2, 0, 0, 0, 0, n]);
        let neighbour = |n: u8| {
            (
                NeighbourKey {
                    device: device(),
                    ip: ip(&format!("10.244.{n}.0")),
                },
                mac(n),
            )
        };
        let entry = |n: u8| {
            (
                FdbKey {
                    device: device(),
                    mac: mac(n),
                },
                ip(&format!("10.0.0.{n}")),
            )
        };
        let mut want_neighbours: BTreeMap<_, _> = (2..5).map(neighbour).collect();
        let v6 = NeighbourKey {
            device: device(),
            ip: ip("fd01::2"),
        };
        want_neighbours.insert(v6, mac(2));
        let mut want_fdb: BTreeMap<_, _> = (2..5).map(entry).collect();
        let mut pass = |n: &BTreeMap<_, _>, f: &BTreeMap<_, _>| {
            reconcile(&mut [
                &mut Wanted::new("neighbours", &mut neighbours, n),
                &mut Wanted::new("fdb", &mut fdb, f),
            ])
        };
        let report = pass(&want_neighbours, &want_fdb);
        assert_eq!(
            report,
            Report {
                puts: 7,
                deletes: 0,
                drift: 0,
                errors: vec![]
            }
        );
        assert!(pass(&want_neighbours, &want_fdb).is_quiet());

        // A node came back with another outer address and another VTEP MAC.
        want_neighbours.insert(neighbour(3).0, mac(33));
        want_fdb.remove(&entry(3).0);
        want_fdb.insert(
            FdbKey {
                device: device(),
                mac: mac(33),
            },
            ip("10.0.0.33"),
        );
        want_fdb.insert(entry(4).0, ip("10.0.0.44"));
        let report = pass(&want_neighbours, &want_fdb);
        assert_eq!(
            report,
            Report {
                puts: 3,
                deletes: 1,
                drift: 0,
                errors: vec![]
            }
        );
        assert!(pass(&want_neighbours, &want_fdb).is_quiet());
    });
}
