//! A node leaves the overlay by `towline node release`, and comes back by a restart.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use lab::daemons::TOWLINED;
use lab::layout::NodeId;
use lab::matrix::World;
use lab::node;
use lab::wait::until;
use nix::sys::signal::Signal;
use tokio::runtime::Runtime;

const LIMIT: Duration = Duration::from_secs(30);
/// The one that leaves, and one that stays.
const LEAVES: NodeId = NodeId(3);
const STAYS: NodeId = NodeId(1);

/// Runs it on a cluster that has pods everywhere.
///
/// # Errors
/// What is not as it should be.
pub fn check(world: &mut World, runtime: &Runtime) -> Result<()> {
    let subnet = subnet(world)?;
    let towline = format!("{}/towline", node::BIN_DIR);
    let towline =
        |world: &World, args: &[&str]| on(world, LEAVES, &[&[towline.as_str()], args].concat());
    let report = towline(world, &["node", "adopt"]).context("adopt")?;
    ensure!(report.contains("holds it"), "adopt says:\n{report}");
    let refused = towline(world, &["node", "release"]).err();
    let refused = format!("{:#}", refused.context("a node with pods was released")?);
    ensure!(
        refused.contains("would lose their network"),
        "release says: {refused}"
    );
    ensure!(has_route(world, &subnet)?, "no route to {subnet} before");

    let said = towline(world, &["node", "release", "--yes"]).context("release")?;
    ensure!(said.contains(&subnet), "release says:\n{said}");
    let left = on(world, LEAVES, &["ip", "route", "show", "proto", "84"])?;
    ensure!(left.is_empty(), "routes are left: {left}");
    let links = on(world, LEAVES, &["ip", "-brief", "link"])?;
    ensure!(!links.contains("flannel"), "a device is left: {links}");
    let tables = on(world, LEAVES, &["nft", "list", "tables"])?;
    ensure!(!tables.contains("towline"), "rules are left: {tables}");
    for file in ["/run/towline/subnet.env", "/run/flannel/subnet.env"] {
        let there = node::run_in(world.cluster.layout(), LEAVES, || {
            Ok(std::path::Path::new(file).exists())
        })?;
        ensure!(!there, "{file} is left");
    }
    route_to(world, &subnet, false)?;
    network(world, runtime, "True")?;

    let daemon = world.cluster.process(&LEAVES.name(), TOWLINED)?.clone();
    daemon.end(Signal::SIGTERM, LIMIT)?;
    world.cluster.start_towlined(LEAVES)?;
    network(world, runtime, "False")?;
    let again = self::subnet(world)?;
    route_to(world, &again, true)
}

/// What a program on a node prints.
fn on(world: &World, node: NodeId, argv: &[&str]) -> Result<String> {
    let mut command = world.cluster.command(&world.cluster.node_place(node))?;
    let output = command.args(argv).output().context("run node-agent")?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {error}", argv.join(" "));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The subnet that the leaving node's file names.
fn subnet(world: &World) -> Result<String> {
    let text = node::run_in(world.cluster.layout(), LEAVES, || {
        std::fs::read_to_string("/run/towline/subnet.env").context("read subnet.env")
    })?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("FLANNEL_SUBNET="));
    Ok(line.context("no FLANNEL_SUBNET")?.replace(".1/", ".0/"))
}

fn has_route(world: &World, subnet: &str) -> Result<bool> {
    let routes = on(world, STAYS, &["ip", "route", "show", subnet])?;
    Ok(!routes.is_empty())
}

fn route_to(world: &World, subnet: &str, wanted: bool) -> Result<()> {
    let what = format!("node1 has a route to {subnet}: {wanted}");
    until(&what, LIMIT, || {
        let there = has_route(world, subnet)?;
        Ok((there == wanted).then_some(()).ok_or_else(String::new))
    })
}

/// Waits until the Node's condition NetworkUnavailable is `wanted`.
fn network(world: &World, runtime: &Runtime, wanted: &str) -> Result<()> {
    let nodes = Api::<Node>::all(world.kubernetes.client());
    until(&format!("NetworkUnavailable is {wanted}"), LIMIT, || {
        let node = runtime.block_on(nodes.get(&LEAVES.name()))?;
        let conditions = node.status.and_then(|status| status.conditions);
        let found = conditions.into_iter().flatten();
        let found = found.filter(|condition| condition.type_ == "NetworkUnavailable");
        let found: Vec<String> = found.map(|condition| condition.status).collect();
        Ok((found == [wanted])
            .then_some(())
            .ok_or_else(|| format!("it is {found:?}")))
    })
}
