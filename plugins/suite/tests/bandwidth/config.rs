//! Which configurations mean what, and which are refused.

use netstate::{Link, LinkKind};
use pretty_assertions::assert_eq;
use serde_json::json;

use crate::node::node;
use crate::{call, chained, ifbs, limited, limits, ptp, qdiscs, veth};

#[test]
fn nothing_to_limit_passes_the_result_on() {
    node(|node| {
        let pod = node.pod("c1");
        for none in [json!({}), json!({ "ingressRate": 0, "ingressBurst": 0 })] {
            let mut config = chained(node, &pod, "eth0", &none);
            if none != json!({}) {
                // The configuration's own keys count, even if they say nothing.
                config["runtimeConfig"] = json!({ "bandwidth": limits() });
            }
            let result = call(node, "bandwidth", "ADD", &config, &pod, "eth0").result();
            assert_eq!(result, config["prevResult"]);
            call(node, "bandwidth", "CHECK", &config, &pod, "eth0").ok();
            call(node, "bandwidth", "DEL", &config, &pod, "eth0").ok();
            call(node, "ptp", "DEL", &ptp(node), &pod, "eth0").ok();
        }
        let alone = json!({ "cniVersion": "1.0.0", "name": "net", "type": "bandwidth" });
        assert_eq!(
            call(node, "bandwidth", "ADD", &alone, &pod, "eth0")
                .error()
                .0,
            7
        );
    });
}

#[test]
fn the_runtimes_limits_count_where_the_configuration_has_none() {
    node(|node| {
        let pod = node.pod("c1");
        let runtime = json!({ "runtimeConfig": { "bandwidth": {
            "ingressRate": 8, "ingressBurst": 8, "egressRate": null, "shapedSubnets": null } } });
        let config = limited(node, &pod, &runtime);
        assert_eq!(qdiscs(&veth(&config)), ["tbf"]);
        assert_eq!(ifbs(node), [""; 0]);
        call(node, "bandwidth", "CHECK", &config, &pod, "eth0").ok();
    });
}

#[test]
fn every_version_gets_its_own_schema() {
    node(|node| {
        for version in ["0.2.0", "0.3.0", "0.4.0", "1.0.0", "1.1.0"] {
            let pod = node.pod("c1");
            let mut ptp = ptp(node);
            ptp["cniVersion"] = version.into();
            let mut config = limits();
            config["cniVersion"] = version.into();
            config["name"] = "net".into();
            config["prevResult"] = call(node, "ptp", "ADD", &ptp, &pod, "eth0").result();
            let result = call(node, "bandwidth", "ADD", &config, &pod, "eth0").result();
            assert_eq!(result["cniVersion"], version);
            if version != "0.2.0" {
                assert_eq!(result["interfaces"].as_array().unwrap().len(), 3);
            }
            call(node, "bandwidth", "DEL", &config, &pod, "eth0").ok();
            call(node, "ptp", "DEL", &ptp, &pod, "eth0").ok();
            assert_eq!(ifbs(node), [""; 0]);
        }
    });
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    node(|node| {
        let pod = node.pod("c1");
        let config = chained(node, &pod, "eth0", &json!({}));
        let subnets = |shaped: &str| json!({ "ingressRate": 8, "ingressBurst": 8, "shapedSubnets": [shaped] });
        for (limits, words) in [
            (
                json!({ "ingressRate": 8 }),
                "ingressRate is 8, but ingressBurst",
            ),
            (
                json!({ "egressBurst": 8 }),
                "egressBurst is 8, but egressRate",
            ),
            (
                json!({ "ingressRate": 7, "ingressBurst": 8 }),
                "ingressRate 7 is less",
            ),
            (
                json!({ "egressRate": 8, "egressBurst": 7 }),
                "egressBurst 7 is less",
            ),
            (
                json!({ "egressRate": 8, "egressBurst": 34_359_738_360_u64 }),
                "4 GiB",
            ),
            (subnets("10.0.0.0"), "shapedSubnets: \"10.0.0.0\""),
            (subnets("ten/8"), "shapedSubnets: \"ten/8\""),
            (
                json!({ "shapedSubnets": ["::/0"], "unshapedSubnets": ["::/0"] }),
                "exclude",
            ),
            (
                json!({ "runtimeConfig": { "bandwidth": { "egressRate": 8 } } }),
                "runtimeConfig.bandwidth.egressRate is 8",
            ),
        ] {
            let mut config = config.clone();
            for (key, value) in limits.as_object().unwrap() {
                config[key] = value.clone();
            }
            let (code, message) = call(node, "bandwidth", "ADD", &config, &pod, "eth0").error();
            assert!(
                code == 7 && message.contains(words),
                "{limits}: {code} {message}"
            );
        }
        for wrong in [json!(-1), json!("8"), json!(1.5), json!([8])] {
            let mut config = config.clone();
            config["ingressRate"] = wrong;
            let expected = "cannot decode ingressRate of the network configuration";
            let error = call(node, "bandwidth", "ADD", &config, &pod, "eth0").error();
            assert_eq!(error, (6, expected.to_owned()));
        }
        let most = json!({ "egressRate": 8, "egressBurst": 34_359_738_359_u64 });
        let mut config = config.clone();
        config["egressRate"] = most["egressRate"].clone();
        config["egressBurst"] = most["egressBurst"].clone();
        call(node, "bandwidth", "ADD", &config, &pod, "eth0").result();
        call(node, "bandwidth", "CHECK", &config, &pod, "eth0").ok();
    });
}

#[test]
fn only_a_veth_is_limited() {
    node(|node| {
        let pod = node.pod("c1");
        let mut config = limits();
        config["cniVersion"] = "1.0.0".into();
        config["name"] = "net".into();
        config["prevResult"] = json!({ "cniVersion": "1.0.0" });
        let add = || call(node, "bandwidth", "ADD", &config, &pod, "eth0").error();
        assert!(add().1.starts_with("the container has no interface eth0"));
        let link = Link::new("eth0".parse().unwrap(), LinkKind::Bridge);
        pod.netlink().create_link(&link).unwrap();
        let expected = "interface eth0 is bridge; bandwidth limits only a veth";
        assert_eq!(add(), (7, expected.to_owned()));
    });
}
