//! What a runtime makes of plugins that misbehave.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::path::Path;
use std::process::Command;

use pretty_assertions::assert_eq;
use serde_json::{Map, json};
use towline_protocol::runtime::{Cache, NetworkList, Runtime, Target};
use towline_protocol::{Args, Attachment};

/// A plugin `name` in `folder` that notes its command, then does as `script` says. Written by
/// another process: a file that this one has open cannot be executed.
fn plugin(folder: &Path, name: &str, script: &str) {
    let (path, log) = (folder.join(name), folder.join("log"));
    let text = format!(
        "#!/bin/sh\necho $CNI_COMMAND >> {}\n{script}\n",
        log.display()
    );
    let quoted = text.replace('\'', r"'\''");
    let write = format!("printf %s '{quoted}' > {0}; chmod 755 {0}", path.display());
    let written = Command::new("sh").args(["-c", &write]).status();
    assert!(written.unwrap().success());
}

fn commands(folder: &Path) -> Vec<String> {
    let text = fs::read_to_string(folder.join("log")).unwrap_or_default();
    let _ = fs::remove_file(folder.join("log"));
    text.lines().map(str::to_owned).collect()
}

fn runtime(folder: &Path) -> Runtime {
    Runtime {
        path: folder.display().to_string(),
        cache: Cache::new(&folder.join("cache")),
    }
}

fn list(name: &str, plugin: &serde_json::Value) -> NetworkList {
    let text = json!({ "cniVersion": "1.0.0", "name": name, "plugins": [plugin] });
    NetworkList::parse(text.to_string().as_bytes()).unwrap()
}

fn target(container_id: &str) -> Target {
    Target {
        attachment: Attachment {
            container_id: container_id.to_owned(),
            ifname: "eth0".to_owned(),
        },
        netns: "/run/netns/a".to_owned(),
        args: Args::default(),
        capabilities: Map::new(),
    }
}

#[test]
fn a_first_plugin_that_did_its_work_and_answered_nonsense_is_undone() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    plugin(folder, "first", "cat > /dev/null; echo nonsense");
    let list = list("net", &json!({ "type": "first" }));
    let error = runtime(folder).add(&list, &target("c1")).unwrap_err();
    assert_eq!(error.code, 6, "{error}");
    assert_eq!(commands(folder), ["ADD", "DEL"]);
}

#[test]
fn results_of_networks_whose_names_run_together_are_kept_apart() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let answer = r#"cat > /dev/null; [ $CNI_COMMAND != ADD ] || echo '{"cniVersion":"1.0.0"}'"#;
    plugin(folder, "first", answer);
    let runtime = runtime(folder);
    let plain = json!({ "type": "first" });
    let (short, long) = (list("a", &plain), list("a-b", &plain));
    runtime.add(&long, &target("c")).unwrap();
    // Both have the file a-b-c-eth0.
    assert_eq!(runtime.check(&short, &target("b-c")).unwrap_err().code, 3);
    runtime.del(&short, &target("b-c")).unwrap();
    runtime.check(&long, &target("c")).unwrap();
}

#[test]
fn a_plugin_that_talks_before_it_listens_is_not_waited_for_without_end() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let script = "head -c 300000 /dev/zero | tr '\\0' x; cat > /dev/null";
    plugin(folder, "first", script);
    let list = list(
        "net",
        &json!({ "type": "first", "much": "x".repeat(300_000) }),
    );
    let (sender, receiver) = std::sync::mpsc::channel();
    let runtime = runtime(folder);
    std::thread::spawn(move || sender.send(runtime.add(&list, &target("c1"))));
    let answer = receiver.recv_timeout(std::time::Duration::from_secs(20));
    assert_eq!(answer.unwrap().unwrap_err().code, 6);
}
