//! The main job, end to end: a cluster of three nodes, real pods, Services and policy; and nothing of it
//! stays behind, however it ends.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::Pod;
use lab::cluster::{self, Options};
use lab::daemons::NODE_AGENT;
use lab::demo;
use lab::diagnose;
use lab::layout::{Artefacts, ClusterName, Layout, NodeId};
use lab::matrix::{self, World};
use lab::overlay::Overlay;
use lab::process::Process;
use lab::wait::until;
use nix::sys::signal::Signal;
use tokio::runtime::Runtime;
use towline_e2e::runner::{Runner, Verdict};
use towline_e2e::snapshot::{Snapshot, namespaces_of};
use towline_e2e::{examples, leaving};

const SHARED: &str = "e2e";
const LIMIT: Duration = Duration::from_secs(30);
const VICTIM: &str = "e2e-victim";

fn main() {
    if std::env::args().any(|arg| arg == "--list") {
        println!("e2e: test");
        return;
    }
    let code = match run() {
        Ok(code) => code,
        Err(error) => {
            println!("end-to-end tests cannot run: {error:#}");
            1
        }
    };
    std::process::exit(code);
}

fn run() -> Result<i32> {
    ensure!(
        nix::unistd::Uid::effective().is_root(),
        "they make network namespaces: run as root"
    );
    let out = Artefacts::find()?.bin_dir();
    // What an earlier run that was killed left.
    let other_names = others().map(|(name, _)| name);
    for name in [SHARED, VICTIM].into_iter().chain(other_names) {
        cluster::remove(&name.parse()?)?;
    }
    let clean = Snapshot::take()?;
    let mut runner = Runner::from_args();
    let namespaces = on_shared_cluster(&mut runner, &out)?;
    for (name, overlay) in others() {
        on_another_overlay(&mut runner, name, overlay)?;
    }
    runner.test("down_leaves_nothing", || {
        clean
            .expect_nothing_new(&namespaces)
            .map(|()| Verdict::Passed)
    });
    runner.test("interrupted_up_leaves_nothing", || {
        interrupted(&out, &clean)
    });
    runner.test("killed_lab_is_cleared_by_down", || killed(&out, &clean));
    runner.test("down_of_nothing_is_fine", || {
        let output = lab(&out, &["down", "--name", VICTIM])
            .output()
            .context("run lab")?;
        ensure!(output.status.success(), "{output:?}");
        Ok(Verdict::Passed)
    });
    runner.test("without_root_it_is_said_at_once", || without_root(&out));
    runner.test("bad_flags_name_field_and_remedy", || bad_flags(&out));
    Ok(runner.finish())
}

/// Everything that needs a running cluster. It is removed at the end, whatever happens. Gives the network
/// namespaces it had.
fn on_shared_cluster(runner: &mut Runner, out: &Path) -> Result<BTreeSet<String>> {
    let runtime = Runtime::new().context("start the runtime")?;
    let options = options(SHARED)?;
    let mut world = match runtime.block_on(demo::bring_up(&options)) {
        Ok(world) => world,
        Err(error) => {
            runner.record("cluster_comes_up", Err(format!("{error:#}")));
            return Ok(BTreeSet::new());
        }
    };
    runner.record("cluster_comes_up", Ok("ok".to_owned()));
    if runner.wants("matrix") {
        let plan = matrix::plan();
        runtime.block_on(matrix::run(&mut world, &plan, |outcome| {
            let result = outcome
                .result
                .clone()
                .map(|detail| format!("ok ({detail})"));
            runner.record(&format!("matrix: {}", outcome.name), result);
        }));
    }
    runner.test("bad_manifest_is_rejected", || {
        runtime.block_on(bad_manifest(&world))
    });
    runner.test("kubectl_and_towline_on_the_examples", || {
        examples::run(&world, out).map(|()| Verdict::Passed)
    });
    runner.test("node_agent_restart_keeps_pods", || {
        runtime
            .block_on(node_agent_restart(&mut world))
            .map(|()| Verdict::Passed)
    });
    runner.test("second_up_is_refused", || second_up(out));
    if runner.failed() {
        println!("{}", diagnose::report(world.cluster.layout()));
    }
    let namespaces = namespaces_of(SHARED)?;
    cluster::remove(&options.name)?;
    Ok(namespaces)
}

