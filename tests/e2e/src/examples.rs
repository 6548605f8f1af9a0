//! The documentation's examples, used as its reader would: applied by plain kubectl, and explained by
//! `towline` on the nodes.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use lab::matrix::World;

/// Applies `docs/examples`, looks at them with kubectl and `towline`, and deletes them.
///
/// # Errors
/// When kubectl or the built binaries are missing, or anything is not as it should be.
pub fn run(world: &World, programs: &Path) -> Result<()> {
    let home = tempfile::tempdir().context("make a folder for kubectl's cache")?;
    let reader = Reader {
        kubeconfig: world.cluster.layout().kubeconfig(),
        home: home.path().to_owned(),
        lab: programs.join("lab"),
        cluster: world.cluster.layout().name().to_string(),
    };
    reader.apply()?;
    reader.explain()?;
    reader.drops()?;
    reader.kubectl(&["delete", "namespace", "shop", "--timeout=60s"])?;
    Ok(())
}

struct Reader {
    kubeconfig: PathBuf,
    home: PathBuf,
    lab: PathBuf,
    cluster: String,
}

/// A process that ends with this value.
struct Following(Child);

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Reader {
    fn kubectl(&self, args: &[&str]) -> Result<String> {
        let program = std::env::var_os("TOWLINE_KUBECTL").unwrap_or_else(|| "kubectl".into());
        let mut command = Command::new(program);
        command
            .args(args)
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HOME", &self.home);
        output(command).context("kubectl (installed by `make setup`, or named by TOWLINE_KUBECTL)")
    }

    fn exec(&self, place: &str, words: &[&str]) -> Command {
        let mut command = Command::new(&self.lab);
        command
            .args(["exec", "--name", &self.cluster, place, "--"])
            .args(words);
        command
    }

    /// The node and the name of the first pod with this label.
    fn pod(&self, label: &str) -> Result<(String, String)> {
        let path = "jsonpath={.items[0].spec.nodeName} {.items[0].metadata.name}";
        let line = self.kubectl(&["get", "pods", "-n", "shop", "-l", label, "-o", path])?;
        let (node, name) = line.split_once(' ').context("no such pod")?;
        Ok((node.to_owned(), name.to_owned()))
    }

    fn apply(&self) -> Result<()> {
        let examples = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/examples");
        let examples = examples.display().to_string();
        self.kubectl(&["apply", "-f", &examples])?;
        let ready = "--for=condition=Ready";
        self.kubectl(&["wait", ready, "pod", "--all", "-n", "shop", "--timeout=60s"])?;
        let kinds = "pods,svc,endpointslices,networkpolicies";
        let table = self.kubectl(&["get", kinds, "-A", "-o", "wide"])?;
        for expected in [
            "customer",
            "service/web",
            "service/time",
            "customers-to-web",
            "10.244.",
        ] {
            ensure!(table.contains(expected), "{expected} is not in:\n{table}");
        }
        let again = self.kubectl(&["apply", "-f", &examples])?;
        ensure!(
            again.lines().all(|line| line.ends_with("unchanged")),
            "a second apply changed something:\n{again}"
        );
        Ok(())
    }

    fn explain(&self) -> Result<()> {
        let (node, web) = self.pod("app=web")?;
        let status: serde_json::Value = serde_json::from_str(&output(
            self.exec(&node, &["towline", "status", "-o", "json"]),
        )?)
        .context("read `towline status -o json`")?;
        ensure!(status["ready"] == true, "not ready: {status}");
        let web = format!("shop/{web}");
        for (from, to, expected) in [
            (
                "shop/customer",
                "shop/web:80",
                ["allowed by shop/customers-to-web", "Verdict: allowed"],
            ),
            (
                web.as_str(),
                "shop/time:123/UDP",
                ["shop/web-calls-nobody", "Verdict: denied"],
            ),
        ] {
            let answer = output(self.exec(&node, &["towline", "why", from, to]))?;
            for text in expected {
                ensure!(
                    answer.contains(text),
                    "`why {from} {to}` does not say {text:?}:\n{answer}"
                );
            }
        }
        Ok(())
    }

    /// A packet that policy drops is told at once, with the names of both pods.
    fn drops(&self) -> Result<()> {
        let (node, web) = self.pod("app=web")?;
        let path = "jsonpath={.status.podIP}";
        let address = self.kubectl(&["get", "pod", &web, "-n", "shop", "-o", path])?;
        let mut command = self.exec(&node, &["towline", "drops", "-f"]);
        let mut following = Following(
            command
                .stdout(Stdio::piped())
                .spawn()
                .context("start `towline drops -f`")?,
        );
        let stdout = following.0.stdout.take().context("no standard output")?;
        let mut lines = BufReader::new(stdout).lines();
        let target = format!("{}:9", address.trim());
        let mut asking = self.exec(
            "shop/customer",
            &[
                "/opt/towline/bin/node-agent",
                "applet",
                "connect",
                "--protocol=tcp",
                "--count=1000",
                "--timeout-ms=1000",
                &target,
            ],
        );
        let _asking = Following(
            asking
                .stdout(Stdio::null())
                .spawn()
                .context("start asking")?,
        );
        // The packets go on until a line was read, so it does not matter which of the two is first.
        let line = lines.next().context("`towline drops -f` ended")??;
        for expected in ["shop/customer", "shop/web", "policy-"] {
            ensure!(line.contains(expected), "{expected} is not in: {line}");
        }
        Ok(())
    }
}

/// Runs to the end; an error carries what the program said.
fn output(mut command: Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("start {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?} failed: {}{}",
        String::from_utf8_lossy(&output.stderr),
        String::from_utf8_lossy(&output.stdout)
    );
    String::from_utf8(output.stdout).context("not text")
}
