//! Requests from environment and input, in this process.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use pretty_assertions::assert_eq;
use serde_json::json;
use towline_protocol::{
    AddResult, Args, Attachment, Command, Env, Error, Plugin, Registry, Request, run,
};

/// Answers with what it was asked.
struct Echo;

impl Plugin for Echo {
    fn name(&self) -> &'static str {
        "echo"
    }

    fn add(&self, request: &Request<'_>) -> Result<AddResult, Error> {
        let mut result = request.prev_result.clone().unwrap_or_default();
        result.dns.domain = request.network.clone();
        Ok(result)
    }

    fn delete(&self, request: &Request<'_>) -> Result<(), Error> {
        match request.netns {
            Some(_) => Ok(()),
            None => Err(Error::new(100, "no namespace").details("as the test wants")),
        }
    }

    fn check(&self, _: &Request<'_>) -> Result<(), Error> {
        Ok(())
    }

    fn gc(&self, _: &Request<'_>, valid: Option<&[Attachment]>) -> Result<(), Error> {
        let count = valid.map_or(0, <[Attachment]>::len);
        Err(Error::new(100, format!("{} of {count}", valid.is_some())))
    }

    fn status(&self, request: &Request<'_>) -> Result<(), Error> {
        assert_eq!(request.command, Command::Status);
        Ok(())
    }
}

fn call(command: &str, config: &serde_json::Value, more: &[(&str, &str)]) -> (u8, String) {
    let fixed = [
        ("CNI_COMMAND", command),
        ("CNI_CONTAINERID", "c1"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_PATH", "/nowhere"),
    ];
    let env: Env = fixed.into_iter().chain(more.iter().copied()).collect();
    let registry = Registry::new(&[&Echo]);
    let mut stdout = Vec::new();
    let text = config.to_string();
    let status = run(&Echo, registry, &env, &mut text.as_bytes(), &mut stdout);
    (status, String::from_utf8(stdout).unwrap())
}

#[test]
fn an_error_names_version_code_and_details() {
    let config = json!({ "cniVersion": "0.4.0", "name": "n" });
    let (status, stdout) = call("DEL", &config, &[]);
    assert_eq!(status, 1);
    let document: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    let expected = json!({
        "cniVersion": "0.4.0", "code": 100, "msg": "no namespace", "details": "as the test wants",
    });
    assert_eq!(document, expected);
    assert_eq!(
        call("DEL", &config, &[("CNI_NETNS", "/x")]),
        (0, String::new())
    );
}

#[test]
fn the_valid_attachments_are_told_apart_from_none_named() {
    let mut config = json!({ "cniVersion": "1.1.0", "name": "n" });
    let message = |config: &serde_json::Value| {
        let (_, stdout) = call("GC", config, &[]);
        serde_json::from_str::<Error>(&stdout).unwrap().msg
    };
    assert_eq!(message(&config), "false of 0");
    config["cni.dev/attachments"] = json!([]);
    assert_eq!(message(&config), "true of 0");
    config["cni.dev/valid-attachments"] = json!([{ "containerID": "a", "ifname": "b" }]);
    assert_eq!(message(&config), "true of 1");
    config["cni.dev/valid-attachments"] = json!("x");
    assert_eq!(
        message(&config),
        "cni.dev/valid-attachments is no list of attachments"
    );
}

#[test]
fn a_previous_result_must_be_of_the_configurations_generation() {
    let netns = [("CNI_NETNS", "/x")];
    let mut config = json!({ "cniVersion": "1.0.0", "name": "n", "prevResult": { "ips": [] } });
    assert_eq!(call("ADD", &config, &netns).0, 0);
    config["prevResult"]["cniVersion"] = "1.1.0".into();
    assert_eq!(call("ADD", &config, &netns).0, 0);
    config["prevResult"]["cniVersion"] = "0.4.0".into();
    let (_, stdout) = call("ADD", &config, &netns);
    assert_eq!(
        serde_json::from_str::<Error>(&stdout).unwrap().msg,
        "prevResult is of cniVersion 0.4.0, the configuration of 1.0.0"
    );
}

#[test]
fn a_result_that_the_version_cannot_say_undoes_the_add() {
    let config = json!({ "cniVersion": "0.2.0", "name": "n" });
    let (status, stdout) = call("ADD", &config, &[("CNI_NETNS", "/x")]);
    assert_eq!(
        (status, serde_json::from_str::<Error>(&stdout).unwrap().code),
        (1, 2)
    );
}

#[test]
fn arguments_are_pairs_and_unknown_ones_are_refused_unless_allowed() {
    let args = Args::parse("A=1;B=x=y;A=2;").unwrap();
    assert_eq!(
        (args.get("A"), args.get("B"), args.get("C")),
        (Some("2"), Some("x=y"), None)
    );
    assert!(args.check_known(&["A", "B"]).is_ok());
    let error = args.check_known(&["A"]).unwrap_err();
    assert_eq!(
        (error.code, error.msg.as_str()),
        (4, "CNI_ARGS: unknown keys B; add IgnoreUnknown=1")
    );
    assert!(
        Args::parse("IgnoreUnknown=true;B=1")
            .unwrap()
            .check_known(&[])
            .is_ok()
    );
    assert_eq!(Args::parse("A").unwrap_err().code, 4);
}

#[test]
fn null_is_as_good_as_nothing() {
    #[derive(serde::Deserialize, PartialEq, Debug)]
    struct Config {
        #[serde(default)]
        list: Vec<u32>,
        nested: std::collections::BTreeMap<String, u32>,
    }
    let env = Env::default()
        .with("CNI_COMMAND", "STATUS")
        .with("CNI_PATH", "/x");
    let stdin = br#"{"cniVersion":"1.1.0","name":"n","list":null,"nested":{"a":null,"b":1}}"#;
    let request = Request::parse(&env, stdin, Registry::new(&[])).unwrap();
    let nested = [("b".to_owned(), 1)].into();
    assert_eq!(
        request.config_as::<Config>().unwrap(),
        Config {
            list: vec![],
            nested
        }
    );
}
