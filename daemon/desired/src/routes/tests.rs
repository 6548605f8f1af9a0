use pretty_assertions::assert_eq;

use super::*;
use crate::cluster::{Leases, Node};
use crate::fixture::{cluster, node};
use crate::lease::Attributes;

fn underlay(public_ip: &str, carrier: Carrier) -> Underlay {
    Underlay {
        public_ip: public_ip.parse().unwrap(),
        uplink: "eth0".parse().unwrap(),
        adjacent: vec![
            "172.30.0.0/24".parse().unwrap(),
            "fd99::/64".parse().unwrap(),
        ],
        carrier,
    }
}

fn vxlan(device: &str, mac: &str, direct_routing: bool) -> Carrier {
    Carrier::Vxlan {
        device: device.parse().unwrap(),
        vni: 1.try_into().unwrap(),
        mac: mac.parse().unwrap(),
        direct_routing,
    }
}

fn overlay(carrier: Carrier) -> Overlay {
    Overlay {
        blackhole: false,
        v4: Some(underlay("172.30.0.1", carrier)),
        v6: None,
    }
}

fn over_vxlan() -> Overlay {
    overlay(vxlan("flannel.1", "02:00:00:00:00:01", false))
}

fn own() -> Node {
    node("n1", "10.244.1.0/24", "02:00:00:00:00:01", "172.30.0.1")
}

/// A cluster whose leases are in a store, this node's under 10.244.1.0-24.
fn stored(leases: &[(&str, &str)]) -> Cluster {
    let held = leases.iter().map(|(key, value)| {
        let attributes = Attributes::decode(value.as_bytes()).unwrap();
        let announced = Announced::of(&attributes).unwrap();
        (key.parse().unwrap(), announced.into())
    });
    let mut cluster = cluster("n1");
    cluster.leases = Leases::InStore {
        held: held.collect(),
        own: "10.244.1.0-24".parse().ok(),
    };
    cluster
}

fn lines(tables: &RouteTables) -> Vec<String> {
    let fdb = tables
        .fdb
        .values()
        .map(|entry| format!("{} dst {}", entry.key, entry.remote));
    let neighbours = tables
        .neighbours
        .values()
        .map(|entry| format!("{} at {}", entry.key, entry.mac));
    let wireguard = tables.wireguard.iter().map(|(key, peer)| {
        let allowed: Vec<String> = peer.allowed.iter().map(ToString::to_string).collect();
        format!(
            "{} at {} allowed {}",
            key.public_key,
            peer.endpoint,
            allowed.join(",")
        )
    });
    let routes = tables.routes.values().map(|route| {
        let mut text = route.key.destination.to_string();
        if let Some(gateway) = route.gateway {
            text += &format!(" via {gateway}");
        }
        text += &format!(" dev {}", route.device.as_ref().unwrap());
        text + if route.onlink { " onlink" } else { "" }
    });
    let problems = tables.problems.iter().map(ToString::to_string);
    fdb.chain(neighbours)
        .chain(wireguard)
        .chain(routes)
        .chain(problems)
        .collect()
}

#[test]
fn each_peer_has_a_route_a_neighbour_and_a_forwarding_entry() {
    let cluster = cluster("n1")
        .with_node(own())
        .with_node(node(
            "n2",
            "10.244.2.0/24",
            "02:00:00:00:00:02",
            "172.30.0.2",
        ))
        .with_node(Node::new("n3".parse().unwrap()));
    assert_eq!(
        lines(&routes(&cluster, &over_vxlan())),
        [
            "02:00:00:00:00:02 dev flannel.1 dst 172.30.0.2",
            "10.244.2.0 dev flannel.1 at 02:00:00:00:00:02",
            "10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink",
        ]
    );
    assert_eq!(
        routes(&cluster, &Overlay::default()),
        RouteTables::default()
    );
}

