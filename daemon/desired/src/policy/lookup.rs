//! The compiled tables asked the way the data path asks them.

use std::net::IpAddr;

use ebpf_shared::policy::{
    CLASS_NODE, CLASS_WORLD, CidrKey, ClassKey, EGRESS_ISOLATED, INGRESS_ISOLATED, PodKey,
    VERDICT_ALLOW, VerdictKey, find_interval,
};
use ebpf_shared::{V4, V6};
use ipnetwork::IpNetwork;
use netstate::route::masked;
use serde::{Deserialize, Serialize};

use crate::family::TableAddress;
use crate::policy::{Direction, PeerTables, PolicyTables};

/// What the tables say of a new flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    /// The pod has no entry: nothing passes until its policy is known.
    NotReady,
    /// The pod is not isolated in this direction.
    NotIsolated,
    /// The peer is this node, which always reaches its own pods.
    Node,
    /// A rule allows the flow.
    Allowed {
        /// The rule's id.
        rule: u32,
    },
    /// No rule allows the flow.
    Denied {
        /// The class of the peer.
        class: u32,
    },
}

impl PolicyTables {
    /// The class of a peer: its own, else that of its longest prefix.
    #[must_use]
    pub fn class(&self, peer: IpAddr) -> u32 {
        match peer {
            IpAddr::V4(_) => class::<V4>(&self.v4, peer, 32),
            IpAddr::V6(_) => class::<V6>(&self.v6, peer, 128),
        }
    }

    /// The class of a prefix' addresses that no longer prefix and no address of its own tells
    /// apart.
    #[must_use]
    pub fn prefix_class(&self, network: IpAddr, length: u8) -> u32 {
        match network {
            IpAddr::V4(_) => longest_prefix::<V4>(&self.v4, network, length),
            IpAddr::V6(_) => longest_prefix::<V6>(&self.v6, network, length),
        }
    }

    /// What becomes of a new flow between a pod of this node and a peer. `port` is the
    /// destination port, 0 for protocols without ports.
    #[must_use]
    pub fn answer(
        &self,
        pod: PodKey,
        direction: Direction,
        peer: IpAddr,
        protocol: u8,
        port: u16,
    ) -> Answer {
        let Some(value) = self.pods.get(&pod) else {
            return Answer::NotReady;
        };
        let isolated = match direction {
            Direction::Ingress => INGRESS_ISOLATED,
            Direction::Egress => EGRESS_ISOLATED,
        };
        if value.flags & isolated == 0 {
            return Answer::NotIsolated;
        }
        let class = self.class(peer);
        if class == CLASS_NODE && direction == Direction::Ingress {
            return Answer::Node;
        }
        let direction = direction.code();
        let key = VerdictKey {
            policy_set: value.policy_set,
            class,
            direction,
            pad: [0; 3],
        };
        let verdict = self.verdicts.get(&key);
        match verdict.and_then(|verdict| find_interval(verdict, protocol, port)) {
            Some(found) if found.verdict == VERDICT_ALLOW => Answer::Allowed { rule: found.rule },
            Some(_) | None => Answer::Denied { class },
        }
    }
}

fn class<A: TableAddress>(tables: &PeerTables<A>, peer: IpAddr, bits: u8) -> u32 {
    let Some(addr) = A::from_ip(peer) else {
        return CLASS_WORLD;
    };
    if let Some(value) = tables.classes.get(&ClassKey { addr }) {
        return value.class;
    }
    longest_prefix(tables, peer, bits)
}

fn longest_prefix<A: TableAddress>(tables: &PeerTables<A>, peer: IpAddr, bits: u8) -> u32 {
    let longest = (0..=bits).rev().find_map(|length| {
        let prefix = masked(IpNetwork::new(peer, length).ok()?);
        let key = CidrKey {
            prefix: length.into(),
            addr: A::from_ip(prefix.ip())?,
        };
        tables.cidr_classes.get(&key)
    });
    longest.map_or(CLASS_WORLD, |value| value.class)
}
