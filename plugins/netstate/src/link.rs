//! Network interfaces.

use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

use crate::mac::MacAddr;
use crate::names::{IfName, NetnsPath};
use crate::numbers::{Mtu, Vni};

/// An interface that should be or is.
///
/// As a wish, `None` leaves the choice to the kernel; as an observation everything is filled in
/// that the kernel tells.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Link {
    /// Its name.
    pub name: IfName,
    /// What it is.
    pub kind: LinkKind,
    /// Its Ethernet address.
    pub mac: Option<MacAddr>,
    /// Its MTU.
    pub mtu: Option<Mtu>,
    /// The bridge (or VRF) it is a port of.
    pub master: Option<IfName>,
    /// Where it is created; `None` where the one who creates it is. What it is made on, such as a
    /// macvlan's lower device, is always looked for where the creator is.
    pub netns: Option<NetnsPath>,
    /// Whether it is administratively up.
    pub up: bool,
}

/// What an interface is, with what only such an interface has.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum LinkKind {
    /// One end of a pair; creating it creates the other end too.
    Veth(VethPeer),
    /// A bridge without VLAN filtering.
    Bridge,
    /// A VXLAN tunnel device.
    Vxlan(Vxlan),
    /// An Ethernet address of its own on another device.
    Macvlan(Macvlan),
    /// IP addresses of its own on another device, with that device's Ethernet address.
    Ipvlan {
        /// The device it is on.
        lower: IfName,
        /// How it passes packets on.
        mode: IpvlanMode,
    },
    /// A tagged VLAN of another device.
    Vlan {
        /// The device it is on.
        lower: IfName,
        /// VLAN identifier, 0 to 4094.
        id: u16,
    },
    /// A device that drops what it is given.
    Dummy,
    /// A device whose only purpose is a queueing discipline on redirected packets.
    Ifb,
    /// IPv4 in IPv4, to wherever a route's gateway is.
    Ipip {
        /// Source address of encapsulated packets.
        local: Ipv4Addr,
    },
    /// An encrypted tunnel device. Its keys and peers are in [`crate::wireguard`].
    Wireguard,
    /// A routing domain: its ports' routes are in a table of their own.
    Vrf {
        /// Number of that table.
        table: u32,
    },
    /// Anything else, by the kernel's name for it (`loopback`, `ether`, …). Cannot be created.
    Other(String),
}

/// The other end of a new veth pair.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VethPeer {
    /// Its name.
    pub name: IfName,
    /// Where it is put; `None` beside the first end.
    pub netns: Option<NetnsPath>,
    /// Its Ethernet address.
    pub mac: Option<MacAddr>,
}

/// What a VXLAN device has beyond other devices.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
    /// Whether packets carry their mark (group based policy).
    #[serde(default)]
    pub gbp: bool,
}

/// What a macvlan device has beyond other devices.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Macvlan {
    /// The device it is on.
    pub lower: IfName,
    /// Who reaches whom.
    pub mode: MacvlanMode,
    /// Broadcast frames that may wait; `None` is the kernel's default (1000).
    pub broadcast_queue: Option<u32>,
}

/// Who reaches whom among macvlan devices of one lower device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum MacvlanMode {
    /// Nobody each other.
    Private,
    /// Each other through the switch outside, which must send frames back.
    Vepa,
    /// Each other directly.
    Bridge,
    /// There is only one, and it takes over the lower device.
    Passthru,
}

/// How an ipvlan device passes packets on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum IpvlanMode {
    /// Like a switch, broadcasts included.
    L2,
    /// Like a router, without broadcasts and without the host's netfilter.
    L3,
    /// Like a router, through the host's netfilter.
    L3s,
}

// === impl MacvlanMode ===

impl MacvlanMode {
    const ALL: [Self; 4] = [Self::Private, Self::Vepa, Self::Bridge, Self::Passthru];

    /// The mode called `name`.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.name() == name)
    }

    /// The mode with the kernel's `number` (`enum macvlan_mode`).
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.number() == number)
    }

    /// Its name, as in configurations.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::Vepa => "vepa",
            Self::Bridge => "bridge",
            Self::Passthru => "passthru",
        }
    }

    /// The kernel's number.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::Private => 1,
            Self::Vepa => 2,
            Self::Bridge => 4,
            Self::Passthru => 8,
        }
    }
}

// === impl IpvlanMode ===

impl IpvlanMode {
    const ALL: [Self; 3] = [Self::L2, Self::L3, Self::L3s];

    /// The mode called `name`.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.name() == name)
    }

    /// The mode with the kernel's `number` (`enum ipvlan_mode`).
    #[must_use]
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.number() == number)
    }

    /// Its name, as in configurations.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::L2 => "l2",
            Self::L3 => "l3",
            Self::L3s => "l3s",
        }
    }

    /// The kernel's number.
    #[must_use]
    pub const fn number(self) -> u16 {
        match self {
            Self::L2 => 0,
            Self::L3 => 1,
            Self::L3s => 2,
        }
    }
}

// === impl LinkKind ===

impl LinkKind {
    /// The device it is made on.
    #[must_use]
    pub const fn lower(&self) -> Option<&IfName> {
        match self {
            Self::Macvlan(Macvlan { lower, .. })
            | Self::Ipvlan { lower, .. }
            | Self::Vlan { lower, .. } => Some(lower),
            _ => None,
        }
    }
}

/// The VLANs of a bridge port.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PortVlans {
    /// Whether the port keeps those that it has from the bridge.
    pub keep: bool,
    /// The VLAN of untagged frames, in both directions.
    pub untagged: Option<u16>,
    /// Ranges of VLANs whose frames are tagged, both ends included.
    pub tagged: Vec<(u16, u16)>,
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
            netns: None,
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
