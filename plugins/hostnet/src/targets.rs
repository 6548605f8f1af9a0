//! Routes, neighbours and forwarding entries as Targets: only what the daemon owns.

use std::collections::BTreeMap;
use std::net::IpAddr;

use netstate::{
    FdbEntry, FdbKey, IfName, MacAddr, Neighbour, NeighbourKey, Route, RouteKey, Target,
};

use crate::error::{Error, Result};
use crate::routes::PROTOCOL_TOWLINE;
use crate::socket::Netlink;

/// The routes with the daemon's protocol number, in every table but the local one.
#[derive(Debug)]
pub struct RouteTarget {
    netlink: Netlink,
}

/// The permanent neighbours on one device of ours.
#[derive(Debug)]
pub struct NeighbourTarget {
    netlink: Netlink,
    device: IfName,
}

/// The permanent forwarding entries of one VXLAN device of ours.
#[derive(Debug)]
pub struct FdbTarget {
    netlink: Netlink,
    device: IfName,
}

// === impl RouteTarget ===

impl RouteTarget {
    /// Works on `netlink`'s namespace.
    #[must_use]
    pub const fn new(netlink: Netlink) -> Self {
        Self { netlink }
    }

    /// By which number the kernel tells of what is done through this.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn port(&self) -> Result<u32> {
        self.netlink.port()
    }
}

impl Target for RouteTarget {
    type Key = RouteKey;
    type Value = Route;
    type Error = Error;

    fn observe(&mut self) -> Result<BTreeMap<RouteKey, Route>> {
        let routes = self.netlink.routes_of_any_kind(Some(PROTOCOL_TOWLINE))?;
        Ok(routes.into_iter().map(|route| (route.key, route)).collect())
    }

    fn put(&mut self, key: &RouteKey, value: &Route) -> Result<()> {
        if *key != value.key {
            return Err(Error::invalid(
                "set route",
                key,
                format!("its value is {}", value.key),
            ));
        }
        self.netlink.replace_route(value, PROTOCOL_TOWLINE)
    }

    fn delete(&mut self, key: &RouteKey) -> Result<()> {
        self.netlink.delete_route(key, None, Some(PROTOCOL_TOWLINE))
    }
}

// === impl NeighbourTarget ===

impl NeighbourTarget {
    /// Works on `device` in `netlink`'s namespace; the device may come later.
    #[must_use]
    pub const fn new(netlink: Netlink, device: IfName) -> Self {
        Self { netlink, device }
    }
}

impl Target for NeighbourTarget {
    type Key = NeighbourKey;
    type Value = MacAddr;
    type Error = Error;

    fn observe(&mut self) -> Result<BTreeMap<NeighbourKey, MacAddr>> {
        let found = self.netlink.neighbours(&self.device)?;
        // The kernel adds multicast neighbours of its own.
        let ours = found.into_iter().filter(|n| !n.key.ip.is_multicast());
        Ok(ours
            .map(|neighbour| (neighbour.key, neighbour.mac))
            .collect())
    }

    fn put(&mut self, key: &NeighbourKey, value: &MacAddr) -> Result<()> {
        self.netlink.set_neighbour(&Neighbour {
            key: key.clone(),
            mac: *value,
        })
    }

    fn delete(&mut self, key: &NeighbourKey) -> Result<()> {
        self.netlink.delete_neighbour(key)
    }
}

// === impl FdbTarget ===

impl FdbTarget {
    /// Works on `device` in `netlink`'s namespace; the device may come later.
    #[must_use]
    pub const fn new(netlink: Netlink, device: IfName) -> Self {
        Self { netlink, device }
    }
}

impl Target for FdbTarget {
    type Key = FdbKey;
    type Value = IpAddr;
    type Error = Error;

    fn observe(&mut self) -> Result<BTreeMap<FdbKey, IpAddr>> {
        let found = self.netlink.fdb(&self.device)?;
        Ok(found
            .into_iter()
            .map(|entry| (entry.key, entry.remote))
            .collect())
    }

    fn put(&mut self, key: &FdbKey, value: &IpAddr) -> Result<()> {
        self.netlink.set_fdb(&FdbEntry {
            key: key.clone(),
            remote: *value,
        })
    }

    fn delete(&mut self, key: &FdbKey) -> Result<()> {
        self.netlink.delete_fdb(key)
    }
}
