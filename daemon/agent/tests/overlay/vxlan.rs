//! VXLAN: what is made, what is adopted, what is made anew.

use agent::config::{OverlayOptions, TxChecksum};
use desired::cluster::Node;
use desired::lease::attributes::VxlanData;
use hostnet::{PROTOCOL_BOOT, PROTOCOL_TOWLINE};
use netstate::{Link, LinkKind, Mtu, Vxlan};
use pretty_assertions::assert_eq;

use crate::host::{
    DUAL, Host, LOOK, VXLAN, at, cluster, in_new_namespace, name, own_node, peer, told_macs,
    with_options,
};
use agent::reconcile::Reconciler as _;
use std::sync::Arc;

fn left_by_flannel(change: impl FnOnce(&mut Vxlan)) -> Link {
    let mut vxlan = Vxlan {
        vni: 1.try_into().unwrap(),
        port: 8472,
        local: "172.30.0.1".parse().ok(),
        device: Some(name("eth0")),
        learning: false,
        gbp: false,
    };
    change(&mut vxlan);
    let mut link = Link::new(name("flannel.1"), LinkKind::Vxlan(vxlan)).up();
    link.mac = Some("3a:00:00:00:00:07".parse().unwrap());
    link
}

fn vxlan_of(host: &mut Host, device: &str) -> Vxlan {
    host.device(device).vxlan.unwrap()
}

#[test]
fn peers_come_and_go() {
    in_new_namespace(VXLAN, |mut host| {
        let both = cluster([peer(2), peer(3)]);
        host.pass(&both);
        let wanted = [
            "10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink",
            "10.244.3.0/24 via 10.244.3.0 dev flannel.1 onlink",
        ];
        assert_eq!(host.routes(), wanted);
        let peers = [
            "02:00:00:00:04:02 to 172.30.0.2",
            "02:00:00:00:04:03 to 172.30.0.3",
            "10.244.2.0 at 02:00:00:00:04:02",
            "10.244.3.0 at 02:00:00:00:04:03",
        ];
        assert_eq!(host.peers("flannel.1"), peers);
        assert_eq!(host.pass(&both), (0, 0));
        let device = host.device("flannel.1");
        assert_eq!((device.mtu.unwrap().get(), device.up), (1450, true));
        let addresses = host.netlink.addresses(&name("flannel.1")).unwrap();
        let v4: Vec<_> = addresses
            .iter()
            .filter(|a| a.ip.is_ipv4())
            .map(|a| a.ip.to_string())
            .collect();
        assert_eq!(v4, ["10.244.0.0/32"]);
        assert_eq!(
            host.subnet_env(),
            "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.0.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
        );
        let lease = host.told();
        assert_eq!(lease.announced.public_ip, "172.30.0.1".parse().ok());
        assert_eq!(told_macs(&lease), [device.mac, None]);

        // Others go on by the MAC that they know, even when the device was gone meanwhile.
        host.netlink.delete_link(&name("flannel.1")).unwrap();
        host.pass(&both);
        assert_eq!(host.device("flannel.1").mac, device.mac);

        host.pass(&cluster([peer(3)]));
        assert_eq!(host.routes(), [wanted[1]]);
        assert_eq!(host.peers("flannel.1"), [peers[1], peers[3]]);
        host.pass(&cluster([]));
        assert_eq!((host.routes(), host.peers("flannel.1")), (vec![], vec![]));
    });
}

#[test]
fn a_peer_with_another_mac_or_address_leaves_nothing_of_the_old_one() {
    in_new_namespace(VXLAN, |mut host| {
        host.pass(&cluster([peer(2)]));
        let mut other = at(2, "172.30.0.77");
        let announced = other.announced.as_mut().unwrap();
        let mac = "02:00:00:00:aa:02".parse().unwrap();
        announced.backend = desired::cluster::Backend::Vxlan {
            v4: Some(VxlanData {
                vni: 1.try_into().unwrap(),
                vtep_mac: mac,
            }),
            v6: None,
        };
        host.pass(&cluster([other]));
        let peers = [
            "02:00:00:00:aa:02 to 172.30.0.77",
            "10.244.2.0 at 02:00:00:00:aa:02",
        ];
        assert_eq!(host.peers("flannel.1"), peers);
    });
}

#[test]
fn a_device_that_flannel_left_is_adopted_with_its_mac() {
    in_new_namespace(VXLAN, |mut host| {
        let link = left_by_flannel(|_| {});
        host.netlink.create_link(&link).unwrap();
        let before = host.device("flannel.1");
        host.pass(&cluster([peer(2)]));
        let after = host.device("flannel.1");
        assert_eq!((after.index, after.mac), (before.index, link.mac));
        assert_eq!(told_macs(&host.told()), [link.mac, None]);
    });
}

