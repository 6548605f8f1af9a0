//! The way to other nodes' pods: routes, and what the overlay devices need for them.
//!
//! The shapes are flannel's. With `vxlan` the peer's overlay device has the first address of its
//! pod prefix, so `PREFIX via .0 dev flannel.1 onlink`, a permanent neighbour `.0` at the peer's
//! MAC, and a forwarding entry from that MAC to the peer's public address. With `host-gw` the
//! peer's public address is the gateway. With `ipip` it is so too, on the tunnel device. With
//! `wireguard` one route leads the whole network to the device, which knows its peers by subnet.
//!
//! Routes to pods of this node are not here: the CNI plugin makes them.

mod admission;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use ipnetwork::IpNetwork;
use netstate::wireguard::PeerKey;
use netstate::{FdbEntry, FdbKey, IfName, MacAddr, Neighbour, NeighbourKey, Route, RouteKey, Vni};

pub use admission::RouteProblem;

use crate::cluster::{Announced, Backend, Cluster, Lease};
use admission::Admission;

/// This node's part in the overlay, each family's apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overlay {
    /// When the cluster has an IPv4 pod network.
    pub v4: Option<Underlay>,
    /// When the cluster has an IPv6 pod network.
    pub v6: Option<Underlay>,
    /// Packets to addresses of this node's subnets that no pod has are discarded, instead of being
    /// sent to wherever the default route leads.
    pub blackhole: bool,
}

/// How packets of one family leave this node for others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Underlay {
    /// The address that this node announces.
    pub public_ip: IpAddr,
    /// The interface towards other nodes.
    pub uplink: IfName,
    /// Prefixes whose addresses are reached on the uplink without a router.
    pub adjacent: Vec<IpNetwork>,
    /// What carries packets.
    pub carrier: Carrier,
}

/// What carries packets to other nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Carrier {
    /// A VXLAN device.
    Vxlan {
        /// The device's name.
        device: IfName,
        /// Its network identifier.
        vni: Vni,
        /// Its hardware address.
        mac: MacAddr,
        /// Adjacent nodes are reached without it.
        direct_routing: bool,
    },
    /// The uplink itself.
    HostGw,
    /// An IP-in-IP device.
    Ipip {
        /// The device's name.
        device: IfName,
        /// Adjacent nodes are reached without it.
        direct_routing: bool,
    },
    /// A WireGuard device.
    Wireguard {
        /// The device's name.
        device: IfName,
        /// All pods' addresses, which the device is the way to.
        network: IpNetwork,
    },
    /// Somebody else: nothing is made here.
    Alloc,
}

/// What the kernel must hold for the overlay. Put routes last, so that no packet finds a route
/// whose neighbour is unknown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RouteTables {
    /// A peer's MAC to the address of its node.
    pub fdb: BTreeMap<FdbKey, FdbEntry>,
    /// A peer's overlay address to its MAC.
    pub neighbours: BTreeMap<NeighbourKey, Neighbour>,
    /// A peer's WireGuard key to where it listens and what it may send.
    pub wireguard: BTreeMap<PeerKey, WireguardPeer>,
    /// A peer's pod prefix to its gateway.
    pub routes: BTreeMap<RouteKey, Route>,
    /// Leases whose nodes cannot be reached, and why. They are left out; all others are served.
    pub problems: Vec<RouteProblem>,
}

/// What a WireGuard device knows of a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireguardPeer {
    /// Where it listens.
    pub endpoint: SocketAddr,
    /// What it may send and is sent.
    pub allowed: Vec<IpNetwork>,
}

// === impl Carrier ===

impl Carrier {
    /// The name of the backend, as leases have it.
    #[must_use]
    pub const fn backend(&self) -> &'static str {
        match self {
            Self::Vxlan { .. } => "vxlan",
            Self::HostGw => "host-gw",
            Self::Ipip { .. } => "ipip",
            Self::Wireguard { .. } => "wireguard",
            Self::Alloc => "",
        }
    }

    const fn routes_directly(&self) -> bool {
        match self {
            Self::Vxlan { direct_routing, .. } | Self::Ipip { direct_routing, .. } => {
                *direct_routing
            }
            Self::HostGw | Self::Wireguard { .. } | Self::Alloc => false,
        }
    }
}

// === impl Underlay ===

impl Underlay {
    fn is_adjacent(&self, ip: IpAddr) -> bool {
        self.adjacent.iter().any(|prefix| prefix.contains(ip))
    }
}

/// Everything needed to reach the pods of all other nodes.
///
/// Leases that announce nothing for a family are no problem: their nodes have not joined yet.
#[must_use]
pub fn routes(cluster: &Cluster, overlay: &Overlay) -> RouteTables {
    let mut tables = RouteTables::default();
    let own = cluster.own_lease();
    let leases = cluster.leases();
    for (underlay, v4) in [(&overlay.v4, true), (&overlay.v6, false)] {
        if let Some(underlay) = underlay
            .as_ref()
            .filter(|one| one.carrier != Carrier::Alloc)
        {
            add_family(&leases, own.as_ref(), underlay, v4, &mut tables);
        }
    }
    if let Some(own) = own.filter(|_| overlay.blackhole) {
        let holes = own.subnets.into_iter().map(Route::blackhole);
        tables.routes.extend(holes.map(|route| (route.key, route)));
    }
    tables
}

