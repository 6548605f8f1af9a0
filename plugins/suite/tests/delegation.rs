//! Delegation to programs that are not ours: what they are given, and what becomes of their answer.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod node;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use node::{Node, Pod, node, run};
use pretty_assertions::assert_eq;
use serde_json::{Value, json};

/// Writes a program by another process: a file that this one has open cannot be executed.
fn script(path: &Path, text: &str) {
    let write = format!("cat > {0}; chmod 755 {0}", path.display());
    let text = format!("#!/bin/sh\n{text}\n");
    assert!(run(Command::new("sh").args(["-c", &write]), text.as_bytes()).success);
}

/// `ptp` with these exact bytes and more variables.
fn ptp(node: &Node, command: &str, pod: &Pod, stdin: &str, variables: &[(&str, &str)]) -> Output {
    let mut child = Command::new(node.path("bin/ptp"));
    child
        .env_clear()
        .env("CNI_COMMAND", command)
        .env("CNI_CONTAINERID", &pod.id)
        .env("CNI_IFNAME", "eth0")
        .env("CNI_NETNS", &pod.path)
        .env("CNI_PATH", node.path("bin"))
        .envs(variables.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = child.spawn().unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(stdin.as_bytes())
        .unwrap();
    child.wait_with_output().unwrap()
}

fn config(kind: &str) -> String {
    json!({ "cniVersion": "1.0.0", "name": "net", "type": "ptp", "ipam": { "type": kind } })
        .to_string()
}

/// Code, message and details.
fn refusal(output: &Output) -> (u64, String, String) {
    assert!(!output.status.success());
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["cniVersion"], "1.0.0");
    let text = |field: &str| document[field].as_str().unwrap_or_default().to_owned();
    (
        document["code"].as_u64().unwrap(),
        text("msg"),
        text("details"),
    )
}

const ADDRESS: &str =
    r#"{"cniVersion":"1.0.0","ips":[{"address":"10.5.0.9/24","gateway":"10.5.0.1"}]}"#;