#[test]
fn what_flannel_made_for_its_peers_becomes_ours_in_place() {
    in_new_namespace(DUAL, |mut host| {
        let all = cluster([peer(2)]);
        host.pass(&all);
        let (routes, peers) = (host.routes(), host.peers("flannel-v6.1"));
        // flannel's routes have protocol `boot`.
        for route in host.netlink.routes(Some(PROTOCOL_TOWLINE)).unwrap() {
            host.netlink.delete_route(&route.key, None, None).unwrap();
            host.netlink.add_route(&route, PROTOCOL_BOOT).unwrap();
        }
        assert_eq!(host.routes(), Vec::<String>::new());
        host.restart();
        assert_eq!(host.pass(&all), (2, 0));
        assert_eq!((host.routes(), host.peers("flannel-v6.1")), (routes, peers));
        let theirs = host.netlink.routes(Some(PROTOCOL_BOOT)).unwrap();
        assert_eq!(theirs, [], "none is there twice");
    });
}

#[test]
fn a_device_that_differs_is_made_anew_with_its_mac() {
    let changes: [fn(&mut Vxlan); 6] = [
        |vxlan| vxlan.vni = 7.try_into().unwrap(),
        |vxlan| vxlan.port = 4789,
        |vxlan| vxlan.local = "172.30.0.9".parse().ok(),
        |vxlan| vxlan.device = None,
        |vxlan| vxlan.learning = true,
        |vxlan| vxlan.gbp = true,
    ];
    for change in changes {
        in_new_namespace(VXLAN, move |mut host| {
            let link = left_by_flannel(change);
            host.netlink.create_link(&link).unwrap();
            let before = host.device("flannel.1");
            host.pass(&cluster([peer(2)]));
            let after = host.device("flannel.1");
            assert_ne!(after.index, before.index, "{:?}", before.vxlan);
            let wanted = left_by_flannel(|vxlan| vxlan.device = None);
            assert_eq!(LinkKind::Vxlan(after.vxlan.unwrap()), wanted.kind);
            assert_eq!(after.vxlan_device, Some(host.device("eth0").index));
            assert_eq!(after.mac, link.mac);
        });
    }
}

#[test]
fn learning_and_group_policy_are_as_the_configuration_says() {
    let conf = r#"{"Network": "10.244.0.0/16",
        "Backend": {"Type": "vxlan", "VNI": 5, "Port": 4790, "Learning": true, "GBP": true}}"#;
    in_new_namespace(conf, |mut host| {
        host.pass(&cluster([]));
        let found = vxlan_of(&mut host, "flannel.5");
        assert_eq!((found.port, found.learning, found.gbp), (4790, true, true));
        assert_eq!(host.pass(&cluster([])), (0, 0));
    });
}

#[test]
fn the_announced_mac_wins() {
    in_new_namespace(VXLAN, |mut host| {
        host.netlink.create_link(&left_by_flannel(|_| {})).unwrap();
        let own = Node {
            announced: peer(9).announced,
            ..own_node()
        };
        host.pass(&cluster([own]));
        let mac = host.device("flannel.1").mac.unwrap();
        assert_eq!(mac.to_string(), "02:00:00:00:04:09");
    });
}

#[test]
fn without_a_subnet_there_is_only_the_device_and_a_foreign_subnet_is_refused() {
    in_new_namespace(VXLAN, |mut host| {
        let mut node = own_node();
        node.pod_cidrs.clear();
        host.pass(&cluster([node.clone()]));
        let device = host.device("flannel.1");
        let addresses = host.netlink.addresses(&device.name).unwrap();
        assert!(addresses.iter().all(|address| address.ip.is_ipv6()));
        assert!(!host.told().is_up());
        assert!(!host.subnet_file.exists());

        node.pod_cidrs = vec!["192.168.0.0/24".parse().unwrap()];
        let report = host.overlay.pass(&Arc::new(cluster([node])), LOOK);
        let errors: Vec<String> = report.errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            errors,
            [
                "overlay: compute : subnet 192.168.0.0/24 of node n1 is not within Network 10.244.0.0/16: make net-conf.json agree with the cluster CIDR"
            ]
        );
    });
}

