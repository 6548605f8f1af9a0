//! Neighbour (ARP, NDP) and forwarding database entries, permanent ones only.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::mac::MacAddr;
use crate::names::IfName;

/// An IP address on a link.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NeighbourKey {
    /// The link.
    pub device: IfName,
    /// The neighbour's address.
    pub ip: IpAddr,
}

/// A permanent neighbour: address and link to Ethernet address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Neighbour {
    /// Where it is.
    pub key: NeighbourKey,
    /// Its Ethernet address.
    pub mac: MacAddr,
}

/// An Ethernet address behind a VXLAN device.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FdbKey {
    /// The VXLAN device.
    pub device: IfName,
    /// The Ethernet address that frames are sent to.
    pub mac: MacAddr,
}

/// A permanent forwarding entry of a VXLAN device: Ethernet address to remote tunnel endpoint.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FdbEntry {
    /// Which frames.
    pub key: FdbKey,
    /// The endpoint's outer address.
    pub remote: IpAddr,
}

impl fmt::Display for NeighbourKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} dev {}", self.ip, self.device)
    }
}

impl fmt::Display for FdbKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} dev {}", self.mac, self.device)
    }
}
