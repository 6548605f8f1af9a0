//! PURE: nodes that are only keys in etcd, what they say, and what the kernel must hold for them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

use hostnet::PROTOCOL_TOWLINE;
use ipnetwork::{IpNetwork, Ipv4Network};
use netstate::{FdbKey, IfName, MacAddr, NeighbourKey, Route, RouteKey};

/// The pod network that all subnets are of, and the backend. What is beyond `SubnetMax` no node takes
/// by itself: there are the [`SPARE`] ones.
pub(crate) const CONFIG: &str = r#"{"Network":"10.64.0.0/10","SubnetLen":24,"SubnetMax":"10.99.255.0","Backend":{"Type":"vxlan"}}"#;
/// The number of the first peer beyond `SubnetMax`.
pub(crate) const SPARE: u32 = 10_000;
/// Where keys are.
pub(crate) const PREFIX: &str = "/coreos.com/network/subnets/";
/// The overlay device.
pub(crate) const DEVICE: &str = "flannel.1";

const NETWORK: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 0);
const NODES: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);

/// A node that is only a key.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Peer {
    /// Which one, from 1.
    number: u32,
    /// How often its MAC has changed.
    turn: u8,
}

/// What the kernel holds for peers.
#[derive(Debug, Default, Eq, PartialEq)]
pub(crate) struct Entries {
    pub(crate) routes: BTreeMap<RouteKey, Route>,
    pub(crate) neighbours: BTreeMap<NeighbourKey, MacAddr>,
    pub(crate) fdb: BTreeMap<FdbKey, IpAddr>,
}

// === impl Peer ===

impl Peer {
    /// Peer `number`, from 1 to 16,383.
    pub(crate) const fn new(number: u32) -> Self {
        Self { number, turn: 0 }
    }

    /// Peers 1 to `count`.
    pub(crate) fn all(count: u32) -> Vec<Self> {
        (1..=count).map(Self::new).collect()
    }

    /// The same one with another MAC.
    pub(crate) const fn with_another_mac(self) -> Self {
        Self {
            turn: self.turn.wrapping_add(1),
            ..self
        }
    }

    /// The first address of its subnet.
    pub(crate) fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(NETWORK) + (self.number << 8))
    }

    pub(crate) fn mac(self) -> MacAddr {
        let [_, first, high, low] = self.number.to_be_bytes();
        MacAddr::new([0x02, 0x54, self.turn, first, high, low])
    }

    fn public_ip(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(NODES) + self.number)
    }

    fn subnet(self) -> IpNetwork {
        Ipv4Network::new(self.gateway(), 24).map_or_else(
            |_| IpNetwork::from(IpAddr::from(self.gateway())),
            IpNetwork::V4,
        )
    }

    /// Its key in etcd.
    pub(crate) fn key(self) -> String {
        format!("{PREFIX}{}-24", self.gateway())
    }

    /// What it says there.
    pub(crate) fn value(self) -> String {
        format!(
            r#"{{"PublicIP":"{}","PublicIPv6":null,"BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"{}"}}}}"#,
            self.public_ip(),
            self.mac()
        )
    }
}

// === impl Entries ===

impl Entries {
    /// What `peers` need on `device`.
    pub(crate) fn of(peers: &[Peer], device: &IfName) -> Self {
        let mut all = Self::default();
        for peer in peers {
            let (gateway, mac) = (IpAddr::from(peer.gateway()), peer.mac());
            let route = Route::via_device(peer.subnet(), device.clone());
            let route = route.gateway(gateway).onlink();
            all.routes.insert(route.key, route);
            let device = device.clone();
            let key = NeighbourKey {
                device: device.clone(),
                ip: gateway,
            };
            all.neighbours.insert(key, mac);
            all.fdb
                .insert(FdbKey { device, mac }, peer.public_ip().into());
        }
        all
    }

    /// Whether all of `others` are among these.
    pub(crate) fn include(&self, others: &Self) -> bool {
        fn all<K: Ord, V: Eq>(of: &BTreeMap<K, V>, others: &BTreeMap<K, V>) -> bool {
            others.iter().all(|(key, value)| of.get(key) == Some(value))
        }
        all(&self.routes, &others.routes)
            && all(&self.neighbours, &others.neighbours)
            && all(&self.fdb, &others.fdb)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.routes.len() + self.neighbours.len() + self.fdb.len()
    }
}

/// What `ip -batch` is told for `peers`.
pub(crate) fn ip_batch(peers: &[Peer]) -> String {
    let mut text = String::new();
    for peer in peers {
        let (gateway, mac) = (peer.gateway(), peer.mac());
        let _ = writeln!(
            text,
            "neigh replace {gateway} lladdr {mac} dev {DEVICE} nud permanent"
        );
    }
    for peer in peers {
        let (gateway, subnet) = (peer.gateway(), peer.subnet());
        let _ = writeln!(
            text,
            "route replace {subnet} via {gateway} dev {DEVICE} onlink proto {PROTOCOL_TOWLINE}"
        );
    }
    text
}

/// What `bridge -batch` is told for `peers`.
pub(crate) fn bridge_batch(peers: &[Peer]) -> String {
    let mut text = String::new();
    for peer in peers {
        let (mac, node) = (peer.mac(), peer.public_ip());
        let _ = writeln!(
            text,
            "fdb replace {mac} dev {DEVICE} dst {node} self permanent"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use pretty_assertions::assert_eq;

    use super::*;

    #[test]
    fn a_peer_is_written_as_flannel_writes_it_and_programmed_as_flannel_does() {
        let peer = Peer::new(258).with_another_mac();
        assert_eq!(peer.key(), "/coreos.com/network/subnets/10.65.2.0-24");
        assert_eq!(
            peer.value(),
            r#"{"PublicIP":"198.18.1.2","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:54:01:00:01:02"}}"#
        );
        assert_eq!(
            ip_batch(&[peer]),
            "neigh replace 10.65.2.0 lladdr 02:54:01:00:01:02 dev flannel.1 nud permanent\n\
             route replace 10.65.2.0/24 via 10.65.2.0 dev flannel.1 onlink proto 84\n"
        );
        assert_eq!(
            bridge_batch(&[peer]),
            "fdb replace 02:54:01:00:01:02 dev flannel.1 dst 198.18.1.2 self permanent\n"
        );
    }

    #[test]
    fn no_two_peers_share_anything() {
        let peers = Peer::all(5000);
        let entries = Entries::of(&peers, &DEVICE.parse().unwrap());
        assert_eq!(entries.len(), 15_000);
        let nodes: BTreeSet<&IpAddr> = entries.fdb.values().collect();
        assert_eq!(nodes.len(), 5000);
        let fewer = Entries::of(&peers[..4999], &DEVICE.parse().unwrap());
        assert!(entries.include(&fewer) && !fewer.include(&entries));
    }
}
