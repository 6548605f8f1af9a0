//! `flannel`: what the delegate is given, and what is kept from ADD to DEL.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod node;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use netstate::nft::ChainRef;
use node::{Answer, Node, Pod, config_file, node, run};
use pretty_assertions::assert_eq;
use serde_json::{Value, json};

const SUBNET: &str = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\n\
                      FLANNEL_IPV6_NETWORK=fd00:10::/56\nFLANNEL_IPV6_SUBNET=fd00:10:0:1::1/64\n\
                      FLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";

fn config(node: &Node, network: &str) -> Value {
    json!({
        "cniVersion": "1.1.0", "name": network, "type": "flannel",
        "subnetFile": node.path("subnet.env"), "dataDir": node.path("saved"),
        "delegate": { "bridge": "br0", "isDefaultGateway": true },
        "ipam": { "dataDir": node.path("state") },
    })
}

fn call(node: &Node, command: &str, config: &Value, pod: &Pod, ifname: &str) -> Answer {
    let variables = [
        ("CNI_CONTAINERID", pod.id.as_str()),
        ("CNI_IFNAME", ifname),
        ("CNI_NETNS", pod.path.to_str().unwrap()),
    ];
    node.call("flannel", command, config, &variables)
}

fn saved(node: &Node) -> Vec<String> {
    let Ok(entries) = fs::read_dir(node.path("saved")) else {
        return vec![];
    };
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

fn names(expected: &[&str]) -> Vec<String> {
    expected.iter().map(|name| (*name).to_owned()).collect()
}

/// A delegate that notes its command and input, and answers ADD with `answer`. It is written by
/// another process: a file that this one has open cannot be executed.
fn recorder(node: &Node, answer: &str) {
    let (path, log) = (node.path("bin/recorder"), node.path("log"));
    let write = format!("cat > {0}; chmod 755 {0}", path.display());
    let text = format!(
        "#!/bin/sh\n{{ echo $CNI_COMMAND; cat; echo; }} >> {}\n[ $CNI_COMMAND = ADD ] || exit 0\n{answer}\n",
        log.display()
    );
    assert!(run(Command::new("sh").args(["-c", &write]), text.as_bytes()).success);
}

/// The commands and inputs that the recorder noted.
fn recorded(node: &Node) -> Vec<(String, Value)> {
    let text = fs::read_to_string(node.path("log")).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let pair = |two: &[&str]| (two[0].to_owned(), serde_json::from_str(two[1]).unwrap());
    lines.chunks(2).map(pair).collect()
}

#[test]
fn the_delegate_gets_what_flannels_own_plugin_gives_it() {
    node(|node| {
        recorder(node, r#"echo '{"ips":[{"address":"10.244.1.2/24"}]}'"#);
        config_file(&node.path("subnet.env"), SUBNET);
        let mut config = config(node, "cbr0");
        config["delegate"] = json!({ "type": "recorder", "hairpinMode": true });
        config["ipam"] = json!({ "routes": [{ "dst": "10.9.0.0/16", "gw": "10.244.1.7" }] });
        config["runtimeConfig"] = json!({ "mac": "02:00:00:00:00:09" });
        let pod = node.pod("c1");
        call(node, "ADD", &config, &pod, "eth0").result();
        let given = json!({
            "cniVersion": "1.1.0", "name": "cbr0", "type": "recorder", "hairpinMode": true,
            "ipMasq": false, "mtu": 1450, "runtimeConfig": { "mac": "02:00:00:00:00:09" },
            "ipam": {
                "type": "host-local",
                "ranges": [[{ "subnet": "10.244.1.0/24" }], [{ "subnet": "fd00:10:0:1::/64" }]],
                "routes": [{ "dst": "10.9.0.0/16", "gw": "10.244.1.7" },
                           { "dst": "10.244.0.0/16" }, { "dst": "fd00:10::/56" }],
            },
        });
        assert_eq!(recorded(node), [("ADD".to_owned(), given.clone())]);
        // DEL replays that, whatever the configuration and the files say by now.
        fs::remove_file(node.path("subnet.env")).unwrap();
        config["delegate"] = json!({});
        call(node, "DEL", &config, &pod, "eth0").ok();
        assert_eq!(recorded(node)[1], ("DEL".to_owned(), given));
        assert_eq!(saved(node), names(&[]));
    });
}

#[test]
fn what_the_configuration_says_comes_before_the_subnet_file() {
    node(|node| {
        recorder(node, r#"echo '{"ips":[{"address":"10.244.1.2/24"}]}'"#);
        let text = "FLANNEL_NETWORK=10.244.0.0/16,10.245.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\n\
                    FLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n";
        config_file(&node.path("subnet.env"), text);
        let mut config = config(node, "cbr0");
        let pod = node.pod("c1");
        for (delegate, ipam, mtu, masquerade, kind) in [
            (json!({}), json!({}), 1450, true, "host-local"),
            (
                json!({ "mtu": 1300, "ipMasq": false }),
                json!({ "type": "other" }),
                1300,
                false,
                "other",
            ),
        ] {
            config["delegate"] = delegate;
            config["delegate"]["type"] = "recorder".into();
            config["ipam"] = ipam;
            call(node, "ADD", &config, &pod, "eth0").result();
            let given = recorded(node).pop().unwrap().1;
            assert_eq!(given["mtu"], mtu);
            assert_eq!(given["ipMasq"], masquerade);
            assert_eq!(given["isGateway"], json!(null), "this is bridge's alone");
            assert_eq!(given["ipam"]["type"], kind);
            let routes = json!([{ "dst": "10.244.0.0/16" }, { "dst": "10.245.0.0/16" }]);
            assert_eq!(given["ipam"]["routes"], routes);
            call(node, "DEL", &config, &pod, "eth0").ok();
        }
    });
}

#[test]
fn two_interfaces_of_one_container_are_kept_apart() {
    node(|node| {
        config_file(&node.path("subnet.env"), SUBNET);
        let (first, second) = (config(node, "one"), config(node, "two"));
        let pod = node.pod("c1");
        let mut first_checked = first.clone();
        first_checked["prevResult"] = call(node, "ADD", &first, &pod, "eth0").result();
        let addresses = &first_checked["prevResult"]["ips"];
        assert_eq!(addresses[0]["address"], "10.244.1.2/24");
        assert_eq!(addresses[1]["address"], "fd00:10:0:1::2/64");
        let mut second = second;
        second["delegate"] = json!({ "bridge": "br1", "forceAddress": true });
        second["ipam"]["routes"] = json!([]);
        let other = "FLANNEL_NETWORK=10.99.0.0/16\nFLANNEL_SUBNET=10.99.1.1/24\n\
                     FLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";
        config_file(&node.path("other.env"), other);
        second["subnetFile"] = json!(node.path("other.env"));
        call(node, "ADD", &second, &pod, "eth1").result();
        assert_eq!(saved(node), names(&["c1:eth0", "c1:eth1"]));
        let file = fs::metadata(node.path("saved/c1:eth0")).unwrap();
        assert_eq!(file.permissions().mode() & 0o777, 0o600);
        call(node, "CHECK", &first_checked, &pod, "eth0").ok();
        call(node, "DEL", &second, &pod, "eth1").ok();
        assert_eq!(saved(node), names(&["c1:eth0"]));
        assert_eq!(node.reservations("two"), names(&[]));
        assert_eq!(node.reservations("one").len(), 2);
        call(node, "CHECK", &first_checked, &pod, "eth0").ok();
        // A repeated ADD is refused and harms nothing.
        call(node, "ADD", &first, &pod, "eth0").error();
        call(node, "CHECK", &first_checked, &pod, "eth0").ok();
        pod.netlink().delete_link(&"eth0".parse().unwrap()).unwrap();
        assert_eq!(
            call(node, "CHECK", &first_checked, &pod, "eth0").error().0,
            999
        );
        pod.destroy();
        call(node, "DEL", &first, &pod, "eth0").ok();
        call(node, "DEL", &first, &pod, "eth0").ok();
        assert_eq!(node.reservations("one"), names(&[]));
        assert_eq!(saved(node), names(&[]));
        assert_eq!(call(node, "CHECK", &first, &pod, "eth0").error().0, 3);
    });
}

/// What flannel's own plugin leaves: the delegate's configuration in a file named by the container.
fn made_by_the_reference(node: &Node, network: &str, pod: &Pod) -> Value {
    let delegate = json!({
        "cniVersion": "0.3.1", "name": network, "type": "bridge", "bridge": "br0",
        "ipMasq": true, "mtu": 1450, "isGateway": true,
        "ipam": { "type": "host-local", "dataDir": node.path("state"),
                  "ranges": [[{ "subnet": "10.244.1.0/24" }]],
                  "routes": [{ "dst": "10.244.0.0/16" }] },
    });
    fs::create_dir_all(node.path("saved")).unwrap();
    config_file(&node.path("saved").join(&pod.id), &delegate.to_string());
    node.attachment("bridge", "ADD", &delegate, pod).result()
}

#[test]
fn a_pod_made_by_flannels_own_plugin_is_taken_over() {
    node(|node| {
        let mut config = config(node, "cbr0");
        config_file(&node.path("subnet.env"), SUBNET);
        let pod = node.pod("c1");
        let mut result = made_by_the_reference(node, "cbr0", &pod);
        config["cniVersion"] = "1.0.0".into();
        result["cniVersion"] = "1.0.0".into();
        config["prevResult"] = result;
        call(node, "CHECK", &config, &pod, "eth0").ok();
        // Another network's file of the same container is none of ours.
        let mut another = config.clone();
        another["name"] = "another".into();
        assert_eq!(call(node, "CHECK", &another, &pod, "eth0").error().0, 3);
        call(node, "DEL", &config, &pod, "eth0").ok();
        assert!(!pod.has_link("eth0"));
        assert_eq!(node.reservations("cbr0"), names(&[]));
        assert_eq!(saved(node), names(&[]));
        let chain = ChainRef::inet("cni_plugins_masquerade", "masq_checks");
        let left = hostnet::Nftables::open().unwrap().rule_owners(&chain);
        assert_eq!(left.unwrap().len(), 0);
    });
}

#[test]
fn del_frees_everything_when_what_was_saved_is_lost() {
    node(|node| {
        for (lost, subnet_file) in [("gone", true), ("truncated", true), ("truncated", false)] {
            config_file(&node.path("subnet.env"), SUBNET);
            let (mut config, pod) = (config(node, "cbr0"), node.pod("c1"));
            config["delegate"]["ipMasq"] = true.into();
            call(node, "ADD", &config, &pod, "eth0").result();
            assert_eq!(node.reservations("cbr0").len(), 2);
            let file = node.path("saved/c1:eth0");
            match lost {
                "gone" => fs::remove_file(&file).unwrap(),
                _ => fs::write(&file, r#"{"cniVersion":"1.1.0","na"#).unwrap(),
            }
            if !subnet_file {
                fs::remove_file(node.path("subnet.env")).unwrap();
            }
            assert_eq!(call(node, "CHECK", &config, &pod, "eth0").error().0, 3);
            call(node, "DEL", &config, &pod, "eth0").ok();
            assert!(!pod.has_link("eth0"), "{lost}, {subnet_file}");
            assert_eq!(node.reservations("cbr0"), names(&[]));
            assert_eq!(node.links(), ["br0"]);
            assert_eq!(saved(node), names(&[]));
        }
        // Without anything at all, not even the delegate, a pod's end is not held up.
        let (mut config, pod) = (config(node, "cbr0"), node.pod("c1"));
        config["delegate"] = json!({ "type": "not-installed" });
        call(node, "DEL", &config, &pod, "eth0").ok();
        assert_eq!(saved(node), names(&[]));
    });
}

#[test]
fn gc_frees_what_belongs_to_nobody_and_keeps_other_networks() {
    node(|node| {
        config_file(&node.path("subnet.env"), SUBNET);
        let mut config = config(node, "cbr0");
        let (a, b, c) = (node.pod("a"), node.pod("b"), node.pod("c"));
        for pod in [&a, &b] {
            call(node, "ADD", &config, pod, "eth0").result();
        }
        made_by_the_reference(node, "cbr0", &c);
        let file = |name: &str, text: &str| config_file(&node.path("saved").join(name), text);
        file("d:eth0", r#"{"type":"bridge","name":"another"}"#);
        file("e", r#"{"type":"bridge","name":"another"}"#);
        file("f:eth0", "");
        file(".g:eth0", "{");
        // Without a list, nothing is known to be stale.
        node.call("flannel", "GC", &config, &[]).ok();
        assert_eq!(saved(node).len(), 7);
        config["cni.dev/valid-attachments"] = json!([{ "containerID": "b", "ifname": "eth0" }]);
        node.call("flannel", "GC", &config, &[]).ok();
        assert_eq!(saved(node), names(&["b:eth0", "d:eth0", "e"]));
        assert_eq!(
            node.reservations("cbr0"),
            names(&["10.244.1.3", "fd00:10:0:1::3"])
        );
        assert!(b.has_link("eth0"));
        // The stale pod's veth goes with its configuration, though its namespace was not named.
        assert!(!a.has_link("eth0"));
        fs::remove_file(node.path("subnet.env")).unwrap();
        config["cni.dev/valid-attachments"] = json!([]);
        node.call("flannel", "GC", &config, &[]).ok();
        assert_eq!(node.reservations("cbr0"), names(&[]));
    });
}

#[test]
fn a_failed_delegate_leaves_nothing_and_says_why() {
    node(|node| {
        config_file(&node.path("subnet.env"), SUBNET);
        let (mut config, pod) = (config(node, "cbr0"), node.pod("c1"));
        config["delegate"]["type"] = "recorder".into();
        recorder(node, r#"echo '{"code":123,"msg":"no"}'; exit 1"#);
        let refused = call(node, "ADD", &config, &pod, "eth0").error();
        assert_eq!(refused, (123, "no".to_owned()));
        let commands: Vec<String> = recorded(node).into_iter().map(|(name, _)| name).collect();
        assert_eq!(commands, ["ADD", "DEL"]);
        assert_eq!(saved(node), names(&[]));
        config["delegate"] = json!({ "bridge": "br0" });
        config["ipam"]["type"] = "not-installed".into();
        assert_eq!(call(node, "ADD", &config, &pod, "eth0").error().0, 7);
        assert_eq!(node.links(), [""; 0]);
    });
}
