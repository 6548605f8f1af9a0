//! `vrf`: plans as values, and the built program as far as this kernel goes. What needs a VRF that
//! the kernel does not have is skipped, and says so.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod node;

use std::io::Write;

use hostnet::{AddressInfo, LinkDetails, LinkInfo, Netlink};
use netstate::route::MAIN_TABLE;
use netstate::{Address, IfName, Link, LinkKind, Op, Route, Step};
use node::setup::dual_stack;
use node::{Answer, Node, Pod, node, shown_routes};
use pretty_assertions::assert_eq;
use serde_json::{Value, json};
use towline_suite::vrf::config::Config;
use towline_suite::vrf::plan::{self, Facts};

fn name(text: &str) -> IfName {
    text.parse().unwrap()
}

fn route(destination: &str, table: u32) -> Route {
    let mut route = Route::via_device(destination.parse().unwrap(), name("eth0"));
    route.key.table = table;
    route
}

/// A kernel's link to be changed for a plan's facts: the one of a new namespace.
fn any_link() -> LinkInfo {
    node(|_| Netlink::open().unwrap().links().unwrap().remove(0))
}

/// A pod as `bridge` leaves it, with a VRF `blue` and one rule to table 1.
fn facts() -> Facts {
    let lo = any_link();
    let eth0 = LinkInfo {
        index: 2,
        name: name("eth0"),
        kind: "veth".to_owned(),
        ..lo.clone()
    };
    let blue = LinkInfo {
        index: 3,
        name: name("blue"),
        kind: "vrf".to_owned(),
        details: LinkDetails::Vrf(2),
        ..lo.clone()
    };
    let address = |ip: &str| AddressInfo {
        index: 2,
        ip: ip.parse().unwrap(),
        tentative: false,
        dad_failed: false,
        permanent: true,
        passing: false,
        scope: 0,
    };
    let gateway = |ip: &str| Some(ip.parse().unwrap());
    Facts {
        links: vec![lo, eth0, blue],
        addresses: ["10.1.0.5/24", "fd00::5/64", "fe80::1/64"]
            .map(address)
            .to_vec(),
        routes: vec![
            Route {
                gateway: gateway("10.1.0.1"),
                ..route("0.0.0.0/0", MAIN_TABLE)
            },
            route("10.1.0.0/24", MAIN_TABLE),
            Route {
                gateway: gateway("fd00::1"),
                ..route("::/0", MAIN_TABLE)
            },
            route("fd00::/64", MAIN_TABLE),
            route("fe80::/64", MAIN_TABLE),
            route("198.51.100.7/32", MAIN_TABLE),
            route("192.0.2.0/24", 3),
        ],
        tables: vec![1, 254],
    }
}

fn config(vrf: &str, table: Option<u32>) -> Config {
    Config {
        vrf: name(vrf),
        table,
    }
}

/// What the kernel forgets of `eth0`, with its routes in `table`.
fn restored(table: u32) -> Vec<Step> {
    let address = Address::new("fd00::5/64".parse().unwrap());
    let via = |to: &str, ip: &str| route(to, table).gateway(ip.parse().unwrap());
    vec![
        Step::pod(Op::EnsureAddress(name("eth0"), address)),
        Step::pod(Op::EnsureRoute(route("198.51.100.7/32", table))),
        Step::pod(Op::EnsureRoute(via("0.0.0.0/0", "10.1.0.1"))),
        Step::pod(Op::EnsureRoute(via("::/0", "fd00::1"))),
    ]
}

#[test]
fn a_new_vrf_gets_the_first_free_table_and_the_interface_all_that_it_had() {
    let (steps, back) = plan::add(&config("red", None), &name("eth0"), &facts()).unwrap();
    // 1 has a rule, 2 is another VRF's, 3 has a route.
    let red = Link::new(name("red"), LinkKind::Vrf { table: 4 }).up();
    let mut wanted = vec![
        Step::pod(Op::CreateLink(red)),
        Step::pod(Op::SetMaster(name("eth0"), name("red"))),
    ];
    wanted.extend(restored(4));
    assert_eq!(steps, wanted);
    let mut wanted = vec![Step::pod(Op::ClearMaster(name("eth0")))];
    wanted.extend(restored(MAIN_TABLE));
    assert_eq!(back, wanted);
}

#[test]
fn a_vrf_that_is_there_keeps_its_table() {
    for table in [None, Some(2)] {
        let (steps, _) = plan::add(&config("blue", table), &name("eth0"), &facts()).unwrap();
        let mut wanted = vec![Step::pod(Op::SetMaster(name("eth0"), name("blue")))];
        wanted.extend(restored(2));
        assert_eq!(steps, wanted);
    }
}

#[test]
fn an_address_without_a_prefix_route_gets_none() {
    let mut facts = facts();
    facts
        .routes
        .retain(|route| route.key.destination.to_string() != "fd00::/64");
    let (steps, _) = plan::add(&config("blue", None), &name("eth0"), &facts).unwrap();
    let address = Address::new("fd00::5/64".parse().unwrap()).without_prefix_route();
    assert_eq!(
        steps[1],
        Step::pod(Op::EnsureAddress(name("eth0"), address))
    );
}

