//! The lab's commands, one function each.

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::cluster::{self, Cluster, Options};
use crate::diagnose;
use crate::layout::{ClusterName, Layout};
use crate::wire::OUTSIDE;

/// Brings a cluster up and leaves it running; on failure shows a diagnosis and removes it.
///
/// # Errors
/// What went wrong first.
pub fn up(options: &Options) -> Result<ExitCode> {
    let existed = Layout::new(&options.name).root().exists();
    match Cluster::create(options) {
        Ok(cluster) => {
            println!(
                "export KUBECONFIG={}",
                cluster.layout().kubeconfig().display()
            );
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            // A cluster that was up before is not ours to remove.
            if !existed {
                eprintln!("{}", diagnose::report(&Layout::new(&options.name)));
                cluster::remove(&options.name)?;
            }
            Err(error)
        }
    }
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
    let place = match place {
        OUTSIDE => cluster.outside_place(),
        node => cluster.node_place(cluster.node(node)?),
    };
    Err(cluster.command(&place)?.args(command).exec()).context("run node-agent")
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
