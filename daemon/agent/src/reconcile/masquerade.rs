//! The nftables table: masquerade, forwarding of pod traffic, rejection of what has no backend.

use std::collections::BTreeMap;
use std::sync::Arc;

use desired::cluster::Cluster;
use desired::masquerade::{TABLE, masquerade};
use hostnet::{NftTarget, Nftables};
use netstate::{Report, Wanted, reconcile};

use super::run::{Pass, Reconciler};

/// Name of the loop.
pub const NAME: &str = "masquerade";

/// The loop that keeps `inet towline`.
pub struct MasqueradeLoop {
    target: NftTarget,
    ip_masq: bool,
}

// === impl MasqueradeLoop ===

impl MasqueradeLoop {
    /// Works in the network namespace of the calling thread.
    ///
    /// # Errors
    /// When the kernel has no nftables.
    pub fn open(ip_masq: bool) -> hostnet::Result<Self> {
        let target = NftTarget::new(Nftables::open()?, TABLE);
        Ok(Self { target, ip_masq })
    }
}

impl Reconciler for MasqueradeLoop {
    fn name(&self) -> &'static str {
        NAME
    }

    fn pass(&mut self, cluster: &Arc<Cluster>, _: Pass) -> Report {
        let table = masquerade(cluster, self.ip_masq);
        let wanted = BTreeMap::from([(table.name.clone(), table)]);
        let mut nft = Wanted::new("nftables", &mut self.target, &wanted);
        reconcile(&mut [&mut nft])
    }
}
