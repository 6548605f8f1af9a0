//! Changes of the interface towards other nodes are followed without a restart.

use desired::cluster::{Announced, Node};
use netstate::{Address, MacAddr, Mtu};
use pretty_assertions::assert_eq;

use crate::host::{DUAL, VXLAN, cluster, in_new_namespace, name, own_node, peer};

#[test]
fn another_address_is_announced_and_the_subnet_stays() {
    in_new_namespace(DUAL, |mut host| {
        let all = cluster([peer(2)]);
        host.pass(&all);
        let (before, text) = (host.told(), host.subnet_env());
        for (old, new) in [
            ("172.30.0.1/24", "172.30.0.9/24"),
            ("fd99::1/64", "fd99::9/64"),
        ] {
            let eth0 = name("eth0");
            host.netlink
                .delete_address(&eth0, old.parse().unwrap())
                .unwrap();
            let new = Address::new(new.parse().unwrap());
            host.netlink.add_address(&eth0, &new).unwrap();
        }
        host.pass(&all);
        let after = host.told();
        let wanted = Announced {
            public_ip: "172.30.0.9".parse().ok(),
            public_ipv6: "fd99::9".parse().ok(),
            ..before.announced
        };
        assert_eq!(after.announced, wanted, "the MACs stay");
        assert_eq!((after.subnets, host.subnet_env()), (before.subnets, text));
        let locals = ["flannel.1", "flannel-v6.1"].map(|one| host.device(one).vxlan.unwrap().local);
        assert_eq!(locals, ["172.30.0.9".parse().ok(), "fd99::9".parse().ok()]);
        assert_eq!(host.routes().len(), 2);
        assert_eq!(host.pass(&all), (0, 0));
    });
}

#[test]
fn another_mtu_reaches_devices_and_subnet_file() {
    in_new_namespace(DUAL, |mut host| {
        let all = cluster([peer(2)]);
        host.pass(&all);
        let index = host.device("flannel.1").index;
        for (outer, v4, v6) in [(1400, 1350, 1330), (9000, 8950, 8930), (1500, 1450, 1430)] {
            let mtu = Mtu::try_from(outer).unwrap();
            host.netlink.set_mtu(&name("eth0"), mtu).unwrap();
            host.pass(&all);
            let found =
                ["flannel.1", "flannel-v6.1"].map(|one| host.device(one).mtu.unwrap().get());
            assert_eq!(found, [v4, v6]);
            assert!(host.subnet_env().contains(&format!("FLANNEL_MTU={v6}\n")));
            assert_eq!(host.told().mtu.get(), v6);
            assert_eq!(host.pass(&all), (0, 0));
        }
        assert_eq!(host.device("flannel.1").index, index, "changed in place");
    });
}

#[test]
fn another_mac_of_the_uplink_changes_nothing_here() {
    in_new_namespace(VXLAN, |mut host| {
        let all = cluster([peer(2)]);
        host.pass(&all);
        let before = host.told();
        let mac: MacAddr = "02:00:00:00:ee:01".parse().unwrap();
        host.netlink.set_mac(&name("eth0"), mac).unwrap();
        assert_eq!(host.pass(&all), (0, 0));
        assert_eq!(host.told(), before);
        assert_eq!(host.device("eth0").mac, Some(mac));
    });
}

#[test]
fn another_name_of_the_uplink_is_reported_until_it_is_back() {
    in_new_namespace(VXLAN, |mut host| {
        let all = cluster([peer(2)]);
        host.pass(&all);
        let (eth0, lan0) = (name("eth0"), name("lan0"));
        host.netlink.set_down(&eth0).unwrap();
        host.netlink.rename(&eth0, &lan0).unwrap();
        host.netlink.set_up(&lan0).unwrap();
        let report = host.report(&all);
        assert_eq!(report.errors.len(), 1, "{:?}", report.errors);
        assert_eq!(
            (report.puts, report.deletes),
            (0, 0),
            "nothing is torn down"
        );
        host.netlink.set_down(&lan0).unwrap();
        host.netlink.rename(&lan0, &eth0).unwrap();
        host.netlink.set_up(&eth0).unwrap();
        host.pass(&all);
        assert_eq!(host.routes().len(), 1);
    });
}

#[test]
fn what_an_administrator_writes_on_the_node_is_announced_or_used() {
    in_new_namespace(VXLAN, |mut host| {
        let second = Address::new("172.30.0.5/24".parse().unwrap());
        host.netlink.add_address(&name("eth0"), &second).unwrap();
        let mut own = own_node();
        own.asked.public_ip = "172.30.0.5".parse().ok();
        host.pass(&cluster([own.clone()]));
        assert_eq!(host.told().announced.public_ip, "172.30.0.5".parse().ok());
        let local = host.device("flannel.1").vxlan.unwrap().local;
        assert_eq!(local, "172.30.0.5".parse().ok());

        own.asked.announced = "203.0.113.5".parse().ok();
        host.pass(&cluster([own]));
        assert_eq!(host.told().announced.public_ip, "203.0.113.5".parse().ok());
        let local = host.device("flannel.1").vxlan.unwrap().local;
        assert_eq!(local, "172.30.0.5".parse().ok(), "used is what is there");

        let plain: Node = own_node();
        host.pass(&cluster([plain]));
        assert_eq!(host.told().announced.public_ip, "172.30.0.1".parse().ok());
    });
}
