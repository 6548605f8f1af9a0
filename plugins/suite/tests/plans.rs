//! Plans as values: the whole list of steps from a whole input, without any kernel.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use netstate::{Address, Link, LinkKind, Mtu, Op, PortVlans, Route, Scope, Step, VethPeer};
use pretty_assertions::assert_eq;
use protocol::{AddResult, Dns, IpConfig};
use towline_suite::bridge::config::Config;
use towline_suite::bridge::plan::Facts;
use towline_suite::pair::Pair;
use towline_suite::{bridge, ptp};

fn pair() -> Pair {
    Pair {
        host: "veth1".parse().unwrap(),
        host_mac: "02:00:00:00:00:01".parse().unwrap(),
        pod: "eth0".parse().unwrap(),
        pod_mac: "02:00:00:00:00:02".parse().unwrap(),
        netns: "/run/netns/x".parse().unwrap(),
        mtu: Mtu::try_from(1450).unwrap(),
    }
}

fn ip(address: &str, gateway: Option<&str>) -> IpConfig {
    let gateway = gateway.map(|text| text.parse().unwrap());
    IpConfig {
        interface: None,
        address: address.parse().unwrap(),
        gateway,
    }
}

fn addresses(ips: Vec<IpConfig>, routes: &[&str]) -> AddResult {
    let route = |dst: &&str| protocol::Route::new(dst.parse().unwrap(), None);
    let routes = routes.iter().map(route).collect();
    AddResult {
        interfaces: vec![],
        ips,
        routes,
        dns: Dns::default(),
    }
}

fn veth(master: Option<&str>) -> Step {
    let pair = pair();
    let peer = VethPeer {
        name: pair.pod,
        netns: Some(pair.netns),
        mac: Some(pair.pod_mac),
    };
    let mut link = Link::new(pair.host, LinkKind::Veth(peer)).up();
    (link.mac, link.mtu) = (Some(pair.host_mac), Some(pair.mtu));
    link.master = master.map(|name| name.parse().unwrap());
    Step::host(Op::CreateLink(link))
}

fn route(dst: &str, device: &str) -> Route {
    Route::via_device(dst.parse().unwrap(), device.parse().unwrap())
}

fn sysctl(name: &str, required: bool) -> Op {
    Op::WriteSysctl {
        name: name.to_owned(),
        value: "1".to_owned(),
        required,
    }
}

/// No router advertisements are accepted on the interface.
fn deaf(name: &str) -> Step {
    Step::host(Op::WriteSysctl {
        name: format!("net/ipv6/conf/{name}/accept_ra"),
        value: "0".to_owned(),
        required: false,
    })
}

fn facts(addresses: &[&str]) -> Facts {
    Facts {
        addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
        new_mac: "02:00:00:00:00:09".parse().unwrap(),
        mac: None,
        gateway_port: None,
    }
}

#[test]
fn ptp_routes_a_pod_through_the_hosts_end() {
    let wish = addresses(
        vec![ip("10.244.1.5/24", Some("10.244.1.1"))],
        &["0.0.0.0/0"],
    );
    let (steps, result) = ptp::plan::add(&pair(), &wish).unwrap();
    let (own, gateway) = ("10.244.1.5".parse().unwrap(), "10.244.1.1".parse().unwrap());
    let mut link = route("10.244.1.1/32", "eth0").source(own);
    link.scope = Some(Scope::Link);
    let eth0 = || "eth0".parse().unwrap();
    let pod_address = Address::new("10.244.1.5/24".parse().unwrap()).without_prefix_route();
    let host_address = Address::new("10.244.1.1/32".parse().unwrap());
    assert_eq!(
        steps,
        [
            veth(None),
            deaf("veth1"),
            Step::pod(Op::AddAddress(eth0(), pod_address)),
            Step::pod(Op::SetUp(eth0())),
            Step::host(Op::AddAddress("veth1".parse().unwrap(), host_address)),
            Step::pod(Op::EnsureRoute(link)),
            Step::pod(Op::AddRoute(
                route("10.244.1.0/24", "eth0").gateway(gateway).source(own)
            )),
            Step::pod(Op::AddRoute(route("0.0.0.0/0", "eth0").gateway(gateway))),
            Step::host(Op::EnsureRoute(route("10.244.1.5/32", "veth1"))),
            Step::host(sysctl("net/ipv4/ip_forward", true)),
        ]
    );
    assert_eq!(
        result.ips,
        [IpConfig {
            interface: Some(1),
            ..wish.ips[0].clone()
        }]
    );
}