#[test]
fn a_node_that_cannot_be_told_from_another_harms_nobody_else() {
    let mut other_vni = node("n6", "10.244.6.0/24", "02:00:00:00:00:06", "172.30.0.6");
    if let Some(Backend::Vxlan { v4: Some(data), .. }) =
        other_vni.announced.as_mut().map(|one| &mut one.backend)
    {
        data.vni = 2.try_into().unwrap();
    }
    let mut other_backend = node("n7", "10.244.7.0/24", "02:00:00:00:00:07", "172.30.0.7");
    other_backend.announced.as_mut().unwrap().backend = Backend::HostGw;
    let cluster = cluster("n1")
        .with_node(own())
        .with_node(node(
            "n2",
            "10.244.2.0/24",
            "02:00:00:00:00:02",
            "172.30.0.1",
        ))
        .with_node(node(
            "n3",
            "10.244.3.0/24",
            "02:00:00:00:00:03",
            "172.30.0.3",
        ))
        .with_node(node(
            "n4",
            "10.244.4.0/24",
            "02:00:00:00:00:03",
            "172.30.0.4",
        ))
        .with_node(node(
            "n5",
            "10.244.1.0/24",
            "02:00:00:00:00:05",
            "172.30.0.5",
        ))
        .with_node(other_vni)
        .with_node(other_backend)
        .with_node(node(
            "n8",
            "10.244.2.0/23",
            "02:00:00:00:00:08",
            "172.30.0.8",
        ));
    assert_eq!(
        lines(&routes(&cluster, &over_vxlan())),
        [
            "02:00:00:00:00:03 dev flannel.1 dst 172.30.0.3",
            "10.244.3.0 dev flannel.1 at 02:00:00:00:00:03",
            "10.244.3.0/24 via 10.244.3.0 dev flannel.1 onlink",
            "node n2: public-ip 172.30.0.1 is also that of node n1: give each node its own",
            "node n4: VtepMAC 02:00:00:00:00:03 is also that of node n3: give each node its own",
            "node n5: subnet 10.244.1.0/24 is also that of node n1: give each node its own",
            "node n6: VNI 2 differs from ours, 1: use one VNI in net-conf.json",
            "node n7: backend \"host-gw\" differs from ours, \"vxlan\": use one backend on every node",
            "node n8: subnet 10.244.2.0/23 overlaps that of node n3: give each node its own",
        ]
    );
}

#[test]
fn a_subnet_that_nodes_are_in_hides_none_of_them() {
    let peer = |name: &str, subnet: &str, number: u8| {
        let (mac, ip) = (
            format!("02:00:00:00:00:{number:02x}"),
            format!("192.0.2.{number}"),
        );
        node(name, subnet, &mac, &ip)
    };
    let nodes = [
        // The link of this node, a wider one, the node's own address, and one that is fine.
        peer("n2", "172.30.0.0/24", 2),
        peer("n3", "172.0.0.0/8", 3),
        peer("n4", "192.0.2.0/29", 4),
        peer("n5", "172.30.0.128/25", 5),
    ];
    let all = nodes
        .into_iter()
        .fold(cluster("n1").with_node(own()), Cluster::with_node);
    assert_eq!(
        lines(&routes(&all, &over_vxlan())),
        [
            "02:00:00:00:00:05 dev flannel.1 dst 192.0.2.5",
            "172.30.0.128 dev flannel.1 at 02:00:00:00:00:05",
            "172.30.0.128/25 via 172.30.0.128 dev flannel.1 onlink",
            "node n2: subnet 172.30.0.0/24 holds 172.30.0.0/24, where nodes are: give pods a network of their own",
            "node n3: subnet 172.0.0.0/8 holds 172.30.0.0/24, where nodes are: give pods a network of their own",
            "node n4: subnet 192.0.2.0/29 holds 192.0.2.4/32, where nodes are: give pods a network of their own",
        ]
    );
}

#[test]
fn leases_in_a_store_are_reached_like_nodes() {
    let value = |ip: &str, mac: &str| {
        format!(
            r#"{{"PublicIP":"{ip}","BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"{mac}"}}}}"#
        )
    };
    let (first, second) = (
        value("172.30.0.1", "02:00:00:00:00:01"),
        value("192.0.2.2", "02:00:00:00:00:02"),
    );
    let cluster = stored(&[("10.244.1.0-24", &first), ("10.244.2.0-24", &second)]);
    assert_eq!(
        lines(&routes(&cluster, &over_vxlan())),
        [
            "02:00:00:00:00:02 dev flannel.1 dst 192.0.2.2",
            "10.244.2.0 dev flannel.1 at 02:00:00:00:00:02",
            "10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink",
        ]
    );
}

#[test]
fn adjacent_nodes_are_reached_directly_if_asked() {
    let cluster = cluster("n1")
        .with_node(own())
        .with_node(node(
            "n2",
            "10.244.2.0/24",
            "02:00:00:00:00:02",
            "172.30.0.2",
        ))
        .with_node(node(
            "n3",
            "10.244.3.0/24",
            "02:00:00:00:00:03",
            "192.0.2.3",
        ));
    let direct = overlay(vxlan("flannel.1", "02:00:00:00:00:01", true));
    assert_eq!(
        lines(&routes(&cluster, &direct)),
        [
            "02:00:00:00:00:03 dev flannel.1 dst 192.0.2.3",
            "10.244.3.0 dev flannel.1 at 02:00:00:00:00:03",
            "10.244.2.0/24 via 172.30.0.2 dev eth0",
            "10.244.3.0/24 via 10.244.3.0 dev flannel.1 onlink",
        ]
    );
}

