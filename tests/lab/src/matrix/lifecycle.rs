//! Checks that change the cluster: daemons killed under load, pods replaced.

use std::net::IpAddr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Child;

use super::workloads::{DEMO, ECHO, HTTP, POLICY, SERVERS, pod, service};
use super::world::{POD_LIMIT, World};
use super::{Ask, Expect, From, Pod, Source, To, ask};
use crate::applet::{Protocol, StreamReport};
use crate::client::pod_ip;
use crate::daemons::TOWLINED;
use crate::layout::NodeId;
use crate::node;

const CLIENT: Pod = Pod(DEMO, "client-1");

/// Kills towlined on every node while connections are busy. They must all survive, new ones must work
/// meanwhile, and after the restart what changed in between must be in force.
pub(super) async fn restart(world: &mut World) -> Result<String> {
    let targets = [
        To::Pod(Pod(DEMO, "server-1"), ECHO),
        To::Pod(Pod(DEMO, "server-2"), ECHO),
        To::Service(DEMO, "server", 82),
    ];
    let mut streams = Vec::new();
    for target in targets {
        streams.push(Load::start(world, target).await?);
    }
    let nodes = world.cluster.nodes().to_vec();
    for node in &nodes {
        let process = world.cluster.process(&node.name(), TOWLINED)?.clone();
        process.end(Signal::SIGKILL, Duration::from_secs(5))?;
    }
    new_connections(world)
        .await
        .context("while towlined is down")?;
    world
        .kubernetes
        .apply(service(DEMO, "late", "server"))
        .await?;
    world
        .kubernetes
        .wait_endpoints(DEMO, "late", SERVERS.len(), POD_LIMIT)
        .await?;
    for node in &nodes {
        world.cluster.start_towlined(*node)?;
    }
    for node in &nodes {
        world.cluster.wait_towlined(*node)?;
    }
    let late = To::Service(DEMO, "late", 80);
    answered(world, late, SERVERS.to_vec())
        .await
        .context("a Service made meanwhile")?;
    new_connections(world).await.context("after the restart")?;
    let (mut connections, mut exchanges, mut gap) = (0, 0, 0);
    for stream in streams {
        let report = stream.stop().await?;
        if !report.failures.is_empty() {
            bail!(
                "{} connections lost: {}",
                report.failures.len(),
                report.failures[0]
            );
        }
        connections += report.connections;
        exchanges += report.exchanges;
        gap = gap.max(report.longest_gap_ms);
    }
    world
        .kubernetes
        .delete("v1", "Service", DEMO, "late")
        .await?;
    Ok(format!(
        "{connections} connections, {exchanges} exchanges, longest {gap} ms"
    ))
}

async fn new_connections(world: &World) -> Result<()> {
    answered(
        world,
        To::Pod(Pod(DEMO, "server-1"), HTTP),
        vec!["server-1"],
    )
    .await?;
    answered(
        world,
        To::Pod(Pod(DEMO, "server-2"), HTTP),
        vec!["server-2"],
    )
    .await?;
    answered(world, To::Service(DEMO, "server", 80), SERVERS.to_vec()).await
}

async fn answered(world: &World, to: To, by: Vec<&'static str>) -> Result<()> {
    let question = Ask {
        from: From::Pod(CLIENT),
        to,
        protocol: Protocol::Http,
        count: 40,
    };
    ask::check(world, &question, &Expect::Answered(by, Source::Caller))
        .await
        .map(drop)
}

/// Busy connections from the client pod.
struct Load {
    child: Child,
    output: BufReader<tokio::process::ChildStdout>,
}

impl Load {
    async fn start(world: &World, to: To) -> Result<Self> {
        let target = world.target(to).await?;
        let args = [
            "stream".to_owned(),
            "--connections=8".to_owned(),
            target.to_string(),
        ];
        let mut command = world.applet(From::Pod(CLIENT), &args).await?;
        let mut child = command
            .stdin(Stdio::piped())
            .spawn()
            .context("start the load")?;
        let mut output = BufReader::new(child.stdout.take().context("the load has no output")?);
        let mut line = String::new();
        output
            .read_line(&mut line)
            .await
            .context("wait for the load")?;
        if line.trim() != "ready" {
            let mut error = String::new();
            if let Some(mut stderr) = child.stderr.take() {
                stderr
                    .read_to_string(&mut error)
                    .await
                    .context("read the load's error")?;
            }
            bail!("load on {target} did not start: {}", error.trim());
        }
        Ok(Self { child, output })
    }

    async fn stop(mut self) -> Result<StreamReport> {
        // The end of its input tells it to report.
        drop(self.child.stdin.take());
        let mut text = String::new();
        self.output
            .read_to_string(&mut text)
            .await
            .context("read the load's report")?;
        self.child.wait().await.context("wait for the load's end")?;
        serde_json::from_str(&text).with_context(|| format!("the load's report {text:?}"))
    }
}

/// Deletes a pod that policy lets in and gives its address to one that it does not, and back.
pub(super) async fn reuse(world: &mut World) -> Result<String> {
    world
        .kubernetes
        .apply_yaml(super::workloads::INGRESS)
        .await?;
    let first = create(world, "reuse-a", "good", None).await?;
    expect(world, "reuse-a", any())
        .await
        .context("the first pod is allowed")?;
    remove(world, "reuse-a").await?;
    let second = create(world, "reuse-b", "bad", Some(first)).await?;
    expect(world, "reuse-b", Expect::Denied)
        .await
        .context("the second pod is denied")?;
    remove(world, "reuse-b").await?;
    let third = create(world, "reuse-a", "good", Some(first)).await?;
    expect(world, "reuse-a", any())
        .await
        .context("the pod made again is allowed")?;
    remove(world, "reuse-a").await?;
    let policy = (
        "networking.k8s.io/v1",
        "NetworkPolicy",
        POLICY,
        "target-ingress",
    );
    world
        .kubernetes
        .delete(policy.0, policy.1, policy.2, policy.3)
        .await?;
    if [second, third] != [first, first] {
        bail!("addresses {first}, {second}, {third} should be one");
    }
    Ok(format!("{first} three times"))
}

fn any() -> Expect {
    Expect::Answered(vec!["target-1"], Source::Caller)
}

async fn expect(world: &World, name: &'static str, expect: Expect) -> Result<()> {
    let question = Ask {
        from: From::Pod(Pod(POLICY, name)),
        to: To::Pod(Pod(POLICY, "target-1"), HTTP),
        protocol: Protocol::Http,
        count: 2,
    };
    ask::check(world, &question, &expect).await.map(drop)
}

/// Creates a pod on node 2, which gets the address `wanted` if one is given.
async fn create(world: &World, name: &str, app: &str, wanted: Option<IpAddr>) -> Result<IpAddr> {
    if let Some(IpAddr::V4(wanted)) = wanted {
        // host-local hands out the address after the last one it reserved.
        let before = std::net::Ipv4Addr::from_bits(wanted.to_bits() - 1);
        node::run_in(world.cluster.layout(), NodeId(2), || {
            let path = "/var/lib/cni/networks/towline/last_reserved_ip.0";
            std::fs::write(path, before.to_string()).with_context(|| format!("write {path}"))
        })?;
    }
    world
        .kubernetes
        .apply(pod(POLICY, name, app, NodeId(2)))
        .await?;
    pod_ip(&world.kubernetes.wait_ready(POLICY, name, POD_LIMIT).await?)
}

async fn remove(world: &World, name: &str) -> Result<()> {
    world.kubernetes.delete("v1", "Pod", POLICY, name).await?;
    world.kubernetes.wait_gone(POLICY, name, POD_LIMIT).await
}
