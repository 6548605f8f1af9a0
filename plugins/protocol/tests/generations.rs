//! One result in the words of each version, and read back from them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use pretty_assertions::assert_eq;
use serde_json::{Value, json};
use towline_protocol::{AddResult, Version};

/// Everything that version 1.1.0 can say.
fn newest() -> Value {
    json!({
        "cniVersion": "1.1.0",
        "interfaces": [
            { "name": "br0", "mac": "02:00:00:00:00:01" },
            { "name": "eth0", "mac": "02:00:00:00:00:02", "mtu": 1400, "sandbox": "/run/netns/a",
              "socketPath": "/run/s", "pciID": "0000:00:1f.6" },
        ],
        "ips": [
            { "interface": 1, "address": "10.1.0.5/16", "gateway": "10.1.0.1" },
            { "interface": 1, "address": "10.2.0.5/16" },
            { "interface": 1, "address": "fd00::5/64", "gateway": "fd00::1" },
        ],
        "routes": [
            { "dst": "0.0.0.0/0", "gw": "10.1.0.1", "mtu": 1300, "advmss": 1260, "priority": 5,
              "table": 100, "scope": 253 },
            { "dst": "10.9.0.0/16", "scope": 0 },
            { "dst": "::/0" },
        ],
        "dns": { "nameservers": ["10.1.0.1"], "domain": "d", "search": ["s"], "options": ["o"] },
    })
}

fn decode(document: &Value) -> AddResult {
    AddResult::decode(document, Version::V010).unwrap().0
}

/// What 1.0.0 leaves: neither MTU, socket nor PCI identifier, and of routes `dst` and `gw` alone.
fn older() -> Value {
    let mut document = newest();
    document["cniVersion"] = "1.0.0".into();
    document["interfaces"][1] =
        json!({ "name": "eth0", "mac": "02:00:00:00:00:02", "sandbox": "/run/netns/a" });
    document["routes"] = json!([
        { "dst": "0.0.0.0/0", "gw": "10.1.0.1" }, { "dst": "10.9.0.0/16" }, { "dst": "::/0" },
    ]);
    document
}

#[test]
fn version_1_1_0_keeps_everything() {
    assert_eq!(decode(&newest()).encode(Version::V110).unwrap(), newest());
}

#[test]
fn version_1_0_0_drops_what_1_1_0_added() {
    assert_eq!(decode(&newest()).encode(Version::V100).unwrap(), older());
    let mut upgraded = older();
    upgraded["cniVersion"] = "1.1.0".into();
    assert_eq!(decode(&older()).encode(Version::V110).unwrap(), upgraded);
}

#[test]
fn versions_0_3_0_to_0_4_0_name_the_family() {
    for version in [Version::V030, Version::V031, Version::V040] {
        let mut middle = older();
        middle["cniVersion"] = version.as_str().into();
        for (at, family) in ["4", "4", "6"].into_iter().enumerate() {
            middle["ips"][at]["version"] = family.into();
        }
        assert_eq!(decode(&newest()).encode(version).unwrap(), middle);
        assert_eq!(decode(&middle).encode(Version::V100).unwrap(), older());
    }
}

#[test]
fn versions_0_1_0_and_0_2_0_have_the_first_address_of_each_family_with_its_routes() {
    for version in [Version::V010, Version::V020] {
        let oldest = json!({
            "cniVersion": version.as_str(),
            "ip4": { "ip": "10.1.0.5/16", "gateway": "10.1.0.1", "routes": [
                { "dst": "0.0.0.0/0", "gw": "10.1.0.1" }, { "dst": "10.9.0.0/16" }] },
            "ip6": { "ip": "fd00::5/64", "gateway": "fd00::1", "routes": [{ "dst": "::/0" }] },
            "dns": newest()["dns"],
        });
        assert_eq!(decode(&newest()).encode(version).unwrap(), oldest);
        let upgraded = json!({
            "cniVersion": "1.0.0",
            "ips": [{ "address": "10.1.0.5/16", "gateway": "10.1.0.1" },
                    { "address": "fd00::5/64", "gateway": "fd00::1" }],
            "routes": older()["routes"], "dns": newest()["dns"],
        });
        assert_eq!(decode(&oldest).encode(Version::V100).unwrap(), upgraded);
    }
}

#[test]
fn an_empty_dns_is_said_below_1_0_0_alone() {
    for version in towline_protocol::version::ALL {
        let result =
            decode(&json!({ "cniVersion": "1.0.0", "ips": [{ "address": "fd00::5/64" }] }));
        let expected = (version < Version::V100).then(|| json!({}));
        assert_eq!(
            result.encode(version).unwrap().get("dns"),
            expected.as_ref(),
            "{version}"
        );
        // One family alone leaves no trace of the other.
        assert_eq!(result.encode(version).unwrap().get("ip4"), None);
    }
}