/// The other backends and lease stores, each with the name of its cluster.
fn others() -> [(&'static str, Overlay); 3] {
    let [_, vxlan_etcd, host_gw_kube, host_gw_etcd] = Overlay::all();
    [
        ("e2e-vxlan-etcd", vxlan_etcd),
        ("e2e-host-gw-kube", host_gw_kube),
        ("e2e-host-gw-etcd", host_gw_etcd),
    ]
}

/// What a backend or a lease store could break, on a cluster of its own.
fn on_another_overlay(runner: &mut Runner, name: &str, overlay: Overlay) -> Result<()> {
    if !runner.wants(name) {
        return Ok(());
    }
    let options = Options {
        overlay,
        ..options(name)?
    };
    let runtime = Runtime::new().context("start the runtime")?;
    let mut world = match runtime.block_on(demo::bring_up(&options)) {
        Ok(world) => world,
        Err(error) => {
            runner.record(name, Err(format!("{error:#}")));
            return Ok(());
        }
    };
    let before = runner.failures();
    runtime.block_on(matrix::run(&mut world, &matrix::short(), |outcome| {
        let result = outcome.result.clone();
        let result = result.map(|detail| format!("ok ({detail})"));
        runner.record(&format!("{name}: {}", outcome.name), result);
    }));
    let leaves = format!("{name}: a node leaves and comes back");
    runner.test(&leaves, || {
        leaving::check(&mut world, &runtime).map(|()| Verdict::Passed)
    });
    if runner.failures() > before {
        println!("{}", diagnose::report(world.cluster.layout()));
    }
    cluster::remove(&options.name).map(drop)
}

fn options(name: &str) -> Result<Options> {
    Ok(Options {
        name: name.parse::<ClusterName>()?,
        nodes: matrix::NODES,
        mtu: 1500,
        overlay: Overlay::default(),
    })
}

/// A manifest that is wrong is refused by the API server, which names the field.
async fn bad_manifest(world: &World) -> Result<Verdict> {
    let cases = [
        (
            "spec.containers",
            r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"bad"},"spec":{"containers":[]}}"#,
        ),
        (
            "metadata.name",
            r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"Bad_Name"},
            "spec":{"containers":[{"name":"c","image":"towline.dev/pause"}]}}"#,
        ),
        (
            "spec.ports",
            r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"bad"},
            "spec":{"ports":[{"port":70000}]}}"#,
        ),
    ];
    for (field, text) in cases {
        let object = serde_json::from_str(text).context("read the case")?;
        match world.kubernetes.apply(object).await {
            Ok(()) => bail!("{text} was accepted"),
            Err(error) => {
                let message = format!("{error:#}");
                ensure!(message.contains(field), "{message:?} does not name {field}");
            }
        }
    }
    Ok(Verdict::Passed)
}

/// Pods live on without their node agent, and what happened meanwhile is made up for.
async fn node_agent_restart(world: &mut World) -> Result<()> {
    let pod = |name: &str| {
        serde_json::json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {
                "nodeSelector": {"kubernetes.io/hostname": "node1"},
                "terminationGracePeriodSeconds": 1,
                "containers": [{"name": "c", "image": "towline.dev/agnhost", "args": ["netexec"]}]
            }
        })
    };
    for name in ["stays", "goes"] {
        world.kubernetes.apply(pod(name)).await?;
        world.kubernetes.wait_ready("default", name, LIMIT).await?;
    }
    let before = world.kubernetes.pod("default", "stays").await?;
    let agent = world.cluster.process("node1", NODE_AGENT)?.clone();
    agent.end(Signal::SIGKILL, LIMIT)?;
    world
        .kubernetes
        .delete("v1", "Pod", "default", "goes")
        .await?;
    world.kubernetes.apply(pod("comes")).await?;
    world.cluster.start_node_agent(NodeId(1))?;
    world.kubernetes.wait_gone("default", "goes", LIMIT).await?;
    world
        .kubernetes
        .wait_ready("default", "comes", LIMIT)
        .await?;
    let after = world
        .kubernetes
        .wait_ready("default", "stays", LIMIT)
        .await?;
    let seen = |pod: &Pod| {
        let status = pod.status.clone().unwrap_or_default();
        let containers = status.container_statuses.unwrap_or_default();
        (
            status.pod_ip,
            containers
                .into_iter()
                .map(|c| (c.container_id, c.restart_count))
                .collect::<Vec<_>>(),
        )
    };
    ensure!(
        seen(&before) == seen(&after),
        "{:?} became {:?}",
        seen(&before),
        seen(&after)
    );
    for name in ["stays", "comes"] {
        world
            .kubernetes
            .delete("v1", "Pod", "default", name)
            .await?;
        world.kubernetes.wait_gone("default", name, LIMIT).await?;
    }
    Ok(())
}