#[test]
fn host_gw_routes_by_the_uplink_and_needs_every_node_there() {
    let value = |ip: &str| format!(r#"{{"PublicIP":"{ip}","BackendType":"host-gw"}}"#);
    let (first, near, far) = (value("172.30.0.1"), value("172.30.0.2"), value("192.0.2.3"));
    let cluster = stored(&[
        ("10.244.1.0-24", &first),
        ("10.244.2.0-24", &near),
        ("10.244.3.0-24", &far),
    ]);
    assert_eq!(
        lines(&routes(&cluster, &overlay(Carrier::HostGw))),
        [
            "10.244.2.0/24 via 172.30.0.2 dev eth0",
            "lease 10.244.3.0-24: public-ip 192.0.2.3 is not on the network of eth0: host-gw needs every node there; use vxlan",
        ]
    );
    let alloc = stored(&[("10.244.2.0-24", r#"{"PublicIP":"172.30.0.2"}"#)]);
    assert_eq!(lines(&routes(&alloc, &overlay(Carrier::Alloc))), [""; 0]);
}

#[test]
fn ipip_and_wireguard_have_devices_of_their_own() {
    let ipip = |ip: &str| format!(r#"{{"PublicIP":"{ip}","BackendType":"ipip"}}"#);
    let cluster = stored(&[
        ("10.244.1.0-24", &ipip("172.30.0.1")),
        ("10.244.2.0-24", &ipip("192.0.2.2")),
    ]);
    let carrier = Carrier::Ipip {
        device: "flannel.ipip".parse().unwrap(),
        direct_routing: true,
    };
    assert_eq!(
        lines(&routes(&cluster, &overlay(carrier))),
        ["10.244.2.0/24 via 192.0.2.2 dev flannel.ipip onlink"]
    );
    let wireguard = |ip: &str, key: &str| {
        format!(
            r#"{{"PublicIP":"{ip}","BackendType":"wireguard","BackendData":{{"PublicKey":"{key}","Port":51820}}}}"#
        )
    };
    let cluster = stored(&[
        (
            "10.244.1.0-24",
            &wireguard("172.30.0.1", "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="),
        ),
        (
            "10.244.2.0-24",
            &wireguard("192.0.2.2", "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI="),
        ),
    ]);
    let carrier = Carrier::Wireguard {
        device: "flannel-wg".parse().unwrap(),
        network: "10.244.0.0/16".parse().unwrap(),
    };
    assert_eq!(
        lines(&routes(&cluster, &overlay(carrier))),
        [
            "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI= at 192.0.2.2:51820 allowed 10.244.2.0/24",
            "10.244.0.0/16 dev flannel-wg",
        ]
    );
}

#[test]
fn a_wireguard_key_belongs_to_one_node() {
    let wireguard = |ip: &str, key: &str| {
        format!(
            r#"{{"PublicIP":"{ip}","BackendType":"wireguard","BackendData":{{"PublicKey":"{key}","Port":51820}}}}"#
        )
    };
    let ours = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
    let theirs = "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=";
    let cluster = stored(&[
        ("10.244.1.0-24", &wireguard("172.30.0.1", ours)),
        ("10.244.2.0-24", &wireguard("172.30.0.2", theirs)),
        ("10.244.3.0-24", &wireguard("172.30.0.3", theirs)),
        ("10.244.4.0-24", &wireguard("172.30.0.4", ours)),
    ]);
    let carrier = Carrier::Wireguard {
        device: "flannel-wg".parse().unwrap(),
        network: "10.244.0.0/16".parse().unwrap(),
    };
    let tables = routes(&cluster, &overlay(carrier));
    assert_eq!(tables.wireguard.len(), 1);
    let said: Vec<String> = tables.problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            format!(
                "lease 10.244.3.0-24: PublicKey {theirs} is also that of lease 10.244.2.0-24: give each node its own"
            ),
            format!(
                "lease 10.244.4.0-24: PublicKey {ours} is also that of lease 10.244.1.0-24: give each node its own"
            ),
        ]
    );
}

#[test]
fn the_second_family_has_a_device_of_its_own() {
    let value = r#"{"PublicIP":"172.30.0.2","PublicIPv6":"fd99::2","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:02"},"BackendV6Data":{"VNI":1,"VtepMAC":"02:00:00:00:06:02"}}"#;
    let cluster = stored(&[("10.244.2.0-24&fd00:2::-64", value)]);
    let v6 = vxlan("flannel-v6.1", "02:00:00:00:06:01", false);
    let overlay = Overlay {
        blackhole: false,
        v4: None,
        v6: Some(underlay("fd99::1", v6)),
    };
    assert_eq!(
        lines(&routes(&cluster, &overlay)),
        [
            "02:00:00:00:06:02 dev flannel-v6.1 dst fd99::2",
            "fd00:2:: dev flannel-v6.1 at 02:00:00:00:06:02",
            "fd00:2::/64 via fd00:2:: dev flannel-v6.1 onlink",
        ]
    );
}

#[test]
fn a_black_hole_lies_below_the_pods_of_this_node() {
    let overlay = Overlay {
        blackhole: true,
        ..over_vxlan()
    };
    let tables = routes(&cluster("n1").with_node(own()), &overlay);
    let hole = Route::blackhole("10.244.1.0/24".parse().unwrap());
    assert_eq!(hole.key.priority, u32::MAX);
    assert_eq!(tables.routes, BTreeMap::from([(hole.key, hole)]));
}
