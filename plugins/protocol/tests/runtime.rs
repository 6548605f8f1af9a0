//! A network's plugins run as a runtime does, with plugins that note what they are given.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use pretty_assertions::assert_eq;
use serde_json::{Value, json};
use towline_protocol::runtime::{Cache, NetworkList, Runtime, Target, load};
use towline_protocol::{Args, Attachment, Version};

struct Lab {
    folder: tempfile::TempDir,
}

impl Lab {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for part in ["bin", "net.d", "net.d/net"] {
            fs::create_dir(folder.path().join(part)).unwrap();
        }
        Self { folder }
    }

    fn path(&self, part: &str) -> PathBuf {
        self.folder.path().join(part)
    }

    fn file(&self, name: &str, document: &Value) {
        fs::write(self.path("net.d").join(name), document.to_string()).unwrap();
    }

    /// A plugin that notes its call, then does as `script` says. Written by another process: a file
    /// that this one has open cannot be executed.
    fn plugin(&self, name: &str, script: &str) {
        let path = self.path("bin").join(name);
        let text = format!(
            "#!/bin/sh\necho \"$CNI_COMMAND {name} $CNI_CONTAINERID $CNI_IFNAME $CNI_NETNS $CNI_ARGS\" >> {0}\n\
             cat >> {0}; echo >> {0}\n{script}\n",
            self.path("log").display()
        );
        let quoted = text.replace('\'', r"'\''");
        let write = format!("printf %s '{quoted}' > {0}; chmod 755 {0}", path.display());
        assert!(
            Command::new("sh")
                .args(["-c", &write])
                .status()
                .unwrap()
                .success()
        );
    }

    fn runtime(&self) -> Runtime {
        Runtime {
            path: self.path("bin").display().to_string(),
            cache: Cache::new(&self.path("cache")),
        }
    }

    /// Calls since the last look: what was called, and its input.
    fn calls(&self) -> Vec<(String, Value)> {
        let text = fs::read_to_string(self.path("log")).unwrap_or_default();
        let _ = fs::remove_file(self.path("log"));
        let lines: Vec<&str> = text.lines().collect();
        let call = |two: &[&str]| (two[0].to_owned(), serde_json::from_str(two[1]).unwrap());
        lines.chunks(2).map(call).collect()
    }
}

fn target() -> Target {
    let ips = json!({ "ips": ["10.0.0.9"], "mac": "x", "dns": {} });
    Target {
        attachment: Attachment {
            container_id: "c1".to_owned(),
            ifname: "eth0".to_owned(),
        },
        netns: "/run/netns/a".to_owned(),
        args: Args::parse("A=1;B=2").unwrap(),
        capabilities: ips.as_object().unwrap().clone(),
    }
}

const FIRST: &str =
    r#"[ $CNI_COMMAND = ADD ] && echo '{"cniVersion":"0.2.0","ip4":{"ip":"10.0.0.9/24"}}'; exit 0"#;
const SECOND: &str = r#"[ $CNI_COMMAND = ADD ] && echo '{"cniVersion":"1.0.0","ips":[{"address":"10.0.0.9/24"}],"dns":{"domain":"d"}}'; exit 0"#;