#[test]
fn addresses_that_ptp_cannot_route_are_refused_before_anything_is_done() {
    let refusal = |wish| ptp::plan::add(&pair(), &wish).unwrap_err().msg;
    assert_eq!(
        refusal(addresses(vec![ip("10.1.0.5/24", None)], &[])),
        "ipam: address 10.1.0.5/24 has no gateway, which ptp needs; configure one"
    );
    assert_eq!(
        refusal(addresses(vec![ip("10.1.0.5/24", Some("fd00::1"))], &[])),
        "ipam: gateway fd00::1 is of another family than 10.1.0.5/24"
    );
    assert_eq!(
        refusal(addresses(
            vec![ip("10.1.0.5/24", Some("10.1.0.1"))],
            &["::/0"]
        )),
        "ipam: route to ::/0 has no gateway; give gw, or an address with one"
    );
}

fn bridged() -> Config {
    Config {
        bridge: "cni0".parse().unwrap(),
        is_gateway: true,
        is_default_gateway: true,
        force_address: false,
        mtu: None,
        hairpin: true,
        promiscuous: false,
        isolated: false,
        vlans: None,
        vlan_gateway: None,
        spoof_check: false,
        detect_duplicates: false,
        leave_down: false,
        masquerade: None,
        mac: None,
        ipam: Some("host-local".to_owned()),
        dns: None,
    }
}

#[test]
fn bridge_fills_in_gateway_and_default_route() {
    let wish = addresses(vec![ip("10.1.0.5/24", None)], &[]);
    let (steps, result) = bridge::plan::add(&bridged(), &pair(), &wish, &facts(&[])).unwrap();
    let (cni0, eth0) = (|| "cni0".parse().unwrap(), || "eth0".parse().unwrap());
    let veth1 = || "veth1".parse().unwrap();
    let mut link = Link::new(cni0(), LinkKind::Bridge).up();
    (link.mac, link.mtu) = (Some(facts(&[]).new_mac), Some(pair().mtu));
    let gateway = "10.1.0.1".parse().unwrap();
    let gateway_address = Address::new("10.1.0.1/24".parse().unwrap());
    let pod_address = Address::new("10.1.0.5/24".parse().unwrap());
    assert_eq!(
        steps,
        [
            Step::host(Op::EnsureLink(link)),
            deaf("cni0"),
            Step::host(Op::EnsureAddress(cni0(), gateway_address)),
            Step::host(sysctl("net/ipv4/ip_forward", true)),
            veth(Some("cni0")),
            Step::host(Op::SetHairpin(veth1(), true)),
            deaf("veth1"),
            Step::pod(sysctl("net/ipv4/conf/eth0/arp_notify", false)),
            Step::pod(Op::AddAddress(eth0(), pod_address)),
            Step::pod(Op::SetUp(eth0())),
            Step::host(Op::AwaitRunning(veth1())),
            Step::pod(Op::AddRoute(route("0.0.0.0/0", "eth0").gateway(gateway))),
            Step::pod(Op::SetMac(eth0(), pair().pod_mac)),
        ]
    );
    assert_eq!(result.ips[0].gateway, Some(gateway));
    assert_eq!(result.ips[0].interface, Some(2));
}

/// The steps of an ADD that make or change VLANs, and where the gateway's address goes.
fn vlan_steps(config: &Config, facts: &Facts) -> Vec<Step> {
    let wish = addresses(vec![ip("10.1.0.5/24", None)], &[]);
    let (steps, _) = bridge::plan::add(config, &pair(), &wish, facts).unwrap();
    let about_vlans = |step: &Step| {
        let gateways = match &step.op {
            Op::EnsureLink(link) => !matches!(link.kind, LinkKind::Bridge),
            Op::SetMaster(..) | Op::EnsureAddress(..) | Op::SetVlanFiltering(..) => true,
            Op::SetPortVlans(..) => true,
            _ => false,
        };
        step.place == netstate::Place::Host && gateways
    };
    steps.into_iter().filter(about_vlans).collect()
}

