//! What is checked, in which order, and the code that each failure gets.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::io::Read;

use pretty_assertions::assert_eq;
use serde_json::{Value, json};
use towline_protocol::version::ALL;
use towline_protocol::{AddResult, Attachment, Env, Error, Plugin, Registry, Request, run};

/// Succeeds at everything; ADD echoes.
struct Quiet;

impl Plugin for Quiet {
    fn name(&self) -> &'static str {
        "quiet"
    }

    fn add(&self, request: &Request<'_>) -> Result<AddResult, Error> {
        let missing = || Error::new(100, "no prevResult");
        request.prev_result.clone().ok_or_else(missing)
    }

    fn delete(&self, _: &Request<'_>) -> Result<(), Error> {
        Ok(())
    }

    fn check(&self, _: &Request<'_>) -> Result<(), Error> {
        Ok(())
    }

    fn gc(&self, _: &Request<'_>, valid: Option<&[Attachment]>) -> Result<(), Error> {
        let ids = valid.map(|all| all.iter().map(|one| one.container_id.as_str()).collect());
        Err(Error::new(
            100,
            ids.map_or("absent".to_owned(), |ids: Vec<&str>| ids.join(",")),
        ))
    }

    fn status(&self, _: &Request<'_>) -> Result<(), Error> {
        Ok(())
    }
}

const COMMANDS: [&str; 5] = ["ADD", "DEL", "CHECK", "GC", "STATUS"];
const COMPLETE: [(&str, &str); 4] = [
    ("CNI_CONTAINERID", "c1"),
    ("CNI_NETNS", "/run/netns/x"),
    ("CNI_IFNAME", "eth0"),
    ("CNI_PATH", "/nowhere"),
];

/// Exit status and what was printed.
fn call(variables: &[(&str, &str)], stdin: &[u8]) -> (u8, Value) {
    let env: Env = variables.iter().copied().collect();
    let mut stdout = Vec::new();
    let registry = Registry::new(&[&Quiet]);
    let status = run(&Quiet, registry, &env, &mut &stdin[..], &mut stdout);
    assert!(stdout.is_empty() || stdout.iter().filter(|byte| **byte == b'\n').count() == 1);
    (status, serde_json::from_slice(&stdout).unwrap_or_default())
}

fn with(command: &str, changed: &[(&str, &str)], stdin: &str) -> (u8, Value) {
    let mut variables = vec![("CNI_COMMAND", command)];
    variables.extend(COMPLETE);
    // The last one of a name counts.
    variables.extend(changed);
    call(&variables, stdin.as_bytes())
}

fn code(answer: &(u8, Value)) -> u64 {
    assert_eq!(answer.0, 1, "{}", answer.1);
    answer.1["code"].as_u64().unwrap()
}

