//! What a crash leaves.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{ConfigMap, Service};
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use pretty_assertions::assert_eq;
use serde_json::json;
use tempfile::TempDir;

use crate::support::{Cluster, config_map};

fn log(image: &TempDir) -> PathBuf {
    let files = std::fs::read_dir(image.path().join("store")).unwrap();
    let name = |path: &PathBuf| {
        path.file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .starts_with("wal-")
    };
    files.map(|entry| entry.unwrap().path()).find(name).unwrap()
}

#[tokio::test]
async fn everything_acknowledged_survives() {
    let before = Cluster::start().await;
    let maps: Api<ConfigMap> = Api::namespaced(before.client.clone(), "default");
    for index in 0..20 {
        maps.create(
            &PostParams::default(),
            &config_map(&format!("m{index}"), "1"),
        )
        .await
        .unwrap();
    }
    maps.delete("m3", &DeleteParams::default()).await.unwrap();
    let services: Api<Service> = Api::namespaced(before.client.clone(), "default");
    let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}});
    let service: Service = serde_json::from_value(service).unwrap();
    let service = services
        .create(&PostParams::default(), &service)
        .await
        .unwrap();
    let kept = maps.list(&ListParams::default()).await.unwrap();

    let image = before.crash_image();
    // A record that was being written when the power went.
    let torn = [40, 0, 0, 0, 1, 2, 3, 4, 5];
    OpenOptions::new()
        .append(true)
        .open(log(&image))
        .unwrap()
        .write_all(&torn)
        .unwrap();
    let after = Cluster::start_in(image).await;
    let maps: Api<ConfigMap> = Api::namespaced(after.client.clone(), "default");
    let found = maps.list(&ListParams::default()).await.unwrap();
    assert_eq!(found.items, kept.items);
    assert_eq!(
        found.metadata.resource_version,
        kept.metadata.resource_version
    );

    let address = service.spec.unwrap().cluster_ip.unwrap();
    let body = json!({
        "metadata": {"name": "t"}, "spec": {"clusterIP": address, "ports": [{"port": 80}]},
    });
    let path = "/api/v1/namespaces/default/services";
    assert_eq!(
        after.post(path, &body).await.0,
        422,
        "the address is still taken"
    );
    let next = maps
        .create(&PostParams::default(), &config_map("new", "1"))
        .await
        .unwrap();
    let number = |version: Option<String>| version.unwrap().parse::<u64>().unwrap();
    assert!(number(next.metadata.resource_version) > number(kept.metadata.resource_version));
}

#[tokio::test]
async fn a_kubeconfig_outlives_a_restart() {
    let before = Cluster::start().await;
    let authority = before.control_plane.authority().certificate().to_owned();
    let after = Cluster::start_in(before.crash_image()).await;
    assert_eq!(after.control_plane.authority().certificate(), authority);
    let old = before
        .control_plane
        .kubeconfig(after.control_plane.addresses()[0]);
    let kubeconfig = kube::config::Kubeconfig::from_yaml(&old).unwrap();
    let options = kube::config::KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .unwrap();
    let client = kube::Client::try_from(config).unwrap();
    let maps: Api<ConfigMap> = Api::all(client);
    assert!(
        maps.list(&ListParams::default())
            .await
            .unwrap()
            .items
            .is_empty()
    );
}

#[tokio::test]
async fn a_directory_in_use_is_refused() {
    let cluster = Cluster::start().await;
    let second = crate::support::options(cluster.dir.path());
    let error = towline_control_plane::run::ControlPlane::start(second)
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("is in use by another process"),
        "{error}"
    );
}