#[test]
fn the_delegate_gets_the_whole_environment_and_the_very_same_bytes() {
    node(|node| {
        let (env, input) = (node.path("env"), node.path("input"));
        script(
            &node.path("bin/fake"),
            &format!(
                "env > {0}.$CNI_COMMAND\ncat > {1}.$CNI_COMMAND\necho a word of the delegate >&2\n\
                 [ $CNI_COMMAND = ADD ] && echo '{ADDRESS}'; exit 0",
                env.display(),
                input.display()
            ),
        );
        let pod = node.pod("c1");
        // Spaces, an unknown key and a number that no float holds.
        let stdin = "  {\"cniVersion\":\"1.1.0\", \"name\":\"net\",\n\"type\":\"ptp\",\"x\":12345678901234567890123, \
                     \"ipam\":{\"type\":\"fake\",\"y\":null}}\n";
        let variables = [
            (
                "TRACEPARENT",
                "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            ),
            ("TRACESTATE", "a=b"),
            ("BAGGAGE", "k=v"),
            ("CNI_ARGS", "IgnoreUnknown=1;X=1"),
            ("SOMETHING", "else"),
        ];
        for command in ["ADD", "DEL", "STATUS"] {
            let output = ptp(node, command, &pod, stdin, &variables);
            assert!(output.status.success(), "{output:?}");
            assert_eq!(
                String::from_utf8_lossy(&output.stderr),
                "a word of the delegate\n"
            );
            assert_eq!(
                fs::read_to_string(input.with_extension(command)).unwrap(),
                stdin
            );
            let seen = fs::read_to_string(env.with_extension(command)).unwrap();
            let pod_path = pod.path.display().to_string();
            let path = node.path("bin").display().to_string();
            let own = [
                ("CNI_COMMAND", command),
                ("CNI_CONTAINERID", "c1"),
                ("CNI_IFNAME", "eth0"),
                ("CNI_NETNS", pod_path.as_str()),
                ("CNI_PATH", path.as_str()),
            ];
            for (name, value) in own.into_iter().chain(variables) {
                let line = format!("{name}={value}");
                assert!(
                    seen.lines().any(|seen| seen == line),
                    "{line} is not in\n{seen}"
                );
            }
        }
    });
}

#[test]
fn the_first_regular_file_in_cni_path_is_the_plugin() {
    node(|node| {
        let pod = node.pod("c1");
        for folder in ["none", "a", "a/fake", "b", "c"] {
            fs::create_dir(node.path(folder)).unwrap();
        }
        let answer = |code: u32| format!("echo '{{\"code\":{code},\"msg\":\"m\"}}'; exit 1");
        script(&node.path("b/fake"), &answer(102));
        script(&node.path("c/fake"), &answer(103));
        let folders = ["absent", "none", "a", "b", "c"].map(|name| node.path(name));
        let path = std::env::join_paths(folders).unwrap();
        let variables = [("CNI_PATH", path.to_str().unwrap())];
        let output = ptp(node, "ADD", &pod, &config("fake"), &variables);
        assert_eq!(refusal(&output).0, 102);
        for kind in ["b/fake", "../b/fake", "/bin/true", ".", ".."] {
            let (code, message, _) = refusal(&ptp(node, "ADD", &pod, &config(kind), &variables));
            assert_eq!(
                (code, message),
                (
                    7,
                    format!("plugin type {kind:?} is no file name; name a plugin")
                )
            );
        }
        let (code, message, _) = refusal(&ptp(node, "ADD", &pod, &config("nowhere"), &variables));
        let expected = format!(
            "plugin \"nowhere\" is not in CNI_PATH {}; install it there",
            path.to_str().unwrap()
        );
        assert_eq!((code, message), (7, expected));
        assert_eq!(node.links(), [""; 0]);
    });
}

#[test]
fn the_delegates_error_is_relayed_and_a_nonsense_answer_is_said() {
    node(|node| {
        let pod = node.pod("c1");
        let fake = node.path("bin/fake");
        let said = |text: &str| {
            script(&fake, &format!("[ $CNI_COMMAND = ADD ] || exit 0\n{text}"));
            refusal(&ptp(node, "ADD", &pod, &config("fake"), &[]))
        };
        let own = (101, "full".to_owned(), "really".to_owned());
        let document =
            r#"{"cniVersion":"0.4.0","code":101,"msg":"full","details":"really","more":1}"#;
        assert_eq!(
            said(&format!("cat >/dev/null; echo '{document}'; exit 1")),
            own
        );
        // Not even its input has to be read.
        assert_eq!(said(&format!("exec 0<&-; echo '{document}'; exit 3")), own);
        let (code, message, details) = said("echo oops; exit 1");
        assert_eq!(
            (code, message.as_str()),
            (999, "plugin fake failed and said no reason")
        );
        assert_eq!(details, "oops\n");
        assert_eq!(
            said("kill -9 $$").1,
            "plugin fake failed and said no reason"
        );
        assert_eq!(said("echo oops; exit 0").0, 6);
        assert_eq!(said("exit 0").0, 6);
        assert_eq!(said(r#"echo '{"cniVersion":"3.0.0"}'"#).0, 1);
        assert_eq!(said(r#"echo '{"ips":[{"address":"10.0.0.1/99"}]}'"#).0, 6);
        let failed =
            said("i=0; while [ $i -lt 9000 ]; do printf 'xxxxxxxxxx'; i=$((i+1)); done; exit 1");
        assert_eq!(failed.2.len(), 2000, "a long answer is clipped");
        assert_eq!(node.links(), [""; 0]);
    });
}

#[test]
fn a_result_of_any_version_is_understood() {
    node(|node| {
        let pod = node.pod("c1");
        let list = |version: &str| {
            format!(
                r#"{{{version}"ips":[{{"version":"4","address":"10.5.0.9/24","gateway":"10.5.0.1"}}]}}"#
            )
        };
        let oldest = |version: &str| {
            format!(r#"{{{version}"ip4":{{"ip":"10.5.0.9/24","gateway":"10.5.0.1"}}}}"#)
        };
        let named = |version: &str| format!(r#""cniVersion":"{version}","#);
        let mut answers = vec![list(""), oldest("")];
        answers.extend(["0.1.0", "0.2.0"].map(|version| oldest(&named(version))));
        answers.extend(
            ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"].map(|version| list(&named(version))),
        );
        for answer in answers {
            script(
                &node.path("bin/fake"),
                &format!("cat >/dev/null; [ $CNI_COMMAND = ADD ] && echo '{answer}'; exit 0"),
            );
            let output = ptp(node, "ADD", &pod, &config("fake"), &[]);
            assert!(output.status.success(), "{answer}: {output:?}");
            let result: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(
                result["ips"],
                json!([{ "interface": 1, "address": "10.5.0.9/24", "gateway": "10.5.0.1" }]),
                "{answer}"
            );
            assert!(
                ptp(node, "DEL", &pod, &config("fake"), &[])
                    .status
                    .success()
            );
        }
    });
}

#[test]
fn a_plugin_that_is_its_own_ipam_plugin_is_refused() {
    node(|node| {
        let pod = node.pod("c1");
        for plugin in ["ptp", "bridge"] {
            let config = json!({ "cniVersion": "1.1.0", "name": "net", "type": plugin, "ipam": { "type": plugin } });
            let (code, message) = node.attachment(plugin, "ADD", &config, &pod).error();
            assert_eq!(code, 7);
            assert_eq!(
                message,
                format!("plugin {plugin} is delegated to without end; name another type")
            );
            assert_eq!(node.call(plugin, "STATUS", &config, &[]).error().0, 7);
            assert_eq!(node.links(), [""; 0]);
            assert!(!pod.has_link("eth0"));
        }
    });
}

#[test]
fn the_plugins_own_namespace_is_refused_unless_that_is_allowed() {
    node(|node| {
        let own = format!(
            "/proc/{}/task/{}/ns/net",
            std::process::id(),
            nix::unistd::gettid()
        );
        let config = json!({ "cniVersion": "1.0.0", "name": "net", "type": "loopback" });
        let call = |allowed: &str| {
            let variables = [
                ("CNI_CONTAINERID", "c1"),
                ("CNI_IFNAME", "lo"),
                ("CNI_NETNS", own.as_str()),
                ("CNI_NETNS_OVERRIDE", allowed),
            ];
            node.call("loopback", "ADD", &config, &variables)
        };
        for refused in ["", "0", "false", "yes"] {
            assert_eq!(call(refused).error().0, 8, "{refused:?}");
        }
        for allowed in ["1", "true", "TRUE"] {
            assert_eq!(call(allowed).result()["interfaces"][0]["name"], "lo");
        }
    });
}
