//! `towline` with a daemon that answers as the test says.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod node;

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::sync::mpsc::{Receiver, channel};

use node::{Answer, Node, Pod, config_file, node};
use pretty_assertions::assert_eq;
use serde_json::{Value, json};

const SUBNET: &str = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\n\
                      FLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n";

fn config(node: &Node) -> Value {
    json!({
        "cniVersion": "1.1.0", "name": "cluster", "type": "towline",
        "subnetFile": node.path("subnet.env"), "socket": node.path("sock"),
        "dataDir": node.path("saved"), "policyTimeout": 2,
        "ipam": { "dataDir": node.path("state") },
    })
}

/// What the daemon lists.
const LISTED: &str = r#"[{"containerId":"known","ifname":"eth0","pod":"default/a"}]"#;

/// A request's first line and body.
type Seen = (String, Value);

/// Answers every registration with `status` and `body`, others with 204, and tells what it saw.
fn daemon(node: &Node, status: u16, body: &'static str) -> Receiver<Seen> {
    let path = node.path("sock");
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(path).unwrap();
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let Some((line, body_seen)) = read_request(&mut stream) else {
                continue;
            };
            let put = line.starts_with("PUT");
            let (status, body) = match () {
                () if put => (status, body),
                () if line.starts_with("GET") => (200, LISTED),
                () => (204, ""),
            };
            let answer = format!(
                "HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            // The plugin may have given up by now.
            let _ = stream.write_all(answer.as_bytes());
            if sender.send((line, body_seen)).is_err() {
                return;
            }
        }
    });
    receiver
}

fn read_request(stream: &mut impl Read) -> Option<Seen> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let length = stream.read(&mut buffer).ok().filter(|length| *length > 0)?;
        bytes.extend_from_slice(&buffer[..length]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head
            .lines()
            .find_map(|l| l.strip_prefix("Content-Length: "))
            .unwrap();
        if body.len() == length.parse::<usize>().unwrap() {
            let line = head.lines().next().unwrap().to_owned();
            return Some((line, serde_json::from_str(body).unwrap_or_default()));
        }
    }
}

fn call(node: &Node, command: &str, config: &Value, pod: &Pod) -> Answer {
    let variables = [
        ("CNI_CONTAINERID", pod.id.as_str()),
        ("CNI_IFNAME", "eth0"),
        ("CNI_NETNS", pod.path.to_str().unwrap()),
        (
            "CNI_ARGS",
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=a;K8S_POD_UID=u1",
        ),
    ];
    node.call("towline", command, config, &variables)
}

