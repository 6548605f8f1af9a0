//! What every plugin says to good and bad requests, before it does anything.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod node;

use node::{node, run};
use pretty_assertions::assert_eq;
use serde_json::json;
use std::process::{Command, Stdio};

#[test]
fn version_needs_neither_input_nor_environment() {
    node(|node| {
        for plugin in towline_suite::PLUGINS.iter().map(|plugin| plugin.name()) {
            let mut command = Command::new(node.path("bin").join(plugin));
            let output = command
                .env_clear()
                .env("CNI_COMMAND", "VERSION")
                .stdin(Stdio::null())
                .output();
            let output = output.unwrap();
            assert!(output.status.success());
            assert_eq!(
                serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap(),
                json!({
                    "cniVersion": "1.1.0",
                    "supportedVersions":
                        ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"],
                })
            );
        }
    });
}

#[test]
fn called_without_a_command_a_plugin_introduces_itself() {
    node(|node| {
        let mut command = Command::new(node.path("bin/ptp"));
        let answer = run(command.env_clear(), b"");
        assert!(answer.success);
        assert_eq!(answer.stdout, "");
        let mut command = Command::new(node.path("bin/towline-cni"));
        assert!(!run(command.env_clear().arg("nothing"), b"").success);
        let answer = run(command.env_clear().arg("--version"), b"");
        assert!(!answer.success, "an unknown plugin came first");
        let mut command = Command::new(node.path("bin/towline-cni"));
        assert!(
            run(command.env_clear().arg("--version"), b"")
                .stdout
                .contains("Towline")
        );
    });
}

/// Command, variables, standard input and the code it is answered with.
type Case<'a> = (&'a str, Vec<(&'a str, &'a str)>, String, u64);

