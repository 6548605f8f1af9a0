//! The real kubectl.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{Patch, PatchParams};
use pretty_assertions::assert_eq;
use serde_json::json;

use crate::support::Cluster;

const MANIFEST: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: shop, labels: {app: client}}
spec:
  nodeName: n1
  containers: [{name: main, image: "netexec:1"}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: main, image: "netexec:1", ports: [{containerPort: 80}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.50, selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
endpoints: [{addresses: [10.244.1.2], conditions: {ready: true}}]
ports: [{name: "", port: 8080, protocol: TCP}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny, namespace: shop}
spec: {podSelector: {matchLabels: {app: web}}}
"#;

/// kubectl as the set-up installs it. Without it these tests fail: they would prove nothing.
fn kubectl() -> PathBuf {
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.tools/bin/kubectl");
    let path = std::env::var_os("TOWLINE_KUBECTL").map_or(installed, PathBuf::from);
    assert!(
        path.exists(),
        "no kubectl at {}: run `make setup`, or name one in TOWLINE_KUBECTL",
        path.display()
    );
    path
}

struct Kubectl<'a> {
    cluster: &'a Cluster,
    kubeconfig: PathBuf,
}

impl Kubectl<'_> {
    fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(kubectl());
        command
            .args(arguments.split_whitespace())
            .env_clear()
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HOME", self.cluster.dir.path())
            .stdin(Stdio::null());
        command
    }

    async fn run(&self, arguments: &str) -> Output {
        let mut command = self.command(arguments);
        tokio::task::spawn_blocking(move || command.output())
            .await
            .unwrap()
            .unwrap()
    }

    /// Standard output of a command that must succeed.
    async fn ok(&self, arguments: &str) -> String {
        let output = self.run(arguments).await;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(
            output.status.success(),
            "kubectl {arguments}: {}{}",
            text(&output.stdout),
            text(&output.stderr)
        );
        assert_eq!(
            text(&output.stderr),
            "",
            "kubectl {arguments} has nothing to complain about"
        );
        text(&output.stdout)
    }
}

/// Columns of each line, ages left out.
fn rows(text: &str) -> Vec<Vec<&str>> {
    let is_age = |word: &&str| {
        word.len() > 1
            && word[..word.len() - 1].chars().all(|c| c.is_ascii_digit())
            && word.ends_with('s')
    };
    text.lines()
        .filter(|line| !line.is_empty())
        .map(|line| {
            line.split_whitespace()
                .filter(|word| !is_age(word))
                .collect()
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn apply_get_describe_wait_delete() {
    let cluster = Cluster::start().await;
    let kubectl = Kubectl {
        kubeconfig: cluster.kubeconfig(),
        cluster: &cluster,
    };
    let manifest = cluster.dir.path().join("manifest.yaml");
    std::fs::write(&manifest, MANIFEST).unwrap();
    let file = manifest.display();
    let created = kubectl.ok(&format!("apply -f {file}")).await;
    assert_eq!(
        created,
        "namespace/shop created\npod/client created\ndeployment.apps/web created\nservice/web created\nendpointslice.discovery.k8s.io/web-1 created\nnetworkpolicy.networking.k8s.io/deny created\n"
    );
    let again = kubectl.ok(&format!("apply -f {file}")).await;
    assert!(
        again.lines().all(|line| line.ends_with(" unchanged")),
        "{again}"
    );
    std::fs::write(&manifest, MANIFEST.replace("replicas: 2", "replicas: 3")).unwrap();
    let changed = kubectl.ok(&format!("apply -f {file}")).await;
    assert!(
        changed.contains("deployment.apps/web configured"),
        "{changed}"
    );

    let all = kubectl
        .ok("get pods,svc,endpointslices,networkpolicies,deployments -A -o wide")
        .await;
    let rows = rows(&all);
    let row = |name: &str| {
        rows.iter()
            .find(|row| row.get(1) == Some(&name))
            .unwrap_or_else(|| panic!("{name}: {all}"))
    };
    assert_eq!(
        row("pod/client")[..],
        [
            "shop",
            "pod/client",
            "0/1",
            "Pending",
            "0",
            "<none>",
            "n1",
            "<none>",
            "<none>"
        ]
    );
    assert_eq!(
        row("service/web")[..],
        [
            "shop",
            "service/web",
            "ClusterIP",
            "10.96.0.50",
            "<none>",
            "80/TCP",
            "app=web"
        ]
    );
    assert_eq!(
        row("endpointslice.discovery.k8s.io/web-1")[2..],
        ["IPv4", "8080", "10.244.1.2"]
    );
    assert_eq!(
        row("networkpolicy.networking.k8s.io/deny")[2..],
        ["app=web"]
    );
    assert_eq!(row("deployment.apps/web")[2..5], ["0/3", "0", "0"]);

    let described = kubectl.ok("-n shop describe pod client").await;
    for line in [
        "Name:             client",
        "Status:           Pending",
        "Node:             n1/",
    ] {
        assert!(described.contains(line), "{line}: {described}");
    }
    kubectl.ok("-n shop describe svc web").await;
    kubectl.ok("-n shop label pod client tier=front").await;
    kubectl
        .ok("-n shop scale deployment web --replicas=5")
        .await;
    assert_eq!(
        kubectl
            .ok("-n shop get deploy web -o jsonpath={.spec.replicas}")
            .await,
        "5"
    );
    let missing = kubectl.run("-n shop get pod nobody").await;
    assert_eq!(
        String::from_utf8_lossy(&missing.stderr),
        "Error from server (NotFound): pods \"nobody\" not found\n"
    );
    wait_and_delete(&cluster, &kubectl).await;
}

async fn wait_and_delete(cluster: &Cluster, kubectl: &Kubectl<'_>) {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), "shop");
    let mut waiting = kubectl
        .command("-n shop wait --for=condition=Ready pod/client --timeout=60s")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let ready = json!({"status": {"phase": "Running", "conditions": [
        {"type": "Ready", "status": "True"},
    ]}});
    pods.patch_status("client", &PatchParams::default(), &Patch::Strategic(&ready))
        .await
        .unwrap();
    let waited = tokio::task::spawn_blocking(move || waiting.wait())
        .await
        .unwrap()
        .unwrap();
    assert!(waited.success(), "kubectl wait saw the condition");

    let mut watching = kubectl
        .command("-n shop get pods -w --no-headers")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    let mut next = async || {
        let line = lines.next().unwrap().unwrap();
        line.split_whitespace().nth(2).unwrap().to_owned()
    };
    assert_eq!(next().await, "Running");
    let succeeded = json!({"status": {"phase": "Succeeded"}});
    pods.patch_status("client", &PatchParams::default(), &Patch::Merge(&succeeded))
        .await
        .unwrap();
    assert_eq!(next().await, "Succeeded", "get -w shows the change");
    watching.kill().unwrap();
    watching.wait().unwrap();
    let deleted = kubectl
        .ok("-n shop delete pod/client svc/web --timeout=60s")
        .await;
    assert_eq!(
        deleted,
        "pod \"client\" deleted from shop namespace\nservice \"web\" deleted from shop namespace\n"
    );
}
