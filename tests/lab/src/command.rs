//! The lab's commands, one function each.

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::agent::environment::CONTAINER_PATH;
use crate::client::Kubernetes;
use crate::cluster::{self, Cluster, Options};
use crate::demo;
use crate::layout::ClusterName;
use crate::matrix::World;
use crate::node::BIN_DIR;
use crate::wire::OUTSIDE;

/// Brings a cluster up and leaves it running.
///
/// # Errors
/// What went wrong first; the cluster is removed then.
pub fn up(options: &Options) -> Result<ExitCode> {
    let world = runtime()?.block_on(demo::bring_up(options))?;
    println!(
        "export KUBECONFIG={}",
        world.cluster.layout().kubeconfig().display()
    );
    Ok(ExitCode::SUCCESS)
}

/// Brings a cluster up, runs the checks, removes it; fails when a check does.
///
/// # Errors
/// When the cluster cannot be brought up or removed.
pub fn demo(options: &Options, keep: bool) -> Result<ExitCode> {
    Ok(exit_code(runtime()?.block_on(demo::demo(options, keep))?))
}

/// Runs the checks on a cluster that is up; fails when one does.
///
/// # Errors
/// When the cluster is not up.
pub fn test(name: &ClusterName) -> Result<ExitCode> {
    let cluster = Cluster::open(name)?;
    runtime()?.block_on(async {
        let kubernetes = Kubernetes::connect(&cluster.layout().kubeconfig()).await?;
        let mut world = World {
            cluster,
            kubernetes,
        };
        Ok(exit_code(demo::check(&mut world).await.failed()))
    })
}

fn exit_code(failed: usize) -> ExitCode {
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Runtime::new().context("start the runtime")
}

/// Removes a cluster.
///
/// # Errors
/// When something resists.
pub fn down(name: &ClusterName) -> Result<ExitCode> {
    if !cluster::remove(name)? {
        println!("lab {name} was not up");
    }
    Ok(ExitCode::SUCCESS)
}

/// Becomes a command on a node, in a pod or on the outside host.
///
/// # Errors
/// When the place is unknown or the command cannot be run.
pub fn exec(name: &ClusterName, place: &str, command: &[OsString]) -> Result<ExitCode> {
    let cluster = Cluster::open(name)?;
    let place = match place.split_once('/') {
        Some((namespace, pod)) => {
            let pod = runtime()?.block_on(async {
                let kubernetes = Kubernetes::connect(&cluster.layout().kubeconfig()).await?;
                kubernetes.pod(namespace, pod).await
            })?;
            cluster.pod_place(&pod, None)?
        }
        None if place == OUTSIDE => cluster.outside_place(),
        None => cluster.node_place(cluster.node(place)?),
    };
    let mut enter = cluster.command(&place)?;
    // Where a node has its programs, `towline` among them.
    enter.env("PATH", format!("{BIN_DIR}:{CONTAINER_PATH}"));
    if place.pid.is_some() {
        // A pod does not see the caller's environment.
        enter
            .env_clear()
            .env("PATH", CONTAINER_PATH)
            .env("HOME", "/root");
        enter.env(
            "TERM",
            std::env::var_os("TERM").unwrap_or_else(|| "dumb".into()),
        );
    }
    Err(enter.args(command).exec()).context("run node-agent")
}

/// Prints the path of the kubeconfig.
///
/// # Errors
/// When the cluster is not up.
pub fn kubeconfig(name: &ClusterName) -> Result<ExitCode> {
    println!("{}", Cluster::open(name)?.layout().kubeconfig().display());
    Ok(ExitCode::SUCCESS)
}

/// Shows nodes and daemons; fails when a daemon is gone.
///
/// # Errors
/// When the cluster is not up.
pub fn status(name: &ClusterName) -> Result<ExitCode> {
    let cluster = Cluster::open(name)?;
    for node in cluster.nodes() {
        println!("{:<24} {}", node.name(), node.address());
    }
    let mut code = ExitCode::SUCCESS;
    for (key, process) in &cluster.state().processes {
        let running = process.is_running();
        if !running {
            code = ExitCode::FAILURE;
        }
        println!(
            "{key:<24} {} {}",
            process.pid,
            if running { "running" } else { "ended" }
        );
    }
    Ok(code)
}

/// Prints the logs of `owner`.
///
/// # Errors
/// When it has none.
pub fn logs(name: &ClusterName, owner: &str) -> Result<ExitCode> {
    let cluster = Cluster::open(name)?;
    let known = cluster
        .state()
        .processes
        .keys()
        .any(|key| key.split('/').next() == Some(owner));
    if !known {
        bail!("{owner:?} has no logs: try a node, or control-plane");
    }
    let dir = cluster.layout().log_dir(owner);
    for entry in std::fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))? {
        let path = entry
            .with_context(|| format!("list {}", dir.display()))?
            .path();
        println!("==> {} <==", path.display());
        let text = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        std::io::stdout().write_all(&text).context("write")?;
    }
    Ok(ExitCode::SUCCESS)
}
