//! Whatever anybody does to the kernel's state is put right by the next look, and counted.

use std::sync::Arc;
use std::time::Duration;

use agent::board::{Board, Outcome};
use agent::metrics::Metrics;
use hostnet::{Netlink, PROTOCOL_BOOT, PROTOCOL_TOWLINE};
use netstate::{
    FdbEntry, FdbKey, Link, LinkKind, MacAddr, Mtu, Neighbour, NeighbourKey, Route, RouteKey,
    VethPeer,
};
use pretty_assertions::assert_eq;

use crate::host::{
    DUAL, Host, LOOK, VXLAN, add_uplink, at, cluster, in_new_namespace, name, peer, run, told_macs,
};

fn key(destination: &str) -> RouteKey {
    RouteKey::main(destination.parse().unwrap())
}

fn neighbour(device: &str, ip: &str) -> NeighbourKey {
    NeighbourKey {
        device: name(device),
        ip: ip.parse().unwrap(),
    }
}

fn forwarding(device: &str, mac: &str) -> FdbKey {
    FdbKey {
        device: name(device),
        mac: mac.parse().unwrap(),
    }
}

/// Everything that the loop keeps, as text.
fn state(host: &mut Host) -> Vec<String> {
    let mut all = host.routes();
    for device in ["flannel.1", "flannel-v6.1"] {
        all.extend(host.peers(device));
        let link = host.device(device);
        all.push(format!(
            "{device} {:?} {:?} up {}",
            link.mac, link.mtu, link.up
        ));
        let mut addresses = host.netlink.addresses(&name(device)).unwrap();
        addresses.retain(|one| one.scope == 0);
        all.extend(addresses.iter().map(|one| format!("{device} {}", one.ip)));
        let filter = format!("net/ipv4/conf/{device}/rp_filter");
        all.push(hostnet::sysctl::read(&filter).unwrap());
    }
    all.push(host.subnet_env());
    all
}

type Damage = fn(&mut Netlink);

