//! Giving the lease back, asked for by an administrator.

use anyhow::Context as _;
use desired::cluster::Leases;
use desired::lease::{Attributes, LeaseKey};

use super::EtcdLeases;
use super::client::described;
use super::hold;
use crate::lease::Tenure;

// === impl EtcdLeases ===

impl EtcdLeases {
    /// Deletes this node's lease and what keeps it, unless somebody else has written it meanwhile.
    /// Afterwards this node takes none any more.
    pub(super) async fn give_back(&mut self) -> anyhow::Result<()> {
        let own = match &self.store.snapshot().leases {
            Leases::InStore { own, .. } => *own,
            Leases::OnNodes => None,
        };
        let lease = self.lease.borrow().clone();
        if let (Some(key), Some(lease)) = (own, lease) {
            self.delete(key, &lease.announced.attributes()).await?;
        }
        self.previous = None;
        self.tenure.send_replace(Tenure::GivenBack);
        self.report.send_modify(|report| {
            report.obstacle = None;
            report.lasts(None);
        });
        Ok(())
    }

    async fn delete(&self, key: LeaseKey, written: &Attributes) -> anyhow::Result<()> {
        let prefix = self.settings.leases_prefix();
        let mut client = self.settings.connect().await?;
        let found = client.get(format!("{prefix}{key}"), None).await;
        let found = found
            .map_err(|error| described(&error))
            .with_context(|| format!("etcd: read lease {key}"))?;
        let Some(pair) = found.kvs().first() else {
            return Ok(());
        };
        // A reservation is an administrator's, and stays.
        if Attributes::decode(pair.value()).as_ref() != Ok(written) || pair.lease() == 0 {
            tracing::warn!(lease = %key, "the lease is reserved or not this node's any more, and stays");
            return Ok(());
        }
        let gone = hold::discard(&mut client, &prefix, key, pair.mod_revision()).await?;
        anyhow::ensure!(gone.is_some(), "lease {key} has changed meanwhile");
        // Nothing hangs on it any more; it would only wait a day to expire.
        let _ = client.lease_revoke(pair.lease()).await;
        tracing::info!(lease = %key, "this node's lease is given back");
        Ok(())
    }
}
