use desired::fixture;
use desired::lease::attributes::WireguardData;
use netstate::LinkKind;
use pretty_assertions::assert_eq;

use super::*;
use crate::uplink::Addresses;

fn facts() -> Facts {
    let ends_v4 = Addresses {
        local: "172.30.0.1".parse().unwrap(),
        public_ip: "172.30.0.1".parse().unwrap(),
    };
    let ends_v6 = Addresses {
        local: "fd99::1".parse().unwrap(),
        public_ip: "fd99::1".parse().unwrap(),
    };
    Facts {
        uplink: Uplink {
            device: "eth0".parse().unwrap(),
            mtu: Mtu::try_from(1500).unwrap(),
            v4: Some(ends_v4),
            v6: Some(ends_v6),
            adjacent: vec!["172.30.0.0/24".parse().unwrap()],
        },
        macs: [None, None],
        tx_checksum: None,
        wireguard_key: Some(wireguard::Key::private([4; 32])),
        blackhole: false,
    }
}

fn planned(backend: &str, facts: &Facts) -> Plan {
    let v6 = if backend.contains("ipip") {
        ""
    } else {
        r#""EnableIPv6": true, "IPv6Network": "fd00::/48","#
    };
    let text = format!(r#"{{"Network": "10.244.0.0/16", {v6} "Backend": {backend}}}"#);
    let net = NetConf::parse("net-conf.json", &text).unwrap();
    let mut own = desired::cluster::Node::new("n1".parse().unwrap());
    own.pod_cidrs = vec![
        "10.244.1.0/24".parse().unwrap(),
        "fd00:0:0:1::/64".parse().unwrap(),
    ];
    own.asked.announced = "203.0.113.1".parse().ok();
    plan(&net, &fixture::cluster("n1").with_node(own), facts).unwrap()
}

fn shown(plan: &Plan) -> Vec<(String, u32)> {
    let devices = plan.devices.iter();
    let shown = devices.map(|one| (one.name.to_string(), one.vtep.mtu.map_or(0, Mtu::get)));
    shown.collect()
}

fn pair(name: &str, mtu: u32) -> (String, u32) {
    (name.to_owned(), mtu)
}

#[test]
fn every_backend_has_flannels_devices_with_an_mtu_that_fits() {
    let plan = planned(r#"{"Type": "vxlan", "VNI": 7}"#, &facts());
    assert_eq!(
        shown(&plan),
        [pair("flannel.7", 1450), pair("flannel-v6.7", 1430)]
    );
    // Pods of both families get what passes both devices.
    assert_eq!(plan.lease.mtu.get(), 1430);
    let plan = planned(r#"{"Type": "ipip"}"#, &facts());
    assert_eq!(
        (shown(&plan), plan.lease.mtu.get()),
        (vec![pair("flannel.ipip", 1480)], 1480)
    );
    let plan = planned(r#"{"Type": "wireguard", "MTU": 1400}"#, &facts());
    assert_eq!(
        shown(&plan),
        [pair("flannel-wg", 1320), pair("flannel-wg-v6", 1320)]
    );
    for none in [r#"{"Type": "host-gw"}"#, r#"{"Type": "alloc"}"#] {
        let plan = planned(none, &facts());
        assert_eq!((shown(&plan), plan.lease.mtu.get()), (vec![], 1500));
    }
}

#[test]
fn an_mtu_beyond_the_interfaces_is_not_asked_for() {
    let plan = planned(r#"{"Type": "vxlan", "MTU": 9000}"#, &facts());
    assert_eq!(
        shown(&plan),
        [pair("flannel.1", 1450), pair("flannel-v6.1", 1430)]
    );
    let plan = planned(r#"{"Type": "vxlan", "MTU": 1400}"#, &facts());
    assert_eq!(
        shown(&plan),
        [pair("flannel.1", 1350), pair("flannel-v6.1", 1330)]
    );
}

#[test]
fn vxlan_says_what_the_configuration_says() {
    let conf = r#"{"Type": "vxlan", "Port": 4789, "Learning": true, "GBP": true}"#;
    let mut facts = facts();
    facts.tx_checksum = Some(false);
    let plan = planned(conf, &facts);
    let LinkKind::Vxlan(vxlan) = &plan.devices[0].vtep.kind else {
        panic!("{:?}", plan.devices[0]);
    };
    assert_eq!((vxlan.port, vxlan.learning, vxlan.gbp), (4789, true, true));
    assert_eq!(vxlan.local, "172.30.0.1".parse().ok());
    assert_eq!(plan.devices[1].tx_checksum, Some(false));
}

#[test]
fn ipip_carries_one_family_from_the_interfaces_address() {
    let plan = planned(r#"{"Type": "ipip", "DirectRouting": true}"#, &facts());
    let local = "172.30.0.1".parse().unwrap();
    assert_eq!(plan.devices[0].vtep.kind, LinkKind::Ipip { local });
    assert_eq!(plan.lease.announced.backend, Backend::Ipip);
    let carrier = plan.lease.overlay.v4.unwrap().carrier;
    let device = "flannel.ipip".parse().unwrap();
    let direct_routing = true;
    assert_eq!(
        carrier,
        Carrier::Ipip {
            device,
            direct_routing
        }
    );
}

#[test]
fn wireguard_announces_the_public_key_and_leads_the_whole_network() {
    let plan = planned(r#"{"Type": "wireguard", "ListenPort": 7}"#, &facts());
    let private_key = wireguard::Key::private([4; 32]);
    let public_key = private_key.public().to_string();
    let data = |port| {
        Some(WireguardData {
            public_key: public_key.clone(),
            port,
        })
    };
    let backend = Backend::Wireguard {
        v4: data(7),
        v6: data(51_821),
    };
    assert_eq!(plan.lease.announced.backend, backend);
    let own: Vec<_> = plan.devices.iter().map(|one| one.wireguard).collect();
    let device = |port| Some(wireguard::Device { private_key, port });
    assert_eq!(own, [device(7), device(51_821)]);
    let carrier = plan.lease.overlay.v6.unwrap().carrier;
    let network = "fd00::/48".parse().unwrap();
    let device = "flannel-wg-v6".parse().unwrap();
    assert_eq!(carrier, Carrier::Wireguard { device, network });
}

#[test]
fn an_overwritten_address_is_announced_and_not_used() {
    let plan = planned(r#"{"Type": "vxlan"}"#, &facts());
    assert_eq!(plan.lease.announced.public_ip, "203.0.113.1".parse().ok());
    assert_eq!(plan.lease.announced.public_ipv6, "fd99::1".parse().ok());
    let LinkKind::Vxlan(vxlan) = &plan.devices[0].vtep.kind else {
        panic!("{:?}", plan.devices[0]);
    };
    assert_eq!(vxlan.local, "172.30.0.1".parse().ok());
}

#[test]
fn an_address_written_on_the_node_stands_for_the_setting() {
    let choice = UplinkChoice {
        public_ip: "172.30.0.8".parse().ok(),
        public_ipv6: "fd99::8".parse().ok(),
        ..UplinkChoice::default()
    };
    let asked = AskedAddresses {
        public_ip: "172.30.0.9".parse().ok(),
        ..AskedAddresses::default()
    };
    let both = asked_choice(&choice, &asked);
    assert_eq!(both.public_ip, asked.public_ip);
    assert_eq!(both.public_ipv6, choice.public_ipv6);
    let mut stored = fixture::cluster("n1");
    let mut own = desired::cluster::Node::new("n1".parse().unwrap());
    own.asked = asked;
    stored = stored.with_node(own);
    assert_eq!(super::asked(&stored), asked);
    stored.leases = Leases::InStore {
        held: Default::default(),
        own: None,
    };
    assert_eq!(super::asked(&stored), AskedAddresses::default());
}