/// Each with what it does, and how many entries a pass puts right.
const DAMAGES: &[(&str, Damage)] = &[
    ("route deleted", |netlink| {
        netlink
            .delete_route(&key("10.244.2.0/24"), None, None)
            .unwrap();
        netlink
            .delete_route(&key("fd00:0:0:2::/64"), None, None)
            .unwrap();
    }),
    ("route changed", |netlink| {
        let other = Route::via_device("10.244.2.0/24".parse().unwrap(), name("eth0"));
        netlink.replace_route(&other, PROTOCOL_TOWLINE).unwrap();
    }),
    ("route replaced by somebody's", |netlink| {
        let other = Route::via_device("10.244.2.0/24".parse().unwrap(), name("eth0"));
        netlink.replace_route(&other, PROTOCOL_BOOT).unwrap();
    }),
    ("neighbour deleted", |netlink| {
        netlink
            .delete_neighbour(&neighbour("flannel.1", "10.244.2.0"))
            .unwrap();
        netlink
            .delete_neighbour(&neighbour("flannel-v6.1", "fd00:0:0:2::"))
            .unwrap();
    }),
    ("neighbour changed", |netlink| {
        let mac = "02:00:00:00:ff:ff".parse().unwrap();
        let key = neighbour("flannel.1", "10.244.2.0");
        netlink.set_neighbour(&Neighbour { key, mac }).unwrap();
    }),
    ("forwarding entry deleted", |netlink| {
        netlink
            .delete_fdb(&forwarding("flannel.1", "02:00:00:00:04:02"))
            .unwrap();
        netlink
            .delete_fdb(&forwarding("flannel-v6.1", "02:00:00:00:06:02"))
            .unwrap();
    }),
    ("forwarding entry changed", |netlink| {
        let key = forwarding("flannel.1", "02:00:00:00:04:02");
        let remote = "172.30.0.99".parse().unwrap();
        netlink.set_fdb(&FdbEntry { key, remote }).unwrap();
    }),
    ("forwarding entry to another port", |_| {
        let entry = "02:00:00:00:04:02 dev flannel.1 dst 172.30.0.2";
        run(&format!(
            "bridge fdb replace {entry} port 4790 self permanent"
        ));
    }),
    ("address with another prefix", |_| {
        run("ip address delete 10.244.0.0/32 dev flannel.1");
        run("ip address add 10.244.0.0/24 dev flannel.1");
        run("ip address delete fd00::/128 dev flannel-v6.1");
        run("ip address add fd00::/64 dev flannel-v6.1");
    }),
    ("alias taken away", |_| {
        run("ip link set dev flannel.1 alias theirs");
    }),
    ("devices down and up", |netlink| {
        for device in ["flannel.1", "flannel-v6.1"] {
            netlink.set_down(&name(device)).unwrap();
            netlink.set_up(&name(device)).unwrap();
        }
    }),
    ("devices down", |netlink| {
        netlink.set_down(&name("flannel.1")).unwrap();
        netlink.set_down(&name("flannel-v6.1")).unwrap();
    }),
    ("devices deleted", |netlink| {
        netlink.delete_link(&name("flannel.1")).unwrap();
        netlink.delete_link(&name("flannel-v6.1")).unwrap();
    }),
    ("MAC rewritten", |netlink| {
        let mac: MacAddr = "02:00:00:00:ff:01".parse().unwrap();
        netlink.set_mac(&name("flannel.1"), mac).unwrap();
    }),
    ("MTU changed", |netlink| {
        netlink
            .set_mtu(&name("flannel.1"), Mtu::try_from(1280).unwrap())
            .unwrap();
        netlink
            .set_mtu(&name("flannel-v6.1"), Mtu::try_from(1300).unwrap())
            .unwrap();
    }),
    ("address taken away", |netlink| {
        let ip = "10.244.0.0/32".parse().unwrap();
        netlink.delete_address(&name("flannel.1"), ip).unwrap();
    }),
    ("address added", |netlink| {
        let address = netstate::Address::new("10.9.9.9/24".parse().unwrap());
        netlink.add_address(&name("flannel.1"), &address).unwrap();
    }),
    ("sysctl changed", |_| {
        hostnet::sysctl::write("net/ipv4/conf/flannel.1/rp_filter", "1").unwrap();
        hostnet::sysctl::write("net/ipv4/ip_forward", "0").unwrap();
    }),
    ("device of another kind in its place", |netlink| {
        netlink.delete_link(&name("flannel.1")).unwrap();
        let bridge = Link::new(name("flannel.1"), LinkKind::Bridge);
        netlink.create_link(&bridge).unwrap();
    }),
];

#[test]
fn every_damage_is_put_right_by_one_look() {
    for (what, damage) in DAMAGES {
        in_new_namespace(DUAL, move |mut host| {
            // What others are told is in the snapshot, as it is a moment after the first pass.
            let all = told(&mut host);
            let before = state(&mut host);
            assert_eq!(
                host.overlay.differences(&all).unwrap(),
                [],
                "{what}: before"
            );
            damage(&mut host.netlink);
            let found = host.overlay.differences(&all).unwrap();
            assert!(!found.is_empty(), "{what}: no difference is shown");
            let repaired = host.repairs(&all);
            assert!(repaired > 0, "{what}: nothing was found");
            assert_eq!(host.overlay.differences(&all).unwrap(), [], "{what}: after");
            assert_eq!(state(&mut host), before, "{what}");
            assert_eq!(hostnet::sysctl::read("net/ipv4/ip_forward").unwrap(), "1");
        });
    }
}

/// The cluster after a pass whose announcement has come back.
fn told(host: &mut Host) -> desired::cluster::Cluster {
    host.pass(&cluster([peer(2)]));
    let own = desired::cluster::Node {
        announced: Some(host.told().announced),
        ..crate::host::own_node()
    };
    let all = cluster([own, peer(2)]);
    assert_eq!(host.pass(&all), (0, 0));
    all
}

