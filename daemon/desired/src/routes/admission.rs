//! Which leases may have a route: those that speak our backend and clash with nobody.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netstate::{IfName, MacAddr, Vni};
use thiserror::Error;

use super::{Carrier, Peer, Underlay};
use crate::cluster::{Announced, Backend, Lease, LeaseId};

/// Why a lease's node is left out of the overlay.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RouteProblem {
    /// It speaks another backend.
    #[error(
        "{lease}: backend {theirs:?} differs from ours, {ours:?}: use one backend on every node"
    )]
    OtherBackend {
        /// The lease.
        lease: LeaseId,
        /// Its backend.
        theirs: String,
        /// This node's backend.
        ours: &'static str,
    },
    /// It speaks another network identifier.
    #[error("{lease}: VNI {theirs} differs from ours, {ours}: use one VNI in net-conf.json")]
    OtherVni {
        /// The lease.
        lease: LeaseId,
        /// Its identifier.
        theirs: Vni,
        /// This node's identifier.
        ours: Vni,
    },
    /// It is not on the link, which `host-gw` needs.
    #[error(
        "{lease}: public-ip {public_ip} is not on the network of {uplink}: host-gw needs every node there; use vxlan"
    )]
    NotAdjacent {
        /// The lease.
        lease: LeaseId,
        /// Its address.
        public_ip: IpAddr,
        /// This node's interface.
        uplink: IfName,
    },
    /// A route to its pods would hide nodes, its own one or those on the link.
    #[error(
        "{lease}: subnet {subnet} holds {nodes}, where nodes are: give pods a network of their own"
    )]
    HidesNodes {
        /// The lease.
        lease: LeaseId,
        /// Its subnet.
        subnet: IpNetwork,
        /// Addresses of nodes.
        nodes: IpNetwork,
    },
    /// It announces what another lease (perhaps this node's) has already.
    #[error("{lease}: {what} {value} {clash} {other}: give each node its own")]
    Duplicate {
        /// The lease that is left out: the later one by name.
        lease: LeaseId,
        /// `public-ip`, `VtepMAC`, `PublicKey` or `subnet`.
        what: &'static str,
        /// The value.
        value: String,
        /// `is also that of`, or `overlaps that of`.
        clash: &'static str,
        /// The lease that keeps it.
        other: LeaseId,
    },
}

// === impl RouteProblem ===

impl RouteProblem {
    /// The lease that is left out.
    #[must_use]
    pub const fn lease(&self) -> &LeaseId {
        match self {
            Self::OtherBackend { lease, .. }
            | Self::OtherVni { lease, .. }
            | Self::NotAdjacent { lease, .. }
            | Self::HidesNodes { lease, .. }
            | Self::Duplicate { lease, .. } => lease,
        }
    }
}

/// What each value must be unique for: the first lease to have it keeps it.
pub(super) struct Admission {
    public_ip: BTreeMap<IpAddr, LeaseId>,
    mac: BTreeMap<MacAddr, LeaseId>,
    /// WireGuard's public keys.
    key: BTreeMap<String, LeaseId>,
    /// Disjoint prefixes by their last address.
    prefix: BTreeMap<IpAddr, (IpNetwork, LeaseId)>,
    v4: bool,
}

// === impl Admission ===

impl Admission {
    /// Begins with what this node itself has.
    pub(super) fn new(underlay: &Underlay, own: Option<&Lease<'_>>, v4: bool) -> Self {
        let mut admission = Self {
            public_ip: BTreeMap::new(),
            mac: BTreeMap::new(),
            key: BTreeMap::new(),
            prefix: BTreeMap::new(),
            v4,
        };
        if let Some(own) = own {
            admission
                .public_ip
                .insert(underlay.public_ip, own.id.clone());
            if let Carrier::Vxlan { mac, .. } = underlay.carrier {
                admission.mac.insert(mac, own.id.clone());
            }
            let key = own.announced.and_then(|one| public_key(one, v4));
            admission.key.extend(key.map(|key| (key, own.id.clone())));
            if let Some(subnet) = own.subnet(v4) {
                let entry = (subnet, own.id.clone());
                admission.prefix.insert(subnet.broadcast(), entry);
            }
        }
        admission
    }

