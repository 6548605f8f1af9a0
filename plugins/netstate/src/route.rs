//! Routes.

use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::names::IfName;

/// Number of the main routing table.
pub const MAIN_TABLE: u32 = 254;

/// How far a destination is: the kernel's route scopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Scope {
    /// Beyond a gateway.
    Universe,
    /// Within the site (IPv6, deprecated).
    Site,
    /// On the attached link.
    Link,
    /// On this host.
    Host,
    /// A destination that does not exist.
    Nowhere,
}

/// What makes a route itself: two routes with one key cannot be told apart by a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RouteKey {
    /// Destination prefix, host bits zero.
    pub destination: IpNetwork,
    /// Routing table.
    pub table: u32,
    /// Metric. For IPv6 the kernel's default of 1024 is written 0.
    pub priority: u32,
}

/// What becomes of a packet to the destination.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum RouteKind {
    /// It goes to the next hop.
    #[default]
    Unicast,
    /// It is discarded silently.
    Blackhole,
}

/// A route with one next hop, or none if it is a black hole.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Route {
    /// What makes it itself.
    pub key: RouteKey,
    /// What becomes of packets.
    #[serde(default)]
    pub kind: RouteKind,
    /// Next hop.
    pub gateway: Option<IpAddr>,
    /// Interface it leaves by.
    pub device: Option<IfName>,
    /// Preferred source address of what this host sends.
    pub source: Option<IpAddr>,
    /// Scope; `None` is what the kernel chooses itself: link without a gateway, else universe.
    pub scope: Option<Scope>,
    /// The gateway is reachable on the device though no address says so.
    pub onlink: bool,
    /// Path MTU in bytes.
    pub mtu: Option<u32>,
    /// TCP segment size to advertise, in bytes.
    pub advmss: Option<u32>,
}

// === impl Scope ===

impl Scope {
    /// The kernel's number (`enum rt_scope_t`).
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Universe => 0,
            Self::Site => 200,
            Self::Link => 253,
            Self::Host => 254,
            Self::Nowhere => 255,
        }
    }

    /// The scope with the kernel's `number`, if it is one of the five.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Universe),
            200 => Some(Self::Site),
            253 => Some(Self::Link),
            254 => Some(Self::Host),
            255 => Some(Self::Nowhere),
            _ => None,
        }
    }
}

// === impl RouteKey ===

impl RouteKey {
    /// A destination in the main table at the default metric.
    #[must_use]
    pub fn main(destination: IpNetwork) -> Self {
        Self {
            destination: masked(destination),
            table: MAIN_TABLE,
            priority: 0,
        }
    }
}

impl fmt::Display for RouteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} table {} metric {}",
            self.destination, self.table, self.priority
        )
    }
}

// === impl Route ===

impl Route {
    /// A route in the main table out of `device`, with nothing else set.
    #[must_use]
    pub fn via_device(destination: IpNetwork, device: IfName) -> Self {
        Self {
            key: RouteKey::main(destination),
            kind: RouteKind::Unicast,
            gateway: None,
            device: Some(device),
            source: None,
            scope: None,
            onlink: false,
            mtu: None,
            advmss: None,
        }
    }

    /// A black hole in the main table, at the lowest precedence there is: any other route to the
    /// same destination wins.
    #[must_use]
    pub fn blackhole(destination: IpNetwork) -> Self {
        Self {
            key: RouteKey {
                priority: u32::MAX,
                ..RouteKey::main(destination)
            },
            kind: RouteKind::Blackhole,
            gateway: None,
            device: None,
            source: None,
            scope: None,
            onlink: false,
            mtu: None,
            advmss: None,
        }
    }

    /// The same route through `gateway`.
    #[must_use]
    pub fn gateway(mut self, gateway: IpAddr) -> Self {
        self.gateway = Some(gateway);
        self
    }

    /// The same route with `source` as preferred source address.
    #[must_use]
    pub fn source(mut self, source: IpAddr) -> Self {
        self.source = Some(source);
        self
    }

    /// The same route with a gateway that no address makes reachable.
    #[must_use]
    pub fn onlink(mut self) -> Self {
        self.onlink = true;
        self
    }

    /// The scope the kernel is told: the wished one, else link without a gateway (IPv4), else
    /// universe.
    #[must_use]
    pub fn effective_scope(&self) -> Scope {
        match self.scope {
            Some(scope) => scope,
            None if self.kind == RouteKind::Blackhole => Scope::Universe,
            None if self.gateway.is_none() && self.key.destination.is_ipv4() => Scope::Link,
            None => Scope::Universe,
        }
    }
}

/// `network` with its host bits zeroed.
#[must_use]
pub fn masked(network: IpNetwork) -> IpNetwork {
    match network {
        IpNetwork::V4(v4) => ipnetwork::Ipv4Network::new_checked(v4.network(), v4.prefix())
            .map_or(network, IpNetwork::V4),
        IpNetwork::V6(v6) => ipnetwork::Ipv6Network::new_checked(v6.network(), v6.prefix())
            .map_or(network, IpNetwork::V6),
    }
}

/// `ip` alone: /32 or /128.
#[must_use]
pub fn host(ip: IpAddr) -> IpNetwork {
    IpNetwork::from(ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_bits_do_not_make_another_destination() {
        let a = RouteKey::main("10.1.2.3/24".parse().unwrap());
        let b = RouteKey::main("10.1.2.0/24".parse().unwrap());
        assert_eq!(a, b);
        assert_eq!(host("fd00::1".parse().unwrap()).to_string(), "fd00::1/128");
    }

    #[test]
    fn scope_follows_gateway_and_family() {
        let device: IfName = "eth0".parse().unwrap();
        let route = Route::via_device("10.1.2.0/24".parse().unwrap(), device.clone());
        assert_eq!(route.effective_scope(), Scope::Link);
        let route = route.gateway("10.1.1.1".parse().unwrap());
        assert_eq!(route.effective_scope(), Scope::Universe);
        let route = Route::via_device("fd00::/64".parse().unwrap(), device);
        assert_eq!(route.effective_scope(), Scope::Universe);
    }

    #[test]
    fn scope_numbers_round_trip() {
        for number in 0..=u8::MAX {
            if let Some(scope) = Scope::from_number(number) {
                assert_eq!(scope.number(), number);
            }
        }
    }
}