#[test]
fn the_subnet_file_is_written_again() {
    in_new_namespace(VXLAN, |mut host| {
        let all = told(&mut host);
        let before = host.subnet_env();
        std::fs::write(&host.subnet_file, "FLANNEL_MTU=9\n").unwrap();
        assert_eq!(host.repairs(&all), 1);
        assert_eq!(host.subnet_env(), before);
        std::fs::remove_file(&host.subnet_file).unwrap();
        assert_eq!(host.repairs(&all), 1);
        assert_eq!(host.subnet_env(), before);
    });
}

#[test]
fn what_was_put_right_is_counted() {
    in_new_namespace(VXLAN, |mut host| {
        let all = told(&mut host);
        host.netlink
            .delete_route(&key("10.244.2.0/24"), None, None)
            .unwrap();
        host.netlink
            .delete_fdb(&forwarding("flannel.1", "02:00:00:00:04:02"))
            .unwrap();
        let report = host.report(&all);
        let metrics = Arc::new(Metrics::default());
        let board = Board::new(vec!["overlay"], metrics.clone());
        let outcome = Outcome {
            pass: LOOK,
            took: Duration::from_millis(1),
            report,
        };
        board.record("overlay", outcome);
        let text = metrics.text().unwrap();
        let line = "towline_drift_repaired_total{table=\"overlay\"} 2";
        assert!(text.lines().any(|one| one == line), "{text}");
    });
}

#[test]
fn what_was_put_right_beside_a_change_or_an_error_is_counted_too() {
    in_new_namespace(VXLAN, |mut host| {
        let report = host.report(&cluster([peer(2)]));
        assert_eq!(report.drift, 0, "what is made is no repair");
        let damage = |netlink: &mut Netlink| {
            netlink
                .delete_route(&key("10.244.2.0/24"), None, None)
                .unwrap();
        };
        damage(&mut host.netlink);
        let report = host.report(&cluster([peer(2), peer(3)]));
        assert_eq!((report.puts, report.drift), (4, 1), "{report:?}");
        // Without an address nothing can be chosen, and what was is still good.
        run("ip address delete 172.30.0.1/24 dev eth0");
        damage(&mut host.netlink);
        // A look by an administrator does not make it go unnoticed.
        assert_eq!(
            host.overlay
                .differences(&cluster([peer(2), peer(3)]))
                .unwrap()
                .len(),
            2
        );
        let report = host.report(&cluster([peer(2), peer(3)]));
        assert_eq!((report.errors.len(), report.puts, report.drift), (1, 1, 1));
        // What goes with a device that we ourselves make anew is no repair of that.
        run("ip address add 172.30.0.9/24 dev eth0");
        let report = host.report(&cluster([peer(2), peer(3)]));
        assert!(report.errors.is_empty() && report.puts > 6, "{report:?}");
        assert_eq!(report.drift, 0);
    });
}

