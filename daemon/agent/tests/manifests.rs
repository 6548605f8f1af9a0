//! What manifests/ configures is what this daemon takes, and its probes ask where it answers.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use agent::config::{Config, Settings};
use serde_yaml_ng::Value;

fn manifest(name: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests");
    let text = fs::read_to_string(path.join(name)).unwrap();
    documents(&text)
}

fn documents(text: &str) -> Vec<Value> {
    let documents = serde_yaml_ng::Deserializer::from_str(text);
    documents
        .map(|one| serde::Deserialize::deserialize(one).unwrap())
        .collect()
}

/// The configuration that `yaml` and the ConfigMap's net-conf.json make.
fn config(folder: &Path, yaml: &Value) -> Config {
    let write = |name: &str, value: &Value| -> PathBuf {
        let path = folder.join(name);
        fs::write(&path, value.as_str().unwrap()).unwrap();
        path
    };
    let map = &manifest("base/configmap.yaml")[0];
    let flags = Settings {
        node_name: Some("n1".to_owned()),
        net_config_path: Some(write("net-conf.json", &map["data"]["net-conf.json"])),
        ..Settings::default()
    };
    Config::load(Some(&write("towlined.yaml", yaml)), flags).unwrap()
}

/// The ports that the probes of a DaemonSet ask.
fn probed(daemon_set: &Value) -> [u64; 2] {
    let container = &daemon_set["spec"]["template"]["spec"]["containers"][0];
    ["readinessProbe", "livenessProbe"]
        .map(|probe| container[probe]["httpGet"]["port"].as_u64().unwrap())
}

#[test]
fn the_base_is_a_configuration_of_this_daemon() {
    let folder = tempfile::tempdir().unwrap();
    let map = &manifest("base/configmap.yaml")[0];
    let config = config(folder.path(), &map["data"]["towlined.yaml"]);
    assert!(config.services && config.policy);
    let port = u64::from(config.healthz[0].port());
    assert_eq!(probed(&manifest("base/daemonset.yaml")[0]), [port; 2]);
}

#[test]
fn beside_kube_proxy_its_services_and_ports_are_left_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let overlay = &manifest("beside-kube-proxy/kustomization.yaml")[0];
    let patches = overlay["patches"].as_sequence().unwrap();
    let patch = |index: usize| documents(patches[index]["patch"].as_str().unwrap()).remove(0);
    let config = config(folder.path(), &patch(0)["data"]["towlined.yaml"]);
    assert!(!config.services && config.policy);
    let port = u64::from(config.healthz[0].port());
    assert_eq!(probed(&patch(1)), [port; 2]);
    let ports = [
        config.healthz[0].port(),
        config.metrics.map_or(0, |one| one.port()),
    ];
    assert!(ports.iter().all(|port| ![10249, 10256].contains(port)));
}