#[test]
fn an_endpoint_is_registered_with_what_the_daemon_needs() {
    node(|node| {
        for delegate in ["ptp", "bridge"] {
            let seen = daemon(node, 200, r#"{"policyRevision":7}"#);
            config_file(&node.path("subnet.env"), SUBNET);
            let mut config = config(node);
            config["delegate"] = json!({ "type": delegate });
            let pod = node.pod(delegate);
            let result = call(node, "ADD", &config, &pod).result();
            let ip = result["ips"][0]["address"]
                .as_str()
                .unwrap()
                .split('/')
                .next()
                .unwrap();
            let interfaces = result["interfaces"].as_array().unwrap();
            let near = &interfaces[interfaces.len() - 2];
            assert_eq!(near["mtu"], 1450);
            assert_eq!(result["routes"], json!([{ "dst": "0.0.0.0/0" }]));
            let cookie = pod.open().run_in(hostnet::netns::cookie).unwrap().unwrap();
            let (line, body) = seen.recv().unwrap();
            assert_eq!(line, format!("PUT /v1/endpoints/{delegate}/eth0 HTTP/1.1"));
            assert_eq!(
                body,
                json!({
                    "podNamespace": "default", "podName": "a", "podUID": "u1",
                    "hostInterface": near["name"], "addresses": [format!("{ip}/32")],
                    "netns": pod.path, "netnsCookie": cookie, "policyTimeoutSeconds": 2,
                })
            );
            let (code, message) = call(node, "ADD", &config, &pod).error();
            let taken = "interface eth0 is in the container already; DEL it first";
            assert_eq!((code, message.as_str()), (999, taken));
            assert!(
                pod.has_link("eth0"),
                "a repeated ADD removed the first one's interface"
            );
            assert_eq!(node.reservations("cluster").len(), 1);
            // DEL replays what ADD saved, whatever the files say now.
            std::fs::remove_file(node.path("subnet.env")).unwrap();
            config["delegate"] = json!({});
            call(node, "DEL", &config, &pod).ok();
            let (line, _) = seen.recv().unwrap();
            assert_eq!(
                line,
                format!("DELETE /v1/endpoints/{delegate}/eth0 HTTP/1.1")
            );
            assert!(!pod.has_link("eth0"));
            assert_eq!(node.reservations("cluster"), [""; 0]);
            assert_eq!(std::fs::read_dir(node.path("saved")).unwrap().count(), 0);
            call(node, "DEL", &config, &pod).ok();
        }
    });
}

#[test]
fn a_refused_registration_undoes_the_attachment() {
    node(|node| {
        for (status, body, code) in [
            (503, r#"{"code":11,"msg":"not ready yet"}"#, 11),
            (504, r#"{"code":110,"msg":"policyTimeout passed"}"#, 110),
            (500, "oops", 999),
        ] {
            let _seen = daemon(node, status, body);
            config_file(&node.path("subnet.env"), SUBNET);
            let pod = node.pod("c1");
            assert_eq!(call(node, "ADD", &config(node), &pod).error().0, code);
            assert!(!pod.has_link("eth0"));
            assert_eq!(node.links(), [""; 0]);
            assert_eq!(node.reservations("cluster"), [""; 0]);
            assert_eq!(std::fs::read_dir(node.path("saved")).unwrap().count(), 0);
        }
    });
}

#[test]
fn without_daemon_or_subnet_the_runtime_is_told_to_try_again() {
    node(|node| {
        let (config, pod) = (config(node), node.pod("c1"));
        config_file(&node.path("subnet.env"), SUBNET);
        let (code, message) = call(node, "ADD", &config, &pod).error();
        assert_eq!(code, 11);
        assert!(
            message.starts_with("towlined cannot be reached at "),
            "{message}"
        );
        assert_eq!(node.call("towline", "STATUS", &config, &[]).error().0, 50);
        call(node, "DEL", &config, &pod).ok();

        let _seen = daemon(node, 200, "{}");
        node.call("towline", "STATUS", &config, &[]).ok();
        std::fs::remove_file(node.path("subnet.env")).unwrap();
        assert_eq!(call(node, "ADD", &config, &pod).error().0, 11);
        assert_eq!(node.call("towline", "STATUS", &config, &[]).error().0, 50);
        assert_eq!(node.links(), [""; 0]);
    });
}

#[test]
fn check_asks_the_delegate_and_the_daemon() {
    node(|node| {
        let seen = daemon(node, 200, "{}");
        config_file(&node.path("subnet.env"), SUBNET);
        for (id, code) in [("known", None), ("unknown", Some(3))] {
            let (mut config, pod) = (config(node), node.pod(id));
            assert_eq!(call(node, "CHECK", &config, &pod).error().0, 3);
            config["prevResult"] = call(node, "ADD", &config, &pod).result();
            let answer = call(node, "CHECK", &config, &pod);
            match code {
                None => answer.ok(),
                Some(code) => assert_eq!(answer.error().0, code),
            }
            pod.netlink().delete_link(&"eth0".parse().unwrap()).unwrap();
            assert_eq!(call(node, "CHECK", &config, &pod).error().0, 999);
        }
        drop(seen);
    });
}

#[test]
fn del_works_while_the_daemon_is_down() {
    node(|node| {
        let seen = daemon(node, 200, "{}");
        config_file(&node.path("subnet.env"), SUBNET);
        let (config, pod) = (config(node), node.pod("c1"));
        call(node, "ADD", &config, &pod).result();
        seen.recv().unwrap();
        std::fs::remove_file(node.path("sock")).unwrap();
        pod.destroy();
        call(node, "DEL", &config, &pod).ok();
        assert_eq!(node.links(), [""; 0]);
        assert_eq!(node.reservations("cluster"), [""; 0]);
    });
}

#[test]
fn gc_removes_what_belongs_to_nobody() {
    node(|node| {
        let seen = daemon(node, 200, "{}");
        config_file(&node.path("subnet.env"), SUBNET);
        let mut config = config(node);
        let (a, b) = (node.pod("a"), node.pod("b"));
        for pod in [&a, &b] {
            call(node, "ADD", &config, pod).result();
            seen.recv().unwrap();
        }
        config["cni.dev/valid-attachments"] = json!([{ "containerID": "b", "ifname": "eth0" }]);
        node.call("towline", "GC", &config, &[]).ok();
        assert_eq!(
            seen.recv().unwrap().0,
            "DELETE /v1/endpoints/a/eth0 HTTP/1.1"
        );
        assert_eq!(node.reservations("cluster"), ["10.244.1.3"]);
    });
}

#[test]
fn a_wrong_configuration_is_named() {
    node(|node| {
        let pod = node.pod("c1");
        for (field, value, message) in [
            (
                "delegate",
                json!({ "type": "macvlan" }),
                "delegate.type \"macvlan\" is unknown; give \"ptp\" or \"bridge\"",
            ),
            (
                "delegate",
                json!({ "ipam": {} }),
                "delegate.ipam is set by towline itself; remove it",
            ),
            (
                "socket",
                json!("sock"),
                "socket \"sock\" is no absolute path; give one that begins with /",
            ),
            (
                "policyTimeout",
                json!(0),
                "policyTimeout 0 is not within 1 to 300 seconds",
            ),
        ] {
            let mut config = config(node);
            config[field] = value;
            assert_eq!(
                call(node, "ADD", &config, &pod).error(),
                (7, message.to_owned())
            );
        }
    });
}

#[test]
fn gc_of_one_network_leaves_the_attachments_of_another() {
    node(|node| {
        let seen = daemon(node, 200, "{}");
        config_file(&node.path("subnet.env"), SUBNET);
        let (mut config, pod) = (config(node), node.pod("a"));
        call(node, "ADD", &config, &pod).result();
        seen.recv().unwrap();
        config["name"] = "another".into();
        config["cni.dev/valid-attachments"] = json!([]);
        node.call("towline", "GC", &config, &[]).ok();
        assert_eq!(seen.try_iter().count(), 0, "nothing is deregistered");
        let saved = std::fs::read_dir(node.path("saved")).unwrap();
        assert_eq!(saved.count(), 1);
    });
}

#[test]
fn del_and_gc_do_without_what_was_saved() {
    node(|node| {
        let seen = daemon(node, 200, "{}");
        let saved = || std::fs::read_dir(node.path("saved")).unwrap().count();
        for (id, command, truncated, subnet_file) in [
            ("a", "DEL", true, true),
            ("b", "DEL", true, false),
            ("c", "DEL", false, false),
            ("d", "GC", true, true),
            ("e", "GC", true, false),
        ] {
            config_file(&node.path("subnet.env"), SUBNET);
            let (mut config, pod) = (config(node), node.pod(id));
            call(node, "ADD", &config, &pod).result();
            let file = node.path("saved").join(format!("{id}:eth0"));
            match truncated {
                true => std::fs::write(&file, r#"{"type":"ptp","na"#).unwrap(),
                false => std::fs::remove_file(&file).unwrap(),
            }
            if !subnet_file {
                std::fs::remove_file(node.path("subnet.env")).unwrap();
            }
            if command == "DEL" {
                call(node, "DEL", &config, &pod).ok();
                assert!(!pod.has_link("eth0"));
            } else {
                config["cni.dev/valid-attachments"] = json!([]);
                node.call("towline", "GC", &config, &[]).ok();
            }
            assert_eq!(node.reservations("cluster"), [""; 0]);
            assert_eq!(saved(), 0);
            let lines: Vec<String> = seen.try_iter().map(|(line, _)| line).collect();
            assert!(lines.contains(&format!("DELETE /v1/endpoints/{id}/eth0 HTTP/1.1")));
        }
    });
}

#[test]
fn gc_detaches_a_stale_pod_that_still_runs() {
    node(|node| {
        let _seen = daemon(node, 200, "{}");
        config_file(&node.path("subnet.env"), SUBNET);
        let (mut config, pod) = (config(node), node.pod("a"));
        call(node, "ADD", &config, &pod).result();
        config["cni.dev/valid-attachments"] = json!([]);
        node.call("towline", "GC", &config, &[]).ok();
        assert!(!pod.has_link("eth0"));
        assert_eq!(node.links(), [""; 0]);
    });
}