#[test]
fn bad_requests_get_their_code_and_one_document() {
    node(|node| {
        let good = json!({ "cniVersion": "1.1.0", "name": "net", "type": "ptp" }).to_string();
        let sound = [
            ("CNI_CONTAINERID", "c1"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_NETNS", "/run/netns/x"),
            ("CNI_PATH", "/nowhere"),
        ];
        let with = |name: &'static str, value: &'static str| {
            sound
                .map(|(n, v)| if n == name { (n, value) } else { (n, v) })
                .to_vec()
        };
        let versioned = |version: &str| json!({ "cniVersion": version, "name": "net" }).to_string();
        let cases: Vec<Case> = vec![
            ("ADD", vec![], good.clone(), 4),
            ("ADD", with("CNI_CONTAINERID", "-a"), good.clone(), 4),
            ("ADD", with("CNI_IFNAME", "a:b"), good.clone(), 4),
            (
                "ADD",
                with("CNI_IFNAME", "abcdefghijklmnop"),
                good.clone(),
                4,
            ),
            ("ADD", sound.to_vec(), String::new(), 6),
            ("ADD", sound.to_vec(), "[]".to_owned(), 6),
            ("ADD", sound.to_vec(), "{}".to_owned(), 7),
            (
                "ADD",
                sound.to_vec(),
                json!({ "name": "a/b" }).to_string(),
                7,
            ),
            ("BAD", sound.to_vec(), good.clone(), 4),
            ("ADD", sound.to_vec(), versioned("9.9.9"), 1),
            ("ADD", sound.to_vec(), versioned("x"), 1),
            ("CHECK", sound.to_vec(), versioned("x"), 6),
            ("CHECK", sound.to_vec(), versioned("0.3.1"), 1),
            ("GC", sound.to_vec(), versioned("1.0.0"), 1),
            ("STATUS", sound.to_vec(), versioned("1.0.0"), 1),
        ];
        for (command, variables, stdin, code) in cases {
            let mut child = Command::new(node.path("bin/ptp"));
            child
                .env_clear()
                .env("CNI_COMMAND", command)
                .envs(variables.iter().copied());
            let answer = run(&mut child, stdin.as_bytes());
            assert_eq!(answer.error().0, code, "{command} {variables:?} {stdin}");
            assert_eq!(answer.stdout.lines().count(), 1);
        }
        let mut child = Command::new(node.path("bin/ptp"));
        let answer = run(child.env_clear().env("CNI_COMMAND", "ADD"), good.as_bytes());
        assert_eq!(
            answer.error().1,
            "ADD needs the environment variables: CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME, CNI_PATH"
        );
    });
}

#[test]
fn every_version_gets_its_own_schema() {
    node(|node| {
        for version in [
            "0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0",
        ] {
            let pod = node.pod("c1");
            let config = json!({
                "cniVersion": version, "name": "net", "type": "ptp",
                "ipam": { "type": "host-local", "dataDir": node.path("state"),
                          "subnet": "10.1.0.0/24", "routes": [{ "dst": "0.0.0.0/0" }] },
            });
            let result = node.attachment("ptp", "ADD", &config, &pod).result();
            assert_eq!(result["cniVersion"], version);
            match version {
                "0.1.0" | "0.2.0" => {
                    assert_eq!(result["ip4"]["gateway"], "10.1.0.1");
                    assert_eq!(result["ip4"]["routes"], json!([{ "dst": "0.0.0.0/0" }]));
                    assert_eq!(result["dns"], json!({}));
                }
                "0.3.0" | "0.3.1" | "0.4.0" => {
                    assert_eq!(result["ips"][0]["version"], "4");
                    assert_eq!(result["dns"], json!({}));
                }
                _ => {
                    assert_eq!(result["ips"][0]["version"], json!(null));
                    assert_eq!(result["dns"], json!(null));
                }
            }
            node.attachment("ptp", "DEL", &config, &pod).ok();
        }
    });
}

#[test]
fn a_foreign_ipam_plugin_is_executed_and_its_result_converted() {
    node(|node| {
        // Written by another process: a file that this one has open cannot be executed, and a
        // parallel test's child inherits what is open.
        let script = |body: &str| {
            let path = node.path("bin/fake");
            let write = format!("cat > {0}; chmod 755 {0}", path.display());
            let text = format!("#!/bin/sh\ncat >/dev/null\n{body}\n");
            assert!(run(Command::new("sh").args(["-c", &write]), text.as_bytes()).success);
        };
        let pod = node.pod("c1");
        let config = json!({
            "cniVersion": "1.0.0", "name": "net", "type": "ptp", "ipam": { "type": "fake" },
        });
        script(
            r#"[ $CNI_COMMAND = ADD ] || exit 0; echo '{"cniVersion":"0.2.0","ip4":{"ip":"10.5.0.9/24","gateway":"10.5.0.1"}}'"#,
        );
        let result = node.attachment("ptp", "ADD", &config, &pod).result();
        let expected = json!([{ "interface": 1, "address": "10.5.0.9/24", "gateway": "10.5.0.1" }]);
        assert_eq!(result["ips"], expected);
        node.attachment("ptp", "DEL", &config, &pod).ok();

        let log = node.path("log");
        for (answer, code) in [
            ("garbage", 6),
            (r#"{"cniVersion":"1.0.0"}"#, 7),
            (
                r#"{"cniVersion":"1.0.0","ips":[{"address":"10.5.0.9/24"}]}"#,
                7,
            ),
        ] {
            let log = log.display();
            script(&format!(
                "echo $CNI_COMMAND >> {log}\n[ $CNI_COMMAND = ADD ] && echo '{answer}'; exit 0"
            ));
            assert_eq!(
                node.attachment("ptp", "ADD", &config, &pod).error().0,
                code,
                "{answer}"
            );
            assert!(!pod.has_link("eth0"));
        }
        assert_eq!(
            std::fs::read_to_string(&log).unwrap(),
            "ADD\nDEL\n".repeat(3)
        );
        script(r#"echo '{"code":101,"msg":"no addresses today"}'; exit 1"#);
        let error = node.attachment("ptp", "ADD", &config, &pod).error();
        assert_eq!(error.0, 101);
    });
}