#[test]
fn two_families_have_a_device_each_and_pods_the_smaller_mtu() {
    in_new_namespace(DUAL, |mut host| {
        let all = cluster([peer(2)]);
        host.pass(&all);
        assert_eq!(
            host.routes(),
            [
                "10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink",
                "fd00:0:0:2::/64 via fd00:0:0:2:: dev flannel-v6.1 onlink",
            ]
        );
        let v4 = [
            "02:00:00:00:04:02 to 172.30.0.2",
            "10.244.2.0 at 02:00:00:00:04:02",
        ];
        assert_eq!(host.peers("flannel.1"), v4);
        let v6 = [
            "02:00:00:00:06:02 to fd99::2",
            "fd00:0:0:2:: at 02:00:00:00:06:02",
        ];
        assert_eq!(host.peers("flannel-v6.1"), v6);
        let devices = ["flannel.1", "flannel-v6.1"].map(|device| host.device(device));
        assert_eq!(
            devices.clone().map(|one| one.mtu.map(Mtu::get)),
            [Some(1450), Some(1430)]
        );
        let locals = devices.clone().map(|one| one.vxlan.unwrap().local);
        assert_eq!(locals, ["172.30.0.1".parse().ok(), "fd99::1".parse().ok()]);
        assert_eq!(told_macs(&host.told()), devices.map(|one| one.mac));
        assert_eq!(
            host.subnet_env(),
            "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.0.1/24\n\
             FLANNEL_IPV6_NETWORK=fd00::/48\nFLANNEL_IPV6_SUBNET=fd00::1/64\n\
             FLANNEL_MTU=1430\nFLANNEL_IPMASQ=true\n"
        );
        assert_eq!(host.pass(&all), (0, 0));
    });
}

#[test]
fn one_familys_change_alone_is_followed() {
    in_new_namespace(DUAL, |mut host| {
        host.pass(&cluster([peer(2)]));
        let mut other = peer(2);
        other.announced.as_mut().unwrap().public_ipv6 = "fd99::77".parse().ok();
        host.pass(&cluster([other]));
        let v6 = [
            "02:00:00:00:06:02 to fd99::77",
            "fd00:0:0:2:: at 02:00:00:00:06:02",
        ];
        assert_eq!(host.peers("flannel-v6.1"), v6);
    });
}

#[test]
fn adjacent_nodes_are_routed_to_directly_and_others_through_the_device() {
    let conf = r#"{"Network": "10.244.0.0/16",
        "Backend": {"Type": "vxlan", "DirectRouting": true}}"#;
    in_new_namespace(conf, |mut host| {
        host.pass(&cluster([peer(2), peer(3), at(4, "192.0.2.4")]));
        assert_eq!(
            host.routes(),
            [
                "10.244.2.0/24 via 172.30.0.2 dev eth0",
                "10.244.3.0/24 via 172.30.0.3 dev eth0",
                "10.244.4.0/24 via 10.244.4.0 dev flannel.1 onlink",
            ]
        );
        let far = [
            "02:00:00:00:04:04 to 192.0.2.4",
            "10.244.4.0 at 02:00:00:00:04:04",
        ];
        assert_eq!(host.peers("flannel.1"), far);
        // One that moves away from the link is reached by the device.
        host.pass(&cluster([peer(2), at(3, "192.0.2.3"), at(4, "192.0.2.4")]));
        let routes = host.routes();
        assert_eq!(
            routes[1],
            "10.244.3.0/24 via 10.244.3.0 dev flannel.1 onlink"
        );
    });
}

#[test]
fn checksums_are_left_to_the_interface_below_or_not() {
    with_options(VXLAN, OverlayOptions::default(), |mut host| {
        host.pass(&cluster([]));
        let device = name("flannel.1");
        assert!(host.netlink.tx_checksum_offload(&device).unwrap());
        host.netlink
            .set_tx_checksum_offload(&device, false)
            .unwrap();
        // This kernel needs nothing, so an administrator's choice stays.
        assert_eq!(host.pass(&cluster([])), (0, 0));
    });
    let options = OverlayOptions {
        tx_checksum: TxChecksum::Off,
        ..OverlayOptions::default()
    };
    with_options(DUAL, options, |mut host| {
        host.pass(&cluster([]));
        for device in ["flannel.1", "flannel-v6.1"] {
            let device = name(device);
            assert!(!host.netlink.tx_checksum_offload(&device).unwrap());
            host.netlink.set_tx_checksum_offload(&device, true).unwrap();
        }
        assert_eq!(host.repairs(&cluster([])), 2);
    });
}

#[test]
fn a_black_hole_takes_what_no_pod_has() {
    let options = OverlayOptions {
        blackhole: true,
        ..OverlayOptions::default()
    };
    with_options(DUAL, options, |mut host| {
        let all = cluster([]);
        host.pass(&all);
        let holes = ["blackhole 10.244.0.0/24", "blackhole fd00::/64"];
        assert_eq!(host.routes(), holes);
        assert_eq!(host.pass(&all), (0, 0));
        // The bridge's own route to the same prefix wins.
        let bridge = Link::new(name("cni0"), LinkKind::Bridge).up();
        host.netlink.create_link(&bridge).unwrap();
        let gateway = netstate::Address::new("10.244.0.1/24".parse().unwrap());
        host.netlink.add_address(&name("cni0"), &gateway).unwrap();
        let (_, device, _) = host
            .netlink
            .route_to("10.244.0.77".parse().unwrap())
            .unwrap();
        assert_eq!(device, host.device("cni0").index);
        host.netlink.delete_link(&name("cni0")).unwrap();
        assert!(
            host.netlink
                .route_to("10.244.0.77".parse().unwrap())
                .is_err()
        );
    });
}