#[test]
fn all_missing_variables_are_named_at_once() {
    for (command, missing) in [
        ("ADD", "CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME, CNI_PATH"),
        ("CHECK", "CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME, CNI_PATH"),
        ("DEL", "CNI_CONTAINERID, CNI_IFNAME, CNI_PATH"),
        ("GC", "CNI_PATH"),
        ("STATUS", "CNI_PATH"),
    ] {
        // An empty variable is a missing one.
        let empty = COMPLETE.map(|(name, _)| (name, ""));
        let answer = with(command, &empty, "no JSON either");
        assert_eq!(code(&answer), 4);
        let message = format!("{command} needs the environment variables: {missing}");
        assert_eq!(answer.1["msg"], message);
        // One at a time, in any case the one that is missing and no other.
        for name in missing.split(", ") {
            let answer = with(command, &[(name, "")], "{}");
            let message = format!("{command} needs the environment variables: {name}");
            assert_eq!(answer.1["msg"], message);
        }
    }
    let answer = with("DEL", &[("CNI_NETNS", "")], r#"{"name":"n"}"#);
    assert_eq!(answer, (0, Value::Null));
}

#[test]
fn each_check_comes_before_the_next() {
    // Environment, JSON, name, command, version: every input has all later faults too.
    let bad_version = |name: &str| json!({ "name": name, "cniVersion": "9.9.9" }).to_string();
    let cases = [
        ("ADD", ("CNI_IFNAME", "a:b"), "{".to_owned(), 4),
        ("ADD", ("CNI_ARGS", "x"), "{".to_owned(), 4),
        ("BAD", ("CNI_IFNAME", "eth0"), "{".to_owned(), 6),
        ("BAD", ("CNI_IFNAME", "eth0"), bad_version("a/b"), 7),
        ("BAD", ("CNI_IFNAME", "eth0"), bad_version("n"), 4),
        ("ADD", ("CNI_IFNAME", "eth0"), bad_version("n"), 1),
    ];
    for (command, changed, stdin, expected) in cases {
        let answer = with(command, &[changed], &stdin);
        assert_eq!(code(&answer), expected, "{command} {stdin}: {}", answer.1);
    }
}

#[test]
fn names_are_what_the_specification_allows() {
    let config = r#"{"cniVersion":"1.0.0","name":"n"}"#;
    for (name, good, bad) in [
        (
            "CNI_CONTAINERID",
            &["a", "0", "A_b.c-d"][..],
            &["-a", ".a", "_a", "a/b", "a b", "ä", "a:b", "../a"][..],
        ),
        (
            "CNI_IFNAME",
            &["eth0", "...", "abcdefghijklmno", "a-b_c.d", "ä"],
            &["abcdefghijklmnop", ".", "..", "a/b", "a:b", "a b", "a\tb"],
        ),
    ] {
        for value in good {
            assert_eq!(with("DEL", &[(name, value)], config).0, 0, "{name} {value}");
        }
        for value in bad {
            let answer = with("DEL", &[(name, value)], config);
            assert_eq!(code(&answer), 4, "{name} {value}");
            let message = answer.1["msg"].as_str().unwrap();
            assert!(
                message.starts_with(&format!("{name} {value:?} ")),
                "{message}"
            );
        }
    }
    for network in ["", "-n", "a/b", "..", "a b"] {
        let config = json!({ "cniVersion": "1.0.0", "name": network }).to_string();
        assert_eq!(code(&with("DEL", &[], &config)), 7, "{network:?}");
    }
}

#[test]
fn each_command_has_its_versions() {
    let previous = json!({ "ips": [{ "address": "10.0.0.1/8" }], "ip4": { "ip": "10.0.0.1/8" } });
    for command in COMMANDS {
        for version in ALL {
            let since = match command {
                "CHECK" => "0.4.0",
                "GC" | "STATUS" => "1.1.0",
                _ => "0.1.0",
            };
            let config =
                json!({ "cniVersion": version.as_str(), "name": "n", "prevResult": previous });
            let answer = with(command, &[], &config.to_string());
            if version.as_str() < since {
                assert_eq!(code(&answer), 1, "{command} {version}");
                let message = format!("{command} needs cniVersion {since}, not {version}");
                assert_eq!(answer.1["msg"], message);
                assert_eq!(answer.1["cniVersion"], version.as_str());
            } else if command != "GC" {
                assert_eq!(answer.0, 0, "{command} {version}: {}", answer.1);
                let printed = command == "ADD";
                assert_eq!(answer.1["cniVersion"] == version.as_str(), printed);
            }
        }
        // Neither a prefix nor a spelling of a version is that version.
        for (text, expected) in [
            ("1.0", 1),
            ("1.0.0 ", 6),
            ("v1.0.0", 6),
            ("1.0.1", 1),
            ("x", 6),
        ] {
            let config = json!({ "cniVersion": text, "name": "n" });
            let expected = match command {
                "ADD" | "DEL" => 1,
                _ => expected,
            };
            let answer = with(command, &[], &config.to_string());
            assert_eq!(code(&answer), expected, "{command} {text:?}");
        }
        let no_text = json!({ "cniVersion": 1, "name": "n" });
        assert_eq!(code(&with(command, &[], &no_text.to_string())), 6);
    }
    // Without a version it is 0.1.0.
    for absent in [
        json!({ "name": "n" }),
        json!({ "name": "n", "cniVersion": "" }),
    ] {
        assert_eq!(with("DEL", &[], &absent.to_string()).0, 0);
        assert_eq!(code(&with("CHECK", &[], &absent.to_string())), 1);
    }
}

/// Standard input that must not be touched.
struct Untouched;

impl Read for Untouched {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        panic!("standard input was read");
    }
}