    pub(super) fn admit(
        &mut self,
        peer: &Peer<'_>,
        underlay: &Underlay,
    ) -> Result<(), RouteProblem> {
        let lease = &peer.lease.id;
        let mac = self.speaks(peer, &underlay.carrier)?;
        if let Some(nodes) = hidden_by(peer, underlay) {
            return Err(RouteProblem::HidesNodes {
                lease: lease.clone(),
                subnet: peer.prefix,
                nodes,
            });
        }
        let clash = |what, value: String, clash, other: &LeaseId| {
            Err(RouteProblem::Duplicate {
                lease: lease.clone(),
                what,
                value,
                clash,
                other: other.clone(),
            })
        };
        const SAME: &str = "is also that of";
        if let Some(other) = self.public_ip.get(&peer.public_ip) {
            return clash("public-ip", peer.public_ip.to_string(), SAME, other);
        }
        if let Some((mac, other)) = mac.and_then(|mac| Some((mac, self.mac.get(&mac)?))) {
            return clash("VtepMAC", mac.to_string(), SAME, other);
        }
        let key = public_key(peer.announced, self.v4);
        if let Some((key, other)) = key.as_ref().and_then(|key| Some((key, self.key.get(key)?))) {
            return clash("PublicKey", key.clone(), SAME, other);
        }
        // The admitted prefixes are disjoint: only the first that ends at or after our start can
        // overlap us from the left or be within us.
        let start = peer.prefix.network();
        if let Some((_, (other, id))) = self.prefix.range(start..).next()
            && (other.contains(start) || peer.prefix.contains(other.network()))
        {
            let how = if *other == peer.prefix {
                SAME
            } else {
                "overlaps that of"
            };
            return clash("subnet", peer.prefix.to_string(), how, id);
        }
        self.public_ip.insert(peer.public_ip, lease.clone());
        self.mac.extend(mac.map(|mac| (mac, lease.clone())));
        self.key.extend(key.map(|key| (key, lease.clone())));
        let entry = (peer.prefix, lease.clone());
        self.prefix.insert(peer.prefix.broadcast(), entry);
        Ok(())
    }

    /// Whether the peer carries packets as we do; its MAC if that is by VXLAN.
    fn speaks(&self, peer: &Peer<'_>, carrier: &Carrier) -> Result<Option<MacAddr>, RouteProblem> {
        let theirs = &peer.announced.backend;
        if theirs.name() != carrier.backend() {
            return Err(RouteProblem::OtherBackend {
                lease: peer.lease.id.clone(),
                theirs: theirs.name().to_owned(),
                ours: carrier.backend(),
            });
        }
        let (Backend::Vxlan { v4, v6 }, Carrier::Vxlan { vni: ours, .. }) = (theirs, carrier)
        else {
            return Ok(None);
        };
        match if self.v4 { v4 } else { v6 } {
            Some(data) if data.vni != *ours => Err(RouteProblem::OtherVni {
                lease: peer.lease.id.clone(),
                theirs: data.vni,
                ours: *ours,
            }),
            data => Ok(data.map(|data| data.vtep_mac)),
        }
    }
}

/// Addresses of nodes within a peer's subnet: packets to them would go to its pods.
fn hidden_by(peer: &Peer<'_>, underlay: &Underlay) -> Option<IpNetwork> {
    let ends = [peer.public_ip, underlay.public_ip].map(IpNetwork::from);
    let nodes = underlay.adjacent.iter().copied().chain(ends);
    nodes
        .filter(|nodes| nodes.prefix() >= peer.prefix.prefix())
        .find(|nodes| peer.prefix.contains(nodes.network()))
}

/// The key by which a node's WireGuard device of a family is known.
fn public_key(announced: &Announced, v4: bool) -> Option<String> {
    let Backend::Wireguard {
        v4: first,
        v6: second,
    } = &announced.backend
    else {
        return None;
    };
    let data = if v4 { first } else { second }.as_ref()?;
    Some(data.public_key.clone())
}
