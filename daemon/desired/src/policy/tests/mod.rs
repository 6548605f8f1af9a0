//! Whole tables from whole snapshots, and the tables against the policies' own words.

mod compiled;
mod reference;
mod semantics;
mod transition;

use std::net::IpAddr;

use ebpf_shared::policy::PodKey;

use crate::cluster::Cluster;
use crate::names::Protocol;
use crate::policy::lookup::Answer;
use crate::policy::{Direction, PolicyTables, policy};

pub(super) fn tables(cluster: &Cluster) -> PolicyTables {
    policy(cluster).unwrap()
}

/// Whether a flow between the pod on interface `ifindex` and a peer passes the pod's policy.
pub(super) fn passes(
    cluster: &Cluster,
    ifindex: u32,
    direction: Direction,
    peer: &str,
    protocol: Protocol,
    port: u16,
) -> bool {
    let peer: IpAddr = peer.parse().unwrap();
    let answer =
        tables(cluster).answer(PodKey { ifindex }, direction, peer, protocol.number(), port);
    matches!(
        answer,
        Answer::NotIsolated | Answer::Node | Answer::Allowed { .. }
    )
}
