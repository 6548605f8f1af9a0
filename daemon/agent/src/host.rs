//! What the loops need to know of this host, observed anew in each pass.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use desired::cluster::Cluster;
use hostnet::{Netlink, Result};
use ipnetwork::IpNetwork;
use netstate::IfName;

use crate::endpoint::Endpoints;
use crate::reconcile::MARK;
use crate::store::Store;
use crate::uplink::Interface;

/// All interfaces with their addresses, in the kernel's order, but those that cannot be counted on
/// (deprecated, temporary, still being checked for duplicates) last. One that somebody else has, too,
/// is none.
///
/// # Errors
/// When the kernel refuses to tell.
pub fn interfaces(netlink: &mut Netlink) -> Result<Vec<Interface>> {
    let mut addresses: BTreeMap<u32, Vec<IpNetwork>> = BTreeMap::new();
    let mut all = netlink.all_addresses()?;
    all.retain(|address| !address.dad_failed);
    all.sort_by_key(|address| (address.passing, address.tentative));
    for address in all {
        addresses.entry(address.index).or_default().push(address.ip);
    }
    let links = netlink.links()?;
    let interfaces = links.into_iter().map(|link| Interface {
        name: link.name,
        mtu: link.mtu,
        addresses: addresses.remove(&link.index).unwrap_or_default(),
        ours: link.alias == MARK,
    });
    Ok(interfaces.collect())
}

/// The interface of the main table's default route: IPv4's, or without `v4` IPv6's.
#[must_use]
pub fn default_device(v4: bool) -> Option<IfName> {
    let link = Netlink::open().ok()?.main_default_device(v4).ok()?;
    link.map(|link| link.name)
}

/// The addresses under which this node itself speaks and is spoken to.
///
/// # Errors
/// When the kernel refuses to tell.
pub fn addresses(netlink: &mut Netlink) -> Result<BTreeSet<IpAddr>> {
    let all = netlink.all_addresses()?;
    let addresses = all.into_iter().map(|address| address.ip.ip());
    Ok(addresses.filter(|ip| !ip.is_loopback()).collect())
}

/// The number of the interface called `name`, in this thread's network namespace.
#[must_use]
pub fn ifindex(name: &IfName) -> Option<u32> {
    nix::net::if_::if_nametoindex(name.as_str()).ok()
}

/// The kernel's release, as `uname -r` prints it; empty if it does not tell.
#[must_use]
pub fn kernel_release() -> String {
    let system = nix::sys::utsname::uname().ok();
    let release = system.map(|system| system.release().to_string_lossy().into_owned());
    release.unwrap_or_default()
}

/// Brings what a snapshot says of this host up to date, at the beginning of a pass.
pub trait Observer: Send {
    /// `cluster` with this host's addresses as they are now, and without endpoints whose
    /// interface is gone.
    fn observed(&mut self, cluster: &Arc<Cluster>) -> Arc<Cluster>;
}

/// Observes the host this daemon runs on, and tells the store what it saw.
pub struct HostObserver {
    netlink: Netlink,
    store: Arc<Store>,
    endpoints: Arc<Endpoints>,
}

// === impl HostObserver ===

impl HostObserver {
    /// Observes the network namespace of the calling thread.
    ///
    /// # Errors
    /// When no netlink socket can be opened.
    pub fn open(store: Arc<Store>, endpoints: Arc<Endpoints>) -> Result<Self> {
        Ok(Self {
            netlink: Netlink::open()?,
            store,
            endpoints,
        })
    }
}

impl Observer for HostObserver {
    fn observed(&mut self, cluster: &Arc<Cluster>) -> Arc<Cluster> {
        let mut observed = cluster.clone();
        for id in self.endpoints.drop_gone(cluster) {
            Arc::make_mut(&mut observed).local_endpoints.remove(&id);
        }
        match addresses(&mut self.netlink) {
            Ok(addresses) if addresses != observed.this_node.addresses => {
                self.store.set_addresses(&addresses);
                Arc::make_mut(&mut observed).this_node.addresses = addresses;
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "the node's addresses cannot be observed"),
        }
        observed
    }
}
