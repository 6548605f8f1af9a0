//! Towline itself: a lab cluster with one client and one server pod on a node, a third pod on
//! another node, and as many Services as asked for.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::command::output;

const NAME: &str = "bench";

/// A lab cluster; removed on drop.
pub(crate) struct Cluster {
    lab: PathBuf,
    kubectl: PathBuf,
    kubeconfig: String,
}

impl Cluster {
    /// Starts two nodes and the pods, and waits until these are ready.
    ///
    /// # Errors
    /// When the lab does not come up.
    pub(crate) fn new(out: &Path, kubectl: &Path) -> anyhow::Result<Self> {
        let lab = out.join("bin/lab");
        let lab_words = lab.to_string_lossy().into_owned();
        // Left only by a run that was killed.
        let _ = output(&[&lab_words, "down", "--name", NAME], None);
        output(&[&lab_words, "up", "--name", NAME, "--nodes", "2"], None)?;
        let mut cluster = Self {
            lab,
            kubectl: kubectl.to_owned(),
            kubeconfig: String::new(),
        };
        cluster.kubeconfig = output(&[&lab_words, "kubeconfig", "--name", NAME], None)?
            .trim()
            .to_owned();
        cluster.apply(&pods())?;
        for pod in ["client", "server", "far"] {
            cluster.kubectl(
                &[
                    "wait",
                    "--for=condition=Ready",
                    "--timeout=60s",
                    &format!("pod/{pod}"),
                ],
                None,
            )?;
        }
        Ok(cluster)
    }

    fn kubectl(&self, words: &[&str], input: Option<&str>) -> anyhow::Result<String> {
        let (program, config) = (self.kubectl.to_string_lossy(), &self.kubeconfig);
        let mut line = vec![program.as_ref(), "--kubeconfig", config];
        line.extend(words);
        output(&line, input)
    }

    fn apply(&self, manifest: &str) -> anyhow::Result<()> {
        self.kubectl(&["apply", "-f", "-"], Some(manifest))
            .map(drop)
    }

    /// Makes Services `svc-<first>` … so that there are `count`, all with the one server behind
    /// them, and returns the first one's address.
    ///
    /// # Errors
    /// When the API refuses, or the address does not answer within a minute.
    pub(crate) fn services(&self, count: usize) -> anyhow::Result<String> {
        self.apply(&services(count))?;
        let address = self.kubectl(
            &[
                "get",
                "service",
                "svc-1",
                "-o",
                "jsonpath={.spec.clusterIP}",
            ],
            None,
        )?;
        Ok(address.trim().to_owned())
    }

    /// The address of a pod.
    ///
    /// # Errors
    /// When there is no such pod.
    pub(crate) fn address(&self, pod: &str) -> anyhow::Result<String> {
        self.kubectl(&["get", "pod", pod, "-o", "jsonpath={.status.podIP}"], None)
            .with_context(|| format!("asking for the address of pod {pod}"))
    }

    /// The words that run a command in a pod.
    pub(crate) fn inside(&self, pod: &str) -> Vec<String> {
        let lab = self.lab.to_string_lossy();
        let pod = format!("default/{pod}");
        [&*lab, "exec", "--name", NAME, &*pod, "--"]
            .map(str::to_owned)
            .to_vec()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let lab = self.lab.to_string_lossy();
        if let Err(error) = output(&[&lab, "down", "--name", NAME], None) {
            eprintln!("bench: {error:#}");
        }
    }
}

fn pods() -> String {
    let mut text = String::new();
    for (name, node) in [("client", "node1"), ("server", "node1"), ("far", "node2")] {
        let _ = write!(
            text,
            "---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  labels: {{app: {name}}}\n\
             spec:\n  nodeName: {node}\n  terminationGracePeriodSeconds: 0\n  containers:\n  \
             - {{name: main, image: towline.dev/agnhost, args: [pause]}}\n"
        );
    }
    text
}

fn services(count: usize) -> String {
    let mut text = String::new();
    for number in 1..=count {
        let _ = write!(
            text,
            "---\napiVersion: v1\nkind: Service\nmetadata:\n  name: svc-{number}\nspec:\n  \
             selector: {{app: server}}\n  ports:\n  - {{port: 80, targetPort: 7001}}\n"
        );
    }
    text
}