#[test]
fn each_plugin_sees_its_keys_its_capabilities_and_the_result_before_it() {
    let lab = Lab::new();
    lab.plugin("first", FIRST);
    lab.plugin("second", SECOND);
    lab.file(
        "a.conflist",
        &json!({ "cniVersion": "1.0.0", "name": "net", "plugins": [
            { "type": "first", "name": "ignored", "capabilities": { "ips": true, "mac": false } },
            { "type": "second", "k": 1 },
        ] }),
    );
    let (runtime, list) = (lab.runtime(), load(&lab.path("net.d"), "net").unwrap());
    let result = runtime.add(&list, &target()).unwrap();
    let address = json!([{ "address": "10.0.0.9/24" }]);
    let last = json!({ "cniVersion": "1.0.0", "ips": address, "dns": { "domain": "d" } });
    assert_eq!(result, last);
    let first = json!({
        "cniVersion": "1.0.0", "name": "net", "type": "first",
        "capabilities": { "ips": true, "mac": false }, "runtimeConfig": { "ips": ["10.0.0.9"] },
    });
    let mut second = json!({
        "cniVersion": "1.0.0", "name": "net", "type": "second", "k": 1,
        "prevResult": { "cniVersion": "1.0.0", "ips": address },
    });
    let called =
        |command: &str, plugin: &str| format!("{command} {plugin} c1 eth0 /run/netns/a A=1;B=2");
    assert_eq!(
        lab.calls(),
        [
            (called("ADD", "first"), first.clone()),
            (called("ADD", "second"), second.clone())
        ]
    );
    // CHECK goes forwards, DEL backwards; both with the kept result, and DEL with the arguments of
    // the ADD when it is given none.
    let (mut first, mut bare) = (first, target());
    first["prevResult"] = last.clone();
    second["prevResult"] = last;
    runtime.check(&list, &bare).unwrap();
    let calls: Vec<String> = lab.calls().into_iter().map(|(call, _)| call).collect();
    assert_eq!(calls, [called("CHECK", "first"), called("CHECK", "second")]);
    bare.capabilities.clear();
    bare.args = Args::default();
    runtime.del(&list, &bare).unwrap();
    assert_eq!(
        lab.calls(),
        [
            (called("DEL", "second"), second),
            (called("DEL", "first"), first)
        ]
    );
    assert_eq!(runtime.check(&list, &bare).unwrap_err().code, 3);
}

#[test]
fn the_kept_result_has_libcnis_form() {
    let lab = Lab::new();
    lab.plugin("first", FIRST);
    let text = json!({ "cniVersion": "1.0.0", "name": "net", "plugins": [{ "type": "first" }] });
    let list = NetworkList::parse(text.to_string().as_bytes()).unwrap();
    let result = lab.runtime().add(&list, &target()).unwrap();
    let bytes = fs::read(lab.path("cache/results/net-c1-eth0")).unwrap();
    // echo -n "$text" | base64 -w0
    let config =
        "eyJjbmlWZXJzaW9uIjoiMS4wLjAiLCJuYW1lIjoibmV0IiwicGx1Z2lucyI6W3sidHlwZSI6ImZpcnN0In1dfQ==";
    assert_eq!(
        serde_json::from_slice::<Value>(&bytes).unwrap(),
        json!({
            "kind": "cniCacheV1", "containerId": "c1", "ifName": "eth0", "networkName": "net",
            "netns": "/run/netns/a", "config": config, "cniArgs": [["A", "1"], ["B", "2"]],
            "capabilityArgs": { "ips": ["10.0.0.9"], "mac": "x", "dns": {} }, "result": result,
        })
    );
}

#[test]
fn a_failing_plugin_is_named_and_what_was_done_is_undone() {
    let lab = Lab::new();
    lab.plugin("first", FIRST);
    let refuse = r#"echo '{"code":101,"msg":"no","details":"really"}'; exit 1"#;
    lab.plugin("second", refuse);
    let text = json!({ "cniVersion": "0.4.0", "name": "net",
                       "plugins": [{ "type": "first" }, { "type": "second" }, { "type": "third" }] });
    let list = NetworkList::parse(text.to_string().as_bytes()).unwrap();
    let error = lab.runtime().add(&list, &target()).unwrap_err();
    assert_eq!(
        (error.code, error.msg.as_str()),
        (101, "plugin second, ADD: no")
    );
    assert_eq!(
        error.details,
        "really; then, undoing: plugin second, DEL: no: really"
    );
    let calls = |lab: &Lab| -> Vec<String> {
        let two = |call: String| call.split(' ').take(2).collect::<Vec<_>>().join(" ");
        lab.calls().into_iter().map(|(call, _)| two(call)).collect()
    };
    assert_eq!(
        calls(&lab),
        ["ADD first", "ADD second", "DEL second", "DEL first"]
    );
    // The first plugin's refusal may mean that the interface is somebody else's.
    lab.plugin("first", refuse);
    lab.runtime().add(&list, &target()).unwrap_err();
    assert_eq!(calls(&lab), ["ADD first"]);
    // DEL halts at the first failure, so that it can be repeated in order.
    lab.plugin("third", "exit 0");
    lab.runtime().del(&list, &target()).unwrap_err();
    assert_eq!(calls(&lab), ["DEL third", "DEL second"]);
}

