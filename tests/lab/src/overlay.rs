//! What carries pod traffic between the lab's nodes, and where their leases are kept.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// The overlay network of a cluster.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::Args)]
pub struct Overlay {
    /// What carries pod traffic between nodes.
    #[arg(long, value_enum, default_value_t)]
    pub backend: Backend,
    /// Where the nodes' pod subnets are leased; `etcd` starts one.
    #[arg(long, value_enum, default_value_t)]
    pub leases: LeaseStore,
}

/// A backend of flannel's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
pub enum Backend {
    /// Encapsulated in UDP.
    #[default]
    Vxlan,
    /// By routes through the other nodes, which are all on one link.
    HostGw,
}

/// Where leases are kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
pub enum LeaseStore {
    /// On Node objects.
    #[default]
    Kube,
    /// In an etcd of their own.
    Etcd,
}

impl Overlay {
    /// Every combination there is, the default first.
    pub fn all() -> [Self; 4] {
        let of = |backend, leases| Self { backend, leases };
        [
            of(Backend::Vxlan, LeaseStore::Kube),
            of(Backend::Vxlan, LeaseStore::Etcd),
            of(Backend::HostGw, LeaseStore::Kube),
            of(Backend::HostGw, LeaseStore::Etcd),
        ]
    }
}

impl fmt::Display for Overlay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "backend {}, leases {}", self.backend, self.leases)
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vxlan => "vxlan",
            Self::HostGw => "host-gw",
        })
    }
}

impl fmt::Display for LeaseStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kube => "kube",
            Self::Etcd => "etcd",
        })
    }
}