#[test]
fn a_pod_in_a_vlan_has_its_gateway_on_a_port_of_that_vlan() {
    let (veth1, gateway) = (|| "veth1".parse().unwrap(), || "cni0.5".parse().unwrap());
    let vlans = PortVlans {
        keep: false,
        untagged: Some(5),
        tagged: vec![(10, 12)],
    };
    let config = Config {
        vlans: Some(vlans.clone()),
        vlan_gateway: Some(gateway()),
        ..bridged()
    };
    let bridge = || "cni0".parse().unwrap();
    let own = PortVlans {
        tagged: vec![],
        ..vlans.clone()
    };
    let address = Address::new("10.1.0.1/24".parse().unwrap());
    let expected = |port: netstate::IfName| {
        let peer = VethPeer {
            name: port.clone(),
            netns: None,
            mac: None,
        };
        let mut link = Link::new(gateway(), LinkKind::Veth(peer)).up();
        link.mtu = Some(pair().mtu);
        [
            Step::host(Op::SetVlanFiltering(bridge(), true)),
            Step::host(Op::EnsureLink(link)),
            Step::host(Op::SetMaster(port.clone(), bridge())),
            Step::host(Op::SetPortVlans(port, own.clone())),
            Step::host(Op::EnsureAddress(gateway(), address)),
            Step::host(Op::SetPortVlans(veth1(), vlans.clone())),
        ]
    };
    let new: Vec<Step> = vlan_steps(&config, &facts(&[]));
    let Op::SetMaster(port, _) = &new[2].op else {
        panic!("no port of the gateway: {new:?}");
    };
    assert_eq!(new, expected(port.clone()));
    // The reference plugin's port has a name of its own.
    let there = Facts {
        gateway_port: Some("veth0a".parse().unwrap()),
        ..facts(&[])
    };
    assert_eq!(
        vlan_steps(&config, &there),
        expected("veth0a".parse().unwrap())
    );
    // Without a VLAN of its own a trunk's gateway is the bridge.
    let trunk = Config {
        vlan_gateway: None,
        ..config
    };
    assert_eq!(
        vlan_steps(&trunk, &facts(&[])),
        [
            Step::host(Op::SetVlanFiltering(bridge(), true)),
            Step::host(Op::EnsureAddress(bridge(), address)),
            Step::host(Op::SetPortVlans(veth1(), vlans)),
        ]
    );
}

#[test]
fn duplicates_are_looked_for_only_when_asked() {
    let wish = addresses(vec![ip("fd00:1::5/64", None)], &[]);
    let plan = |asked| {
        let config = Config {
            detect_duplicates: asked,
            ..bridged()
        };
        let (steps, _) = bridge::plan::add(&config, &pair(), &wish, &facts(&[])).unwrap();
        let of_pod = steps
            .iter()
            .filter(|step| step.place == netstate::Place::Pod);
        let says = |wanted: &dyn Fn(&Op) -> bool| of_pod.clone().any(|step| wanted(&step.op));
        [
            says(&|op| matches!(op, Op::AddAddress(_, address) if address.nodad)),
            says(&|op| matches!(op, Op::WriteSysctl { name, .. } if name.ends_with("accept_dad"))),
            says(&|op| matches!(op, Op::AwaitAddresses(_))),
        ]
    };
    assert_eq!(plan(false), [true, true, false]);
    assert_eq!(plan(true), [false, false, true]);
}

#[test]
fn a_container_interface_that_is_not_wanted_is_left_down() {
    let config = Config {
        leave_down: true,
        ..bridged()
    };
    let (steps, result) =
        bridge::plan::add(&config, &pair(), &AddResult::default(), &facts(&[])).unwrap();
    assert!(steps.iter().all(|step| step.place == netstate::Place::Host));
    assert_eq!(result.interfaces.len(), 3);
}

#[test]
fn a_default_route_from_ipam_is_not_made_twice() {
    let wish = addresses(
        vec![ip("10.1.0.5/24", Some("10.1.0.1"))],
        &["0.0.0.0/0", "0.0.0.0/0"],
    );
    let defaults = |wish: &AddResult| {
        let (steps, _) = bridge::plan::add(&bridged(), &pair(), wish, &facts(&[])).unwrap();
        let routes = steps
            .iter()
            .filter(|step| matches!(step.op, Op::AddRoute(_)));
        routes.count()
    };
    assert_eq!(defaults(&wish), 1);
    // One of another table leaves the main table without any.
    let mut elsewhere = wish;
    elsewhere.routes.truncate(1);
    elsewhere.routes[0].table = Some(100);
    assert_eq!(defaults(&elsewhere), 2);
}

#[test]
fn disjoint_ipv6_addresses_of_the_bridge_stay() {
    let plan = |address| {
        let wish = addresses(vec![ip(address, None)], &[]);
        bridge::plan::add(&bridged(), &pair(), &wish, &facts(&["fd00:9::1/64"]))
            .map(|(steps, _)| steps)
    };
    let deletes = |steps: Vec<Step>| steps.iter().any(|s| matches!(s.op, Op::DeleteAddress(..)));
    assert_eq!(plan("fd00:1::5/64").map(deletes), Ok(false));
    assert!(plan("fd00:9::5/60").is_err());
}
