//! Plans of the plugins of one device per pod, as values: whole configurations to whole lists of
//! steps, without any kernel.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use hostnet::{LinkDetails, LinkInfo};
use netstate::{
    Address, IfName, IpvlanMode, Link, LinkKind, Macvlan, MacvlanMode, Mtu, NetnsPath, Op, Route,
    Step,
};
use pretty_assertions::assert_eq;
use protocol::{AddResult, Env, Error, Registry, Request};
use serde_json::{Value, json};
use towline_suite::{device, dummy, ipvlan, macvlan, vlan};

fn eth0() -> IfName {
    "eth0".parse().unwrap()
}

fn pod() -> NetnsPath {
    "/run/netns/c1".parse().unwrap()
}

/// The host's `up0`, with an MTU of 1500.
fn below() -> LinkInfo {
    LinkInfo {
        index: 7,
        name: "up0".parse().unwrap(),
        kind: String::new(),
        mac: None,
        mtu: Some(Mtu::try_from(1500).unwrap()),
        master: None,
        port: None,
        peer: None,
        up: true,
        running: true,
        peer_elsewhere: false,
        promiscuity: 0,
        promiscuous: false,
        all_multicast: false,
        queue_length: 1000,
        alias: String::new(),
        details: LinkDetails::None,
        vxlan: None,
        vxlan_device: None,
    }
}