#[test]
fn what_is_in_the_way_is_named() {
    let refusal = |config: &Config, interface: &str, facts: &Facts| {
        let error = plan::add(config, &name(interface), facts).unwrap_err();
        format!("{}: {}", error.code, error.msg)
    };
    let mut port = facts();
    port.links[1].master = Some(3);
    for (found, wanted) in [
        (
            refusal(&config("blue", Some(9)), "eth0", &facts()),
            "7: table: VRF blue has 2, not 9; give one of them",
        ),
        (
            refusal(&config("lo", None), "eth0", &facts()),
            "7: vrfname: lo is a \"\"; give another name",
        ),
        (
            refusal(&config("red", None), "eth1", &facts()),
            "999: interface eth1 is not in the container",
        ),
        (
            refusal(&config("red", None), "eth0", &port),
            "999: interface eth0 is a port of blue already",
        ),
    ] {
        assert_eq!(found, wanted);
    }
}

fn vrf(fields: &Value, before: &Value) -> Value {
    let mut config = json!({ "cniVersion": "1.1.0", "name": "net", "type": "vrf" });
    config["prevResult"] = before.clone();
    for (key, value) in fields.as_object().unwrap() {
        config[key] = value.clone();
    }
    config
}

fn call(node: &Node, command: &str, config: &Value, pod: &Pod) -> Answer {
    node.attachment("vrf", command, config, pod)
}

fn kernel_has_vrf() -> bool {
    let probe = Link::new(name("probe"), LinkKind::Vrf { table: 9 });
    let mut host = Netlink::open().unwrap();
    match host.create_link(&probe) {
        Ok(()) => host.delete_link(&probe.name).unwrap(),
        Err(error) if error.reason.contains("Unknown device type") => {
            // Not by a macro: those are silenced in tests that pass.
            let said = writeln!(
                std::io::stderr(),
                "SKIPPED: vrf: this kernel has no such devices"
            );
            said.unwrap();
            return false;
        }
        Err(error) => panic!("{error}"),
    }
    true
}

#[test]
fn an_interface_keeps_addresses_and_routes_in_its_vrf_and_the_last_port_removes_it() {
    node(|node| {
        if !kernel_has_vrf() {
            return;
        }
        let pod = node.pod("c1");
        let bridge = dual_stack(node, "bridge");
        let before = node.attachment("bridge", "ADD", &bridge, &pod).result();
        let routes = pod.routes();
        let config = vrf(&json!({ "vrfname": "red" }), &before);
        assert_eq!(call(node, "ADD", &config, &pod).result(), before);
        assert_eq!(pod.routes(), routes);
        let v6 = "fd00:1::2/64".parse().unwrap();
        let addresses = pod.netlink().addresses(&name("eth0")).unwrap();
        assert!(addresses.iter().any(|a| a.ip == v6 && !a.tentative));
        call(node, "CHECK", &config, &pod).ok();
        pod.netlink().set_down(&name("red")).unwrap();
        assert_eq!(
            call(node, "CHECK", &config, &pod).error().1,
            "VRF red is down"
        );
        for _ in 0..2 {
            call(node, "DEL", &config, &pod).ok();
            assert!(!pod.has_link("red"));
        }
        assert_eq!(call(node, "CHECK", &config, &pod).error().0, 999);
        node.attachment("bridge", "DEL", &bridge, &pod).ok();
    });
}

/// On a kernel without VRFs the kernel refuses the device, elsewhere the name.
#[test]
fn a_failed_add_leaves_the_interface_as_it_was() {
    node(|node| {
        let pod = node.pod("c1");
        let bridge = dual_stack(node, "bridge");
        let before = node.attachment("bridge", "ADD", &bridge, &pod).result();
        let eth0 = name("eth0");
        let state = || {
            let mut inside = pod.netlink();
            let link = inside.link(&eth0).unwrap();
            (
                link,
                inside.addresses(&eth0).unwrap(),
                shown_routes(&mut inside),
            )
        };
        // The link-local address comes with the carrier and is tentative for a while: not of ADD's
        // doing, so that has to be over before anything is compared.
        let settled = || {
            let mut inside = Netlink::open().unwrap();
            inside.await_running(&eth0).unwrap();
            inside.await_addresses(&eth0).unwrap();
        };
        pod.open().run_in(settled).unwrap();
        let was = state();
        let mut failing = vec![
            (json!({}), 7),
            (json!({ "vrfname": "no/name" }), 7),
            (json!({ "vrfname": "red", "table": -1 }), 7),
            (json!({ "vrfname": "lo" }), 7),
            (json!({ "vrfname": "red", "prevResult": null }), 7),
        ];
        if !kernel_has_vrf() {
            failing.push((json!({ "vrfname": "red" }), 999));
        }
        for (fields, code) in failing {
            let config = vrf(&fields, &before);
            let error = call(node, "ADD", &config, &pod).error();
            assert_eq!(error.0, code, "{fields}: {error:?}");
            assert_eq!(state(), was, "{fields}");
        }
        let config = vrf(&json!({ "vrfname": "red" }), &before);
        assert_eq!(
            call(node, "CHECK", &config, &pod).error().1,
            "VRF red is gone"
        );
        call(node, "DEL", &config, &pod).ok();
        assert_eq!(state(), was);
        // What has the VRF's name without being one is somebody else's.
        let red = Link::new(name("red"), LinkKind::Bridge);
        pod.netlink().create_link(&red).unwrap();
        call(node, "DEL", &config, &pod).ok();
        assert!(pod.has_link("red"));
        node.attachment("bridge", "DEL", &bridge, &pod).ok();
        pod.destroy();
        call(node, "DEL", &config, &pod).ok();
        assert!(!pod.path.exists(), "DEL made a file");
        node.call("vrf", "GC", &config, &[]).ok();
        node.call("vrf", "STATUS", &config, &[]).ok();
    });
}