#[test]
fn version_and_no_command_read_nothing() {
    for (command, expected) in [
        (
            Some("VERSION"),
            Some(json!({ "cniVersion": "1.1.0", "supportedVersions": ALL.map(|v| v.as_str()) })),
        ),
        (None, None),
    ] {
        let env: Env = command
            .map(|command| ("CNI_COMMAND", command))
            .into_iter()
            .collect();
        let mut stdout = Vec::new();
        let registry = Registry::new(&[&Quiet]);
        assert_eq!(run(&Quiet, registry, &env, &mut Untouched, &mut stdout), 0);
        assert_eq!(serde_json::from_slice(&stdout).ok(), expected);
    }
}

#[test]
fn gc_is_told_its_list_by_either_name() {
    let message = |more: Value| {
        let mut config = json!({ "cniVersion": "1.1.0", "name": "n" });
        config
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        with("GC", &[], &config.to_string()).1["msg"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let (new, old) = ("cni.dev/valid-attachments", "cni.dev/attachments");
    let list = |id: &str| json!([{ "containerID": id, "ifname": "eth0", "more": 1 }]);
    assert_eq!(message(json!({})), "absent");
    assert_eq!(message(json!({ new: null, old: null })), "absent");
    assert_eq!(message(json!({ new: [], old: list("b") })), "");
    assert_eq!(message(json!({ new: list("a"), old: list("a") })), "a");
    assert_eq!(message(json!({ new: list("a"), old: list("b") })), "a");
    assert_eq!(message(json!({ old: list("b") })), "b");
    let incomplete = json!({ new: [{ "containerID": "a" }] });
    assert_eq!(
        message(incomplete),
        "cni.dev/valid-attachments is no list of attachments"
    );
}

#[test]
fn a_previous_result_is_read_in_its_version_or_the_configurations() {
    let add = |config: &str, previous: Value| {
        let config = json!({ "cniVersion": config, "name": "n", "prevResult": previous });
        with("ADD", &[], &config.to_string())
    };
    let ips =
        |version: &str| json!({ "cniVersion": version, "ips": [{ "address": "10.0.0.1/8" }] });
    // A chained plugin echoes it in the configuration's version.
    assert_eq!(add("1.1.0", ips("1.0.0")), (0, ips("1.1.0")));
    assert_eq!(
        add("1.0.0", json!({ "ips": [{ "address": "10.0.0.1/8" }] })),
        (0, ips("1.0.0"))
    );
    let oldest = json!({ "cniVersion": "0.1.0", "ip4": { "ip": "10.0.0.1/8" }, "dns": {} });
    assert_eq!(
        add("0.1.0", json!({ "ip4": { "ip": "10.0.0.1/8" } })),
        (0, oldest)
    );
    for (config, previous, expected) in [
        ("1.0.0", ips("0.4.0"), 6),
        ("0.4.0", ips("1.0.0"), 6),
        (
            "0.3.1",
            json!({ "cniVersion": "0.2.0", "ip4": { "ip": "10.0.0.1/8" } }),
            6,
        ),
        ("1.0.0", ips("7.0.0"), 1),
        ("1.0.0", json!("x"), 6),
        ("1.0.0", json!({ "ips": "x" }), 6),
        ("1.0.0", Value::Null, 100),
    ] {
        assert_eq!(
            code(&add(config, previous.clone())),
            expected,
            "{config} {previous}"
        );
        // Whatever became of it, an attachment can be removed.
        let config = json!({ "cniVersion": config, "name": "n", "prevResult": previous });
        assert_eq!(with("DEL", &[], &config.to_string()), (0, Value::Null));
    }
}
