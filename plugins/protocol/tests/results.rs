//! Results in every version: what goes out comes back, as far as the version can say it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use pretty_assertions::assert_eq;
use proptest::prelude::*;
use serde_json::json;
use towline_protocol::version::ALL;
use towline_protocol::{AddResult, Dns, Interface, IpConfig, Route, Version};

fn network() -> impl Strategy<Value = IpNetwork> {
    let v4 = (any::<[u8; 4]>(), 0u8..=32).prop_map(|(ip, n)| (IpAddr::from(ip), n));
    let v6 = (any::<[u8; 16]>(), 0u8..=128).prop_map(|(ip, n)| (IpAddr::from(ip), n));
    prop_oneof![v4, v6].prop_map(|(ip, prefix)| IpNetwork::new(ip, prefix).unwrap())
}

fn address() -> impl Strategy<Value = IpConfig> {
    (proptest::option::of(0usize..3), network(), any::<bool>()).prop_map(
        |(interface, address, g)| IpConfig {
            interface,
            address,
            gateway: g.then(|| address.network()),
        },
    )
}

fn route() -> impl Strategy<Value = Route> {
    (network(), any::<bool>(), proptest::option::of(1u32..9000)).prop_map(|(dst, gw, number)| {
        let gw = gw.then(|| dst.network());
        Route {
            mtu: number,
            priority: number,
            ..Route::new(dst, gw)
        }
    })
}

fn interface() -> impl Strategy<Value = Interface> {
    ("[a-z]{1,8}", 0u32..9000, "[a-z/]{0,8}").prop_map(|(name, mtu, sandbox)| {
        let mac = "02:00:00:00:00:01".to_owned();
        Interface {
            name,
            mac,
            mtu,
            sandbox,
            ..Interface::default()
        }
    })
}

prop_compose! {
    fn result()(
        interfaces in proptest::collection::vec(interface(), 0..3),
        ips in proptest::collection::vec(address(), 1..4),
        routes in proptest::collection::vec(route(), 0..4),
        nameservers in proptest::collection::vec("[0-9.]{1,8}", 0..3),
    ) -> AddResult {
        AddResult { interfaces, ips, routes, dns: Dns { nameservers, ..Dns::default() } }
    }
}

/// What is left of a result in `version`.
fn sayable(mut result: AddResult, version: Version) -> AddResult {
    if version < Version::V110 {
        result
            .interfaces
            .iter_mut()
            .for_each(|interface| interface.mtu = 0);
        for route in &mut result.routes {
            *route = Route::new(route.dst, route.gw);
        }
    }
    if version < Version::V030 {
        result.interfaces.clear();
        let of = |v4| move |ip: &&IpConfig| ip.address.is_ipv4() == v4;
        let firsts = [true, false].map(|v4| result.ips.iter().find(of(v4)).cloned());
        let (mut ips, mut routes) = (Vec::new(), Vec::new());
        for mut ip in firsts.into_iter().flatten() {
            ip.interface = None;
            let v4 = ip.address.is_ipv4();
            routes.extend(
                result
                    .routes
                    .iter()
                    .filter(|r| r.dst.is_ipv4() == v4)
                    .cloned(),
            );
            ips.push(ip);
        }
        (result.ips, result.routes) = (ips, routes);
    }
    result
}

proptest! {
    #[test]
    fn every_version_says_all_it_can(result in result()) {
        for version in ALL {
            let document = result.encode(version).unwrap();
            let (decoded, named) = AddResult::decode(&document, Version::V110).unwrap();
            prop_assert_eq!(named, version);
            prop_assert_eq!(decoded, sayable(result.clone(), version));
        }
    }
}

#[test]
fn the_documents_look_as_the_specification_shows_them() {
    let gateway = Some("10.1.0.1".parse().unwrap());
    let address = "10.1.0.5/16".parse().unwrap();
    let result = AddResult {
        interfaces: vec![Interface {
            name: "eth0".into(),
            mtu: 1400,
            ..Interface::default()
        }],
        ips: vec![IpConfig {
            interface: Some(0),
            address,
            gateway,
        }],
        routes: vec![Route::new("0.0.0.0/0".parse().unwrap(), None)],
        dns: Dns::default(),
    };
    let routes = json!([{ "dst": "0.0.0.0/0" }]);
    let ip = json!({ "ip": "10.1.0.5/16", "gateway": "10.1.0.1", "routes": routes });
    assert_eq!(
        result.encode(Version::V020).unwrap(),
        json!({ "cniVersion": "0.2.0", "ip4": ip, "dns": {} })
    );
    let mut ip = json!({ "interface": 0, "address": "10.1.0.5/16", "gateway": "10.1.0.1" });
    let newest = json!({
        "cniVersion": "1.1.0", "interfaces": [{ "name": "eth0", "mtu": 1400 }],
        "ips": [ip.clone()], "routes": routes,
    });
    assert_eq!(result.encode(Version::V110).unwrap(), newest);
    ip["version"] = "4".into();
    assert_eq!(
        result.encode(Version::V040).unwrap(),
        json!({
            "cniVersion": "0.4.0", "interfaces": [{ "name": "eth0" }], "ips": [ip],
            "routes": routes, "dns": {},
        })
    );
}

#[test]
fn the_oldest_versions_cannot_say_nothing() {
    let error = AddResult::default().encode(Version::V010).unwrap_err();
    assert_eq!(error.code, 2);
    assert!(AddResult::default().encode(Version::V031).is_ok());
}

#[test]
fn an_unknown_version_and_another_form_are_refused() {
    let decode = |document| AddResult::decode(&document, Version::V100).map_err(|e| e.code);
    assert_eq!(decode(json!({ "cniVersion": "7.0.0" })), Err(1));
    assert_eq!(decode(json!({ "ips": [{ "address": "x" }] })), Err(6));
    assert_eq!(decode(json!([])), Err(6));
    let empty_gateway = json!({ "ips": [{ "address": "10.0.0.1/8", "gateway": "" }] });
    assert_eq!(
        decode(empty_gateway).map(|(result, _)| result.ips[0].gateway),
        Ok(None)
    );
}