#[test]
fn the_state_of_a_peer_that_left_while_nobody_looked_is_removed_and_foreign_state_kept() {
    in_new_namespace(DUAL, |mut host| {
        host.pass(&cluster([peer(2), peer(3)]));
        // An administrator's: on our device too, and within the pod network.
        let by_hand = |to: &str, device: &str| Route::via_device(to.parse().unwrap(), name(device));
        let foreign = [
            by_hand("192.0.2.0/24", "eth0"),
            by_hand("10.244.99.0/24", "eth0"),
            by_hand("10.250.0.0/24", "flannel.1"),
        ];
        for route in &foreign {
            host.netlink.add_route(route, PROTOCOL_BOOT).unwrap();
        }
        let other = VethPeer {
            name: name("veth1"),
            netns: None,
            mac: None,
        };
        let link = Link::new(name("veth0"), LinkKind::Veth(other)).up();
        host.netlink.create_link(&link).unwrap();
        let theirs = Neighbour {
            key: neighbour("veth0", "10.9.9.9"),
            mac: "02:00:00:00:09:09".parse().unwrap(),
        };
        host.netlink.set_neighbour(&theirs).unwrap();

        host.restart();
        host.pass(&cluster([peer(3)]));
        assert_eq!(
            host.routes(),
            [
                "10.244.3.0/24 via 10.244.3.0 dev flannel.1 onlink",
                "fd00:0:0:3::/64 via fd00:0:0:3:: dev flannel-v6.1 onlink",
            ]
        );
        let v4 = [
            "02:00:00:00:04:03 to 172.30.0.3",
            "10.244.3.0 at 02:00:00:00:04:03",
        ];
        assert_eq!(host.peers("flannel.1"), v4);
        assert_eq!(host.peers("flannel-v6.1").len(), 2);
        let left = host.netlink.routes(Some(PROTOCOL_BOOT)).unwrap();
        for route in &foreign {
            assert!(left.contains(route), "{route:?} is gone");
        }
        assert_eq!(host.netlink.neighbours(&name("veth0")).unwrap(), [theirs]);
    });
}

#[test]
fn an_uplink_that_flaps_costs_nothing() {
    in_new_namespace(DUAL, |mut host| {
        let all = told(&mut host);
        let before = state(&mut host);
        let eth0 = name("eth0");
        host.netlink.set_down(&eth0).unwrap();
        // IPv6 addresses go with the link: what cannot be worked out is left as it is.
        let report = host.report(&all);
        assert_eq!(
            (report.errors.len(), report.puts, report.deletes),
            (1, 0, 0)
        );
        host.netlink.set_up(&eth0).unwrap();
        let address = netstate::Address::new("fd99::1/64".parse().unwrap());
        host.netlink.add_address(&eth0, &address).unwrap();
        host.pass(&all);
        assert_eq!(state(&mut host), before);
    });
}

#[test]
fn a_restart_changes_nothing() {
    in_new_namespace(DUAL, |mut host| {
        let all = told(&mut host);
        let before = state(&mut host);
        let announced = host.told();
        host.restart();
        assert_eq!(host.pass(&all), (0, 0));
        assert_eq!(state(&mut host), before);
        assert_eq!(host.told(), announced);
    });
}

#[test]
fn a_mac_that_was_rewritten_before_anybody_was_told_is_told() {
    in_new_namespace(VXLAN, |mut host| {
        let untold = cluster([at(2, "172.30.0.2")]);
        host.pass(&untold);
        let mac: MacAddr = "02:00:00:00:ff:01".parse().unwrap();
        host.netlink.set_mac(&name("flannel.1"), mac).unwrap();
        host.pass(&untold);
        assert_eq!(told_macs(&host.told()), [Some(mac), None]);
    });
}

#[test]
fn a_parent_that_was_deleted_takes_everything_along_and_brings_it_back() {
    in_new_namespace(DUAL, |mut host| {
        let all = told(&mut host);
        let (before, parent) = (state(&mut host), host.device("eth0").index);
        let announced = host.told();
        host.netlink.delete_link(&name("eth0")).unwrap();
        assert_eq!(host.netlink.link(&name("flannel.1")).unwrap(), None);
        let report = host.report(&all);
        let errors: Vec<String> = report.errors.iter().map(ToString::to_string).collect();
        let said = "overlay: compute : no interface matches eth0; name one with --iface";
        assert_eq!(errors, [said]);
        add_uplink(&mut host.netlink, &["172.30.0.1/24", "fd99::1/64"]);
        assert_ne!(host.device("eth0").index, parent, "another number");
        host.pass(&all);
        assert_eq!(state(&mut host), before);
        assert_eq!(host.told(), announced, "others need not be told anything");
        let below = host.device("flannel.1").vxlan_device;
        assert_eq!(below, Some(host.device("eth0").index));
    });
}