fn lab(out: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(out.join("lab"));
    command
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn second_up(out: &Path) -> Result<Verdict> {
    let output = lab(out, &["up", "--name", SHARED])
        .output()
        .context("run lab")?;
    ensure!(!output.status.success(), "it was accepted");
    ensure!(said(&output).contains("already up"), "{}", said(&output));
    Ok(Verdict::Passed)
}

/// Starts `lab demo` and waits until the cluster is half made.
fn half_made(out: &Path) -> Result<Child> {
    let mut child = lab(out, &["demo", "--name", VICTIM])
        .spawn()
        .context("run lab")?;
    let layout = Layout::new(&VICTIM.parse()?);
    let started = until(
        "a node's daemons are started",
        Duration::from_secs(60),
        || {
            if let Some(status) = child.try_wait().context("look at lab")? {
                bail!("lab ended: {status}");
            }
            let text = std::fs::read_to_string(layout.state_file()).unwrap_or_default();
            Ok(if text.contains("node1/node-agent") {
                Ok(())
            } else {
                Err("not yet".to_owned())
            })
        },
    );
    if started.is_err() {
        child.kill().context("end lab")?;
    }
    started.map(|()| child)
}

fn signal(child: &Child, signal: Signal) -> Result<()> {
    let pid = i32::try_from(child.id()).context("pid out of range")?;
    Process::of(pid)?.signal(signal).map(drop)
}

fn interrupted(out: &Path, clean: &Snapshot) -> Result<Verdict> {
    let child = half_made(out)?;
    let namespaces = namespaces_of(VICTIM)?;
    signal(&child, Signal::SIGINT)?;
    let output = child.wait_with_output().context("wait for lab")?;
    ensure!(!output.status.success(), "it claims success");
    ensure!(said(&output).contains("interrupted"), "{}", said(&output));
    clean.expect_nothing_new(&namespaces)?;
    Ok(Verdict::Passed)
}

fn killed(out: &Path, clean: &Snapshot) -> Result<Verdict> {
    let child = half_made(out)?;
    let namespaces = namespaces_of(VICTIM)?;
    signal(&child, Signal::SIGKILL)?;
    child.wait_with_output().context("wait for lab")?;
    let output = lab(out, &["down", "--name", VICTIM])
        .output()
        .context("run lab")?;
    ensure!(output.status.success(), "{}", said(&output));
    clean.expect_nothing_new(&namespaces)?;
    Ok(Verdict::Passed)
}

/// As another user, on a copy that this user may run.
fn without_root(out: &Path) -> Result<Verdict> {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    let dir = tempfile::tempdir().context("make a folder")?;
    let copy = dir.path().join("lab");
    std::fs::copy(out.join("lab"), &copy).context("copy lab")?;
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755))
        .context("chmod")?;
    let output = Command::new(&copy)
        .arg("up")
        .uid(65534)
        .gid(65534)
        .output()
        .context("run lab")?;
    ensure!(!output.status.success(), "it was accepted");
    ensure!(
        said(&output).contains("run it as root"),
        "{}",
        said(&output)
    );
    Ok(Verdict::Passed)
}

fn bad_flags(out: &Path) -> Result<Verdict> {
    for (args, field) in [
        (["up", "--name", "../x"], "--name"),
        (["up", "--nodes", "0"], "--nodes"),
        (["up", "--mtu", "9"], "--mtu"),
        (["up", "--backend", "ipx"], "--backend"),
        (["up", "--leases", "file"], "--leases"),
    ] {
        let output = lab(out, &args).output().context("run lab")?;
        ensure!(!output.status.success(), "{args:?} was accepted");
        ensure!(said(&output).contains(field), "{}", said(&output));
    }
    Ok(Verdict::Passed)
}
