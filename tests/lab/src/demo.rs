//! A cluster brought up, checked, and taken down again, whatever happens in between.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{SignalKind, signal};

use crate::client::Kubernetes;
use crate::cluster::{self, Cluster, Options};
use crate::diagnose;
use crate::layout::Layout;
use crate::matrix::{self, Outcome, Tally, World};
use crate::overlay::LeaseStore;

/// Longest until all nodes are ready.
const NODES_LIMIT: Duration = Duration::from_secs(60);

/// Brings a cluster up with all its daemons, and waits until every node is ready. On any failure, and
/// when a signal comes, a diagnosis is shown and everything is removed.
///
/// # Errors
/// What went wrong first.
pub async fn bring_up(options: &Options) -> Result<World> {
    if Layout::new(&options.name).root().exists() {
        let name = &options.name;
        bail!("lab {name} is already up: `lab down --name {name}` first, or choose another --name");
    }
    guarded(options, start(options)).await
}

async fn start(options: &Options) -> Result<World> {
    let mut cluster = Cluster::create(options)?;
    cluster.start_control_plane()?;
    if options.overlay.leases == LeaseStore::Etcd {
        cluster.start_etcd()?;
    }
    for node in cluster.nodes().to_vec() {
        cluster.start_node(node)?;
    }
    let kubernetes = Kubernetes::connect(&cluster.layout().kubeconfig()).await?;
    kubernetes
        .wait_nodes(cluster.nodes().len(), NODES_LIMIT)
        .await?;
    for node in cluster.nodes() {
        cluster.wait_towlined(*node)?;
    }
    Ok(World {
        cluster,
        kubernetes,
    })
}

/// Runs `work`; if it fails or a signal comes, shows a diagnosis and removes the cluster.
async fn guarded<T>(options: &Options, work: impl Future<Output = Result<T>>) -> Result<T> {
    let mut interrupt = signal(SignalKind::interrupt()).context("handle SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("handle SIGTERM")?;
    let result = tokio::select! {
        result = work => result,
        _ = interrupt.recv() => Err(anyhow::anyhow!("interrupted")),
        _ = terminate.recv() => Err(anyhow::anyhow!("told to stop")),
    };
    if result.is_err() {
        eprintln!("{}", diagnose::report(&Layout::new(&options.name)));
        cluster::remove(&options.name)?;
    }
    result
}

/// Runs the matrix on a cluster that is up, printing each line and the last one.
pub async fn check(world: &mut World) -> Tally {
    let plan = matrix::plan();
    let tally = matrix::run(world, &plan, |outcome: &Outcome| {
        println!("{}", outcome.line());
    })
    .await;
    for outcome in &tally.outcomes {
        if let Err(why) = &outcome.result
            && why.lines().count() > 1
        {
            println!("--- {}\n{why}", outcome.name);
        }
    }
    println!("{}", tally.summary());
    tally
}

/// The whole demonstration; the cluster is gone at the end unless `keep` is set. Gives the number of
/// failed checks.
///
/// # Errors
/// When the cluster cannot be brought up or removed.
pub async fn demo(options: &Options, keep: bool) -> Result<usize> {
    if options.nodes < matrix::NODES {
        bail!(
            "--nodes {}: the checks need at least {}",
            options.nodes,
            matrix::NODES
        );
    }
    let start = Instant::now();
    println!(
        "{} nodes come up in network namespaces; {}",
        options.nodes, options.overlay
    );
    let mut world = bring_up(options).await?;
    println!(
        "ready after {:.1} s; workloads are applied",
        start.elapsed().as_secs_f32()
    );
    let tally = guarded(options, async { Ok(check(&mut world).await) }).await?;
    if tally.failed() > 0 {
        eprintln!("{}", diagnose::report(world.cluster.layout()));
    }
    if keep {
        println!(
            "export KUBECONFIG={}",
            world.cluster.layout().kubeconfig().display()
        );
    } else {
        cluster::remove(&options.name)?;
    }
    Ok(tally.failed())
}
