//! A control plane without controllers in a directory of its own, and clients for it.

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};
use tempfile::TempDir;
use towline_control_plane::run::{ControlPlane, Options};

pub(crate) struct Cluster {
    pub(crate) control_plane: ControlPlane,
    pub(crate) client: Client,
    pub(crate) dir: TempDir,
}

pub(crate) fn options(dir: &Path) -> Options {
    Options {
        data_dir: dir.to_owned(),
        sync: true,
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        listen_netns: Vec::new(),
        advertise: None,
        cluster_cidr: "10.244.0.0/16".parse().unwrap(),
        service_cidr: "10.96.0.0/16".parse().unwrap(),
        node_cidr_mask: 24,
        controllers: false,
    }
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap()).await
    }

    pub(crate) async fn start_in(dir: TempDir) -> Self {
        let control_plane = ControlPlane::start(options(dir.path())).await.unwrap();
        let client = Client::try_from(config(&control_plane).await).unwrap();
        Self {
            control_plane,
            client,
            dir,
        }
    }

    /// What a power failure now would leave: the files as they are, the server still running.
    pub(crate) fn crash_image(&self) -> TempDir {
        let image = tempfile::tempdir().unwrap();
        copy(self.dir.path(), image.path());
        image
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        let path = self.dir.path().join("kubeconfig");
        let text = self
            .control_plane
            .kubeconfig(self.control_plane.addresses()[0]);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// A raw request; answers status and body.
    pub(crate) async fn request(
        &self,
        method: &str,
        path: &str,
        accept: &str,
        body: &Value,
    ) -> (u16, Value) {
        let body = if body.is_null() {
            Vec::new()
        } else {
            body.to_string().into_bytes()
        };
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("accept", accept)
            .header("content-type", "application/json")
            .body(Body::from(body))
            .unwrap();
        let response = self.client.send(request).await.unwrap();
        let status = response.status().as_u16();
        let bytes = response.into_body().collect_bytes().await.unwrap();
        (
            status,
            serde_json::from_slice(&bytes).unwrap_or(Value::Null),
        )
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        self.request("GET", path, "application/json", &Value::Null)
            .await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.request("POST", path, "application/json", body).await
    }

    pub(crate) async fn delete(&self, path: &str, body: &Value) -> (u16, Value) {
        self.request("DELETE", path, "application/json", body).await
    }
}

pub(crate) async fn config(control_plane: &ControlPlane) -> Config {
    let text = control_plane.kubeconfig(control_plane.addresses()[0]);
    let kubeconfig = Kubeconfig::from_yaml(&text).unwrap();
    let options = KubeConfigOptions::default();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .unwrap();
    // A test wants the server's first answer.
    config.default_retry = false;
    config
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir(&target).unwrap();
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

pub(crate) fn config_map(name: &str, value: &str) -> ConfigMap {
    let object = json!({"metadata": {"name": name}, "data": {"key": value}});
    serde_json::from_value(object).unwrap()
}

pub(crate) fn pod(name: &str, labels: &Value) -> Pod {
    let object = json!({
        "metadata": {"name": name, "labels": labels},
        "spec": {"containers": [{"name": "main", "image": "netexec:1"}]},
    });
    serde_json::from_value(object).unwrap()
}

/// The HTTP status of a failed call.
pub(crate) fn code<T: std::fmt::Debug>(result: Result<T, kube::Error>) -> u16 {
    match result.unwrap_err() {
        kube::Error::Api(status) => status.code,
        other => panic!("no answer of the API: {other}"),
    }
}
