//! Taking the overlay off this node.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::Context as _;
use hostnet::{Netlink, RouteTarget};
use netstate::Target;
use serde::Serialize;

use super::plan::device_name;
use crate::config::NetConf;
use crate::reconcile::MARK;
use crate::reconcile::masquerade::MasqueradeLoop;
use crate::subnet_file::SubnetFiles;

/// What was there and is gone.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Removed {
    /// Destinations of routes.
    pub routes: Vec<String>,
    /// Overlay devices, and with them their addresses, neighbours and forwarding entries.
    pub devices: Vec<String>,
    /// Tables of rules.
    pub rules: Vec<String>,
    /// Subnet files.
    pub files: Vec<PathBuf>,
}

/// Removes this node's routes, devices, rules and subnet files of the overlay; what is gone
/// already is no error. Kernel parameters stay: others may rely on them by now. Blocking.
///
/// # Errors
/// What could not be removed first.
pub fn remove(
    net: &NetConf,
    mut files: SubnetFiles,
    masquerade: &mut MasqueradeLoop,
) -> anyhow::Result<Removed> {
    let mut removed = Removed::default();
    for path in files.observe().context("subnet files")?.into_keys() {
        let shown = || path.display().to_string();
        files.delete(&path).with_context(shown)?;
        removed.files.push(path);
    }
    let mut routes = RouteTarget::new(Netlink::open()?);
    for key in routes.observe()?.into_keys() {
        routes.delete(&key)?;
        removed.routes.push(key.destination.to_string());
    }
    let mut netlink = Netlink::open()?;
    let mut names = BTreeSet::new();
    for network in net.networks() {
        names.extend(device_name(&net.backend, network.is_ipv4())?);
    }
    for link in netlink.links()? {
        if link.alias == MARK || names.contains(&link.name) {
            netlink.delete_link(&link.name)?;
            removed.devices.push(link.name.to_string());
        }
    }
    removed.rules = masquerade.remove()?;
    Ok(removed)
}
