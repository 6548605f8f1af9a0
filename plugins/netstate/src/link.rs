//! Network interfaces.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::mac::MacAddr;
use crate::names::{IfName, NetnsPath};
use crate::numbers::{Mtu, Vni};

/// An interface that should be or is.
///
/// As a wish, `None` leaves the choice to the kernel; as an observation everything is filled in
/// that the kernel tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Its name.
    pub name: IfName,
    /// What it is.
    pub kind: LinkKind,
    /// Its Ethernet address.
    pub mac: Option<MacAddr>,
    /// Its MTU.
    pub mtu: Option<Mtu>,
    /// The bridge it is a port of.
    pub master: Option<IfName>,
    /// Whether it is administratively up.
    pub up: bool,
}

/// What an interface is, with what only such an interface has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum LinkKind {
    /// One end of a pair; creating it creates the other end too.
    Veth(VethPeer),
    /// A bridge without VLAN filtering.
    Bridge,
    /// A VXLAN tunnel device.
    Vxlan(Vxlan),
    /// Anything else, by the kernel's name for it (`loopback`, `ether`, …). Cannot be created.
    Other(String),
}

/// The other end of a new veth pair.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VethPeer {
    /// Its name.
    pub name: IfName,
    /// Where it is put; `None` beside the first end.
    pub netns: Option<NetnsPath>,
    /// Its Ethernet address.
    pub mac: Option<MacAddr>,
}

/// What a VXLAN device has beyond other devices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vxlan {
    /// Network identifier.
    pub vni: Vni,
    /// UDP port, host order.
    pub port: u16,
    /// Source address of encapsulated packets.
    pub local: Option<IpAddr>,
    /// Interface that encapsulated packets leave by.
    pub device: Option<IfName>,
    /// Whether source addresses are learned from traffic.
    pub learning: bool,
}

// === impl Link ===

impl Link {
    /// A link that is down, everything else left to the kernel.
    #[must_use]
    pub fn new(name: IfName, kind: LinkKind) -> Self {
        Self {
            name,
            kind,
            mac: None,
            mtu: None,
            master: None,
            up: false,
        }
    }

    /// The same link, up.
    #[must_use]
    pub fn up(mut self) -> Self {
        self.up = true;
        self
    }
}