/// A lease that announces a place in one family.
struct Peer<'a> {
    lease: &'a Lease<'a>,
    prefix: IpNetwork,
    public_ip: IpAddr,
    announced: &'a Announced,
}

fn add_family(
    leases: &[Lease<'_>],
    own: Option<&Lease<'_>>,
    underlay: &Underlay,
    v4: bool,
    tables: &mut RouteTables,
) {
    let mut admission = Admission::new(underlay, own, v4);
    for lease in leases
        .iter()
        .filter(|one| own.is_none_or(|own| one.id != own.id))
    {
        let Some(peer) = peer(lease, v4) else {
            continue;
        };
        let added = admission
            .admit(&peer, underlay)
            .and_then(|()| add_peer(underlay, &peer, v4, tables));
        if let Err(problem) = added {
            // A lease of another backend is one problem, not one in each family.
            if !tables.problems.contains(&problem) {
                tables.problems.push(problem);
            }
        }
    }
    if let Carrier::Wireguard { device, network } = &underlay.carrier
        && !tables.wireguard.is_empty()
    {
        let route = Route::via_device(*network, device.clone());
        tables.routes.insert(route.key, route);
    }
}

fn peer<'a>(lease: &'a Lease<'a>, v4: bool) -> Option<Peer<'a>> {
    let announced = lease.announced?;
    let public_ip = if v4 {
        announced.public_ip.map(IpAddr::from)
    } else {
        announced.public_ipv6.map(IpAddr::from)
    };
    Some(Peer {
        lease,
        prefix: lease.subnet(v4)?,
        public_ip: public_ip?,
        announced,
    })
}

fn add_peer(
    underlay: &Underlay,
    peer: &Peer<'_>,
    v4: bool,
    tables: &mut RouteTables,
) -> Result<(), RouteProblem> {
    let adjacent = underlay.is_adjacent(peer.public_ip);
    let direct = || Route::via_device(peer.prefix, underlay.uplink.clone()).gateway(peer.public_ip);
    let route = match (&underlay.carrier, &peer.announced.backend) {
        (Carrier::HostGw, _) if !adjacent => {
            return Err(RouteProblem::NotAdjacent {
                lease: peer.lease.id.clone(),
                public_ip: peer.public_ip,
                uplink: underlay.uplink.clone(),
            });
        }
        (Carrier::HostGw, _) => direct(),
        (carrier, _) if carrier.routes_directly() && adjacent => direct(),
        (
            Carrier::Vxlan { device, .. },
            Backend::Vxlan {
                v4: first,
                v6: second,
            },
        ) => {
            let Some(data) = (if v4 { first } else { second }) else {
                return Ok(());
            };
            add_tunnel_end(device, peer, data.vtep_mac, tables)
        }
        (Carrier::Ipip { device, .. }, _) => Route::via_device(peer.prefix, device.clone())
            .gateway(peer.public_ip)
            .onlink(),
        (
            Carrier::Wireguard { device, .. },
            Backend::Wireguard {
                v4: first,
                v6: second,
            },
        ) => {
            let data = if v4 { first } else { second }.as_ref();
            // What is no key is none of a lease either.
            if let Some((data, Ok(public_key))) = data.map(|one| (one, one.public_key.parse())) {
                let key = PeerKey {
                    device: device.clone(),
                    public_key,
                };
                let known = WireguardPeer {
                    endpoint: SocketAddr::new(peer.public_ip, data.port),
                    allowed: vec![peer.prefix],
                };
                tables.wireguard.insert(key, known);
            }
            return Ok(());
        }
        _ => return Ok(()),
    };
    tables.routes.insert(route.key, route);
    Ok(())
}

/// Neighbour and forwarding entry of a peer's VXLAN device, and the route through it.
fn add_tunnel_end(
    device: &IfName,
    peer: &Peer<'_>,
    mac: MacAddr,
    tables: &mut RouteTables,
) -> Route {
    let gateway = peer.prefix.network();
    let fdb = FdbEntry {
        key: FdbKey {
            device: device.clone(),
            mac,
        },
        remote: peer.public_ip,
    };
    let neighbour = Neighbour {
        key: NeighbourKey {
            device: device.clone(),
            ip: gateway,
        },
        mac,
    };
    tables.fdb.insert(fdb.key.clone(), fdb);
    tables.neighbours.insert(neighbour.key.clone(), neighbour);
    Route::via_device(peer.prefix, device.clone())
        .gateway(gateway)
        .onlink()
}

#[cfg(test)]
mod tests;
