//! The lab's wires: an underlay namespace with a bridge, a veth to each node, and an outside host that
//! nodes reach only through the underlay's routing. Every link lives in a namespace of the lab.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::layout::{Layout, NodeId};
use crate::namespace::{self, Namespace};

/// Name of the namespace that plays the physical network.
pub const UNDERLAY: &str = "underlay";
/// Name of the namespace that plays a host outside the cluster.
pub const OUTSIDE: &str = "outside";
/// Address of the underlay's bridge, the nodes' default gateway.
pub const GATEWAY: &str = "172.30.0.1";
/// Address of the outside host (TEST-NET-3, RFC 5737).
pub const OUTSIDE_ADDRESS: &str = "203.0.113.10";

/// Creates the underlay and the outside host, wired together.
///
/// # Errors
/// When a namespace or link cannot be made.
pub fn create_underlay(layout: &Layout, mtu: u16) -> Result<()> {
    let underlay = layout.netns(UNDERLAY);
    let outside = layout.netns(OUTSIDE);
    namespace::create_netns(&underlay)?;
    namespace::create_netns(&outside)?;
    ip(
        &underlay,
        &format!(
            "link set lo up\n\
             link add underlay mtu {mtu} type bridge stp_state 0 forward_delay 0\n\
             link set underlay up\n\
             addr add {GATEWAY}/24 dev underlay\n\
             link add outside mtu {mtu} type veth peer name eth0 mtu {mtu} netns {}\n\
             link set outside up\n\
             addr add 203.0.113.1/24 dev outside\n",
            outside.display()
        ),
    )?;
    ip(
        &outside,
        &format!(
            "link set lo up\n\
             addr add {OUTSIDE_ADDRESS}/24 dev eth0\n\
             link set eth0 up\n\
             route add default via 203.0.113.1\n"
        ),
    )?;
    forward(&underlay)
}

/// Creates a node's network namespace and plugs it into the underlay as `eth0`.
///
/// # Errors
/// When the namespace or a link cannot be made.
pub fn create_node(layout: &Layout, node: NodeId, mtu: u16) -> Result<()> {
    let netns = layout.netns(&node.name());
    namespace::create_netns(&netns)?;
    let port = node.name();
    ip(
        &layout.netns(UNDERLAY),
        &format!(
            "link add {port} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {}\n\
             link set {port} master underlay up\n",
            netns.display()
        ),
    )?;
    ip(
        &netns,
        &format!(
            "link set lo up\n\
             addr add {}/24 dev eth0\n\
             link set eth0 up\n\
             route add default via {GATEWAY}\n",
            node.address()
        ),
    )?;
    forward(&netns)
}

/// Forwarding on, as an administrator prepares a Kubernetes node.
fn forward(netns: &Path) -> Result<()> {
    let netns = Namespace::net(netns)?;
    namespace::run_in(&[&netns], || {
        // Unlike sysfs, /proc/sys/net shows the namespace of whoever opens it.
        for (key, value) in [("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")] {
            let path = format!("/proc/sys/net/{key}");
            std::fs::write(&path, value).with_context(|| format!("write {value} to {path}"))?;
        }
        Ok(())
    })
}

/// Runs a batch of `ip` commands inside a network namespace.
fn ip(netns: &Path, batch: &str) -> Result<()> {
    let netns = Namespace::net(netns)?;
    namespace::run_in(&[&netns], || {
        let mut child = Command::new("ip")
            .args(["-batch", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("run `ip`: install iproute2 (`make setup`)")?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin
                .write_all(batch.as_bytes())
                .context("write to `ip -batch`")?;
        }
        let output = child.wait_with_output().context("wait for `ip`")?;
        if !output.status.success() {
            bail!(
                "ip: {}\nbatch:\n{batch}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(())
    })
}