#[test]
fn gc_deletes_what_is_stale_and_tells_the_plugins_what_is_valid() {
    let lab = Lab::new();
    lab.plugin("first", FIRST);
    let text = json!({ "cniVersion": "1.1.0", "name": "net", "plugins": [{ "type": "first" }] });
    let list = NetworkList::parse(text.to_string().as_bytes()).unwrap();
    let (runtime, kept) = (lab.runtime(), target());
    runtime.add(&list, &kept).unwrap();
    let mut stale = target();
    stale.attachment.container_id = "c2".to_owned();
    runtime.add(&list, &stale).unwrap();
    lab.calls();
    runtime.gc(&list, None).unwrap();
    let mut config = json!({ "cniVersion": "1.1.0", "name": "net", "type": "first" });
    assert_eq!(lab.calls(), [("GC first    ".to_owned(), config.clone())]);
    runtime
        .gc(&list, Some(std::slice::from_ref(&kept.attachment)))
        .unwrap();
    let calls = lab.calls();
    assert_eq!(calls[0].0, "DEL first c2 eth0 /run/netns/a A=1;B=2");
    let valid = json!([{ "containerID": "c1", "ifname": "eth0" }]);
    config["cni.dev/valid-attachments"] = valid.clone();
    config["cni.dev/attachments"] = valid;
    assert_eq!(calls[1..], [("GC first    ".to_owned(), config)]);
    runtime.gc(&list, Some(&[])).unwrap();
    assert_eq!(lab.calls()[0].0, "DEL first c1 eth0 /run/netns/a A=1;B=2");
    let disabled = NetworkList {
        disable_gc: true,
        ..list
    };
    runtime.gc(&disabled, Some(&[])).unwrap();
    assert_eq!(lab.calls(), []);
}

