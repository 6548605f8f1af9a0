//! The host that flanneld runs on: its interface and its subnet file. It is asked and changed by the
//! programs that an administrator would use, and not by our own libraries, so that nobody agrees
//! with himself.

use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use ipnetwork::{Ipv4Network, Ipv6Network};
use serde_json::Value;

use super::Subnets;

/// The interface towards other nodes.
#[derive(Clone, Debug)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its MTU.
    pub mtu: u64,
    /// Its first address.
    pub v4: Ipv4Addr,
    /// Its first IPv6 address that is not link-local.
    pub v6: Option<Ipv6Addr>,
}

// === impl Interface ===

impl Interface {
    /// The interface called `name`.
    ///
    /// # Errors
    /// When it is not there, or has no IPv4 address.
    pub fn named(name: &str) -> Result<Self> {
        let shown = json("ip", &["-j", "addr", "show", "dev", name])?;
        let mtu = shown[0]["mtu"].as_u64().context("no MTU")?;
        let addresses = shown[0]["addr_info"].as_array().context("no addresses")?;
        let local = |family: &str| {
            let is_it = |one: &&Value| one["family"] == family && one["scope"] == "global";
            let found = addresses.iter().find(is_it)?;
            found["local"].as_str()
        };
        let v4 = local("inet").context("failed to find IPv4 address for interface")?;
        Ok(Self {
            name: name.to_owned(),
            mtu,
            v4: v4.parse()?,
            v6: local("inet6").map(str::parse).transpose()?,
        })
    }
}

/// `WriteSubnetFile`.
///
/// # Errors
/// When it cannot be written.
pub fn write_subnet_file(
    path: &Path,
    networks: (Ipv4Network, Option<Ipv6Network>),
    own: &Subnets,
    mtu: u64,
) -> Result<()> {
    let first = Ipv4Addr::from(u32::from(own.v4.ip()) + 1);
    let mut text = format!(
        "FLANNEL_NETWORK={}\nFLANNEL_SUBNET={first}/{}\n",
        networks.0,
        own.v4.prefix()
    );
    if let (Some(network), Some(v6)) = (networks.1, own.v6) {
        let first = Ipv6Addr::from(u128::from(v6.ip()) + 1);
        text += &format!(
            "FLANNEL_IPV6_NETWORK={network}\nFLANNEL_IPV6_SUBNET={first}/{}\n",
            v6.prefix()
        );
    }
    text += &format!("FLANNEL_MTU={mtu}\nFLANNEL_IPMASQ=true\n");
    // Renamed into place, so that nobody reads half of it.
    let temporary = path.with_extension("temporary");
    fs::write(&temporary, text)?;
    fs::rename(&temporary, path)?;
    Ok(())
}

/// The subnets that a subnet file speaks of, if there is one.
#[must_use]
pub fn read_subnet_file(path: &Path) -> Option<Subnets> {
    let text = fs::read_to_string(path).ok()?;
    let value = |key: &str| {
        let mut lines = text.lines();
        lines.find_map(|line| line.strip_prefix(key))
    };
    let v4: Ipv4Network = value("FLANNEL_SUBNET=")?.parse().ok()?;
    let v6 = value("FLANNEL_IPV6_SUBNET=");
    let v6: Option<Ipv6Network> = v6.and_then(|text| text.parse().ok());
    Some(Subnets {
        v4: Ipv4Network::new(v4.network(), v4.prefix()).ok()?,
        v6: v6.and_then(|v6| Ipv6Network::new(v6.network(), v6.prefix()).ok()),
    })
}

/// Runs a program, and returns what it prints.
pub(super) fn run(program: &str, arguments: &[&str]) -> Result<String> {
    run_with(program, arguments, "")
}

/// Whether a program ends well.
pub(super) fn succeeds(program: &str, arguments: &[&str]) -> bool {
    run(program, arguments).is_ok()
}

/// Runs a program that reads `input`, and returns what it prints.
pub(super) fn run_with(program: &str, arguments: &[&str], input: &str) -> Result<String> {
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.with_context(|| format!("run {program}"))?;
    let mut stdin = child.stdin.take().context("no stdin")?;
    // Who has ended already says why itself.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let done = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(
        done.status.success(),
        "{program} {}: {}{input}",
        arguments.join(" "),
        said.trim()
    );
    Ok(String::from_utf8(done.stdout)?)
}

/// What a program prints in JSON.
pub(super) fn json(program: &str, arguments: &[&str]) -> Result<Value> {
    Ok(serde_json::from_str(&run(program, arguments)?)?)
}