/// What `read` makes of a network configuration with these fields, on ADD.
fn read<T>(
    fields: &Value,
    read: impl FnOnce(&Request<'_>) -> Result<T, Error>,
) -> Result<T, String> {
    let mut config = json!({ "cniVersion": "1.0.0", "name": "net" });
    for (key, value) in fields.as_object().unwrap() {
        config[key] = value.clone();
    }
    let env = [
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "c1"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_NETNS", "/run/netns/c1"),
        ("CNI_PATH", "/nowhere"),
    ];
    let env: Env = env.into_iter().collect();
    let stdin = config.to_string();
    let request = Request::parse(&env, stdin.as_bytes(), Registry::new(&[])).unwrap();
    read(&request).map_err(|error| format!("{}: {}", error.code, error.msg))
}

/// The one step that makes `eth0` of `kind` in the pod from the host.
fn made(kind: LinkKind, mtu: Option<u32>) -> Vec<Step> {
    let mut link = Link::new(eth0(), kind);
    link.mtu = mtu.map(|mtu| Mtu::try_from(mtu).unwrap());
    link.netns = Some(pod());
    vec![Step::host(Op::CreateLink(link))]
}

#[test]
fn vlan_is_made_on_its_master() {
    let steps = |fields: &Value| {
        let config = read(fields, vlan::config::read)?;
        vlan::make(&config, &eth0(), &pod(), &below()).map_err(|error| error.msg)
    };
    let kind = LinkKind::Vlan {
        lower: "up0".parse().unwrap(),
        id: 4094,
    };
    assert_eq!(
        steps(&json!({ "master": "up0", "vlanId": 4094, "mtu": 1400 })),
        Ok(made(kind, Some(1400)))
    );
    let kind = LinkKind::Vlan {
        lower: "up0".parse().unwrap(),
        id: 0,
    };
    assert_eq!(
        steps(&json!({ "master": "up0", "linkInContainer": true })),
        Ok(vec![Step::pod(Op::CreateLink(Link::new(eth0(), kind)))])
    );
    for (fields, refusal) in [
        (
            json!({ "vlanId": 5 }),
            "7: master is missing; name the device that the VLAN is on",
        ),
        (
            json!({ "master": "up0", "vlanId": 4095 }),
            "7: vlanId 4095 is no VLAN; give 0 to 4094",
        ),
        (
            json!({ "master": "up0", "vlanId": -1 }),
            "7: vlanId -1 is no VLAN; give 0 to 4094",
        ),
        (
            json!({ "master": "up0", "mtu": 1501 }),
            "mtu 1501 does not go on master up0; give 68 to 1500, or 0 for its own",
        ),
    ] {
        assert_eq!(steps(&fields), Err(refusal.to_owned()));
    }
}

#[test]
fn ipvlan_takes_master_and_addresses_from_a_chain() {
    let interface = |name: &str| json!({ "name": name });
    let before = |interfaces: Value| {
        json!({
            "cniVersion": "1.0.0", "interfaces": interfaces,
            "ips": [{ "address": "10.1.0.5/24", "gateway": "10.1.0.1", "interface": 0 }],
            "routes": [{ "dst": "0.0.0.0/0" }],
        })
    };
    let config = |fields: &Value| read(fields, ipvlan::config::read);
    let chained = json!({ "mode": "l3", "prevResult": before(json!([interface("up0")])) });
    let read_config = config(&chained).unwrap();
    let steps = ipvlan::make(&read_config, &eth0(), &pod(), &below()).unwrap();
    let kind = LinkKind::Ipvlan {
        lower: "up0".parse().unwrap(),
        mode: IpvlanMode::L3,
    };
    assert_eq!(read_config.lower.name, Some("up0".parse().unwrap()));
    assert_eq!(steps, made(kind, None));
    let ips: Vec<String> = read_config
        .wish
        .known
        .ips
        .iter()
        .map(|ip| ip.address.to_string())
        .collect();
    assert_eq!(
        (read_config.wish.ipam, ips),
        (None, vec!["10.1.0.5/24".to_owned()])
    );

    let two = json!([interface("up0"), interface("up1")]);
    for (fields, refusal) in [
        (
            json!({ "prevResult": before(two) }),
            "7: master is missing, and prevResult has 2 interfaces, not one that could be it; \
             name one",
        ),
        (
            json!({ "mode": "l4" }),
            "7: mode \"l4\" is unknown; give l2, l3 or l3s",
        ),
        (
            json!({ "mode": "l3s" }),
            "7: ipam.type is missing; modes l3 and l3s need addresses, name an IPAM plugin",
        ),
    ] {
        assert_eq!(config(&fields), Err(refusal.to_owned()));
    }
    assert_eq!(config(&json!({})).unwrap().lower.name, None);
}

#[test]
fn passthru_gets_its_address_after_it_was_made() {
    let steps = |fields: &Value| {
        let config = read(fields, macvlan::config::read).unwrap();
        let own = "02:00:00:00:00:01".parse().unwrap();
        macvlan::plan::make(&config, &eth0(), &pod(), &below(), own).unwrap()
    };
    let kind = LinkKind::Macvlan(Macvlan {
        lower: "up0".parse().unwrap(),
        mode: MacvlanMode::Passthru,
        broadcast_queue: Some(2000),
    });
    let asked = json!({
        "master": "up0", "mode": "passthru", "bcqueuelen": 2000, "mac": "02:00:00:00:00:05",
    });
    let mut wanted = made(kind, None);
    let mac = "02:00:00:00:00:05".parse().unwrap();
    wanted.push(Step::pod(Op::SetMac(eth0(), mac)));
    assert_eq!(steps(&asked), wanted);
}

#[test]
fn a_device_is_configured_before_it_comes_up_and_routed_after() {
    let addresses: AddResult = serde_json::from_value(json!({
        "ips": [{ "address": "10.1.0.5/24", "gateway": "10.1.0.1" }, { "address": "fd00::5/64" }],
        "routes": [{ "dst": "0.0.0.0/0" }],
    }))
    .unwrap();
    let made = dummy::make(&eth0(), &pod());
    let steps = device::plan(&eth0(), made.clone(), true, &addresses).unwrap();
    let sysctl = |name: &str, value: &str| {
        Step::pod(Op::WriteSysctl {
            name: name.replace('%', "eth0"),
            value: value.to_owned(),
            required: false,
        })
    };
    let address =
        |text: &str| Step::pod(Op::AddAddress(eth0(), Address::new(text.parse().unwrap())));
    let route = Route::via_device("0.0.0.0/0".parse().unwrap(), eth0());
    let wanted = [
        sysctl("net/ipv4/conf/%/arp_notify", "1"),
        sysctl("net/ipv6/conf/%/disable_ipv6", "0"),
        sysctl("net/ipv6/conf/%/keep_addr_on_down", "1"),
        sysctl("net/ipv6/conf/%/accept_dad", "0"),
        sysctl("net/ipv6/conf/%/ndisc_notify", "1"),
        address("10.1.0.5/24"),
        address("fd00::5/64"),
        Step::pod(Op::SetUp(eth0())),
        Step::pod(Op::AddRoute(route.gateway("10.1.0.1".parse().unwrap()))),
    ];
    assert_eq!(steps, [made, wanted.to_vec()].concat());
}