#[test]
fn a_network_is_found_by_its_name() {
    let lab = Lab::new();
    let folder = lab.path("net.d");
    let list = |name: &str, plugin: &str| json!({ "cniVersion": "1.0.0", "name": name, "plugins": [{ "type": plugin }] });
    lab.file("20.conflist", &list("net", "late"));
    lab.file("10.conflist", &list("net", "early"));
    lab.file("05.conflist", &list("other", "x"));
    fs::write(folder.join("00.conflist"), "{").unwrap();
    lab.file(
        "01.conf",
        &json!({ "cniVersion": "0.4.0", "name": "single", "type": "alone", "k": 1 }),
    );
    lab.file("net/b.conf", &json!({ "type": "b" }));
    lab.file("net/a.conf", &json!({ "type": "a" }));
    lab.file("net/c.json", &json!({ "type": "c" }));
    let types = |list: &NetworkList| -> Vec<String> {
        let kind =
            |plugin: &serde_json::Map<String, Value>| plugin["type"].as_str().unwrap().to_owned();
        list.plugins.iter().map(kind).collect()
    };
    assert_eq!(types(&load(&folder, "net").unwrap()), ["early", "a", "b"]);
    let single = load(&folder, "single").unwrap();
    assert_eq!(
        (types(&single), single.version),
        (vec!["alone".to_owned()], Version::V040)
    );
    assert_eq!(single.plugins[0]["k"], 1);
    let mut inlined = list("net", "early");
    inlined["loadOnlyInlinedPlugins"] = true.into();
    lab.file("10.conflist", &inlined);
    assert_eq!(types(&load(&folder, "net").unwrap()), ["early"]);
    // The folder alone makes a network too.
    lab.file(
        "10.conflist",
        &json!({ "cniVersion": "1.0.0", "name": "net" }),
    );
    assert_eq!(types(&load(&folder, "net").unwrap()), ["a", "b"]);
    lab.file("net/a.conf", &json!({ "name": "typeless" }));
    let error = load(&folder, "net").unwrap_err();
    assert!(
        error
            .msg
            .ends_with(r#"a.conf: plugin {"name":"typeless"} has no type"#),
        "{error}"
    );
    lab.file(
        "30.conflist",
        &json!({ "cniVersion": "1.0.0", "name": "none" }),
    );
    assert!(
        load(&folder, "none")
            .unwrap_err()
            .msg
            .starts_with("network none has no plugins")
    );
    let error = load(&folder, "missing").unwrap_err();
    assert!(
        error
            .details
            .contains("00.conflist: the configuration is no JSON"),
        "{error}"
    );
    assert_eq!(load(&lab.path("absent"), "net").unwrap_err().code, 7);
}

#[test]
fn the_highest_version_that_is_spoken_is_chosen() {
    let version = |text: Value| {
        let mut list = json!({ "name": "n", "plugins": [{ "type": "a" }] });
        list.as_object_mut()
            .unwrap()
            .extend(text.as_object().unwrap().clone());
        NetworkList::parse(list.to_string().as_bytes())
            .map(|list| list.version)
            .map_err(|error| error.code)
    };
    assert_eq!(version(json!({})), Ok(Version::V010));
    assert_eq!(version(json!({ "cniVersion": "0.4.0" })), Ok(Version::V040));
    let several = json!({ "cniVersion": "0.3.1", "cniVersions": ["1.0.0", "0.4.0", "2.0.0"] });
    assert_eq!(version(several), Ok(Version::V100));
    let higher = json!({ "cniVersion": "1.1.0", "cniVersions": ["1.0.0"] });
    assert_eq!(version(higher), Ok(Version::V110));
    assert_eq!(version(json!({ "cniVersion": "2.0.0" })), Err(1));
    assert_eq!(version(json!({ "cniVersion": 1 })), Err(6));
    assert_eq!(version(json!({ "cniVersions": "1.0.0" })), Err(6));
}

#[test]
fn a_list_that_cannot_be_is_refused_with_its_reason() {
    for (text, message) in [
        ("[]", "the configuration is no JSON object"),
        ("{}", "name is missing; name the network"),
        (
            r#"{"name":"../x"}"#,
            "name \"../x\" must begin with a letter or digit and go on with letters, digits, '_', '.' and '-'",
        ),
        (
            r#"{"name":"n","plugins":[]}"#,
            "plugins is empty; list one at least",
        ),
        (r#"{"name":"n","plugins":{}}"#, "plugins {} is no list"),
        (r#"{"name":"n","plugins":[1]}"#, "plugin 1 is no object"),
        (r#"{"name":"n","plugins":[{}]}"#, "plugin {} has no type"),
        (
            r#"{"name":"n","plugins":[{"type":"../sh"}]}"#,
            "plugin type \"../sh\" must be the file name of a plugin",
        ),
        (
            r#"{"name":"n","loadOnlyInlinedPlugins":true}"#,
            "loadOnlyInlinedPlugins is true and there is no plugins; add them",
        ),
        (
            r#"{"name":"n","disableGC":"no"}"#,
            "disableGC \"no\" is not true or false",
        ),
    ] {
        let error = NetworkList::parse(text.as_bytes()).unwrap_err();
        assert_eq!(error.msg, message);
    }
    let list =
        NetworkList::parse(br#"{"name":"n","disableCheck":"TRUE","disableGC":false}"#).unwrap();
    assert_eq!((list.disable_check, list.disable_gc), (true, false));
}
