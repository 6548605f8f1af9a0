//! Giving the lease back, asked for by an administrator.

use anyhow::Context as _;
use desired::lease::{Attributes, LeaseKey};
use etcd_client::{Client, GetOptions, KeyValue};

use super::client::{self, described};
use super::state::State;
use super::{EtcdLeases, hold};

// === impl EtcdLeases ===

impl EtcdLeases {
    /// Deletes this node's lease and what keeps it, unless somebody else has written it meanwhile.
    pub(super) async fn give_back(&self, state: &State) -> anyhow::Result<()> {
        let lease = self.lease.borrow().clone();
        let wanted = lease.map(|lease| lease.announced.attributes());
        match &state.own {
            Some(own) => {
                let written = state.written.iter().chain(&wanted).cloned();
                self.delete(Some(own.key), &written.collect::<Vec<_>>())
                    .await?;
            }
            None if wanted.is_none() => {}
            None => self.delete(None, wanted.as_slice()).await?,
        }
        Ok(())
    }

    /// Deletes lease `own` if it has one of the values that are `ours`. If none is known, deletes
    /// whatever this node has left in etcd: an earlier run's lease that was not looked at yet, or
    /// one whose creation was not answered.
    async fn delete(&self, own: Option<LeaseKey>, ours: &[Attributes]) -> anyhow::Result<()> {
        let prefix = self.settings.leases_prefix();
        let mut client = self.settings.connect().await?;
        let found = client::get(&client, &prefix, GetOptions::new().with_prefix()).await;
        let found = found
            .map_err(|error| described(&error))
            .context("etcd: list leases")?;
        for pair in found.kvs() {
            let name = String::from_utf8_lossy(pair.key());
            let key = name.strip_prefix(&prefix).map(str::parse::<LeaseKey>);
            let Some(Ok(key)) = key else { continue };
            let is_ours = Attributes::decode(pair.value()).is_ok_and(|value| ours.contains(&value));
            // A reservation is an administrator's, and stays.
            if is_ours && pair.lease() != 0 && own.is_none_or(|own| own == key) {
                discard(&mut client, &prefix, key, pair).await?;
            } else if own == Some(key) {
                tracing::warn!(lease = %key, "the lease is reserved or not this node's any more, and stays");
            }
        }
        Ok(())
    }
}

/// Deletes a lease that is as it was found.
async fn discard(
    client: &mut Client,
    prefix: &str,
    key: LeaseKey,
    pair: &KeyValue,
) -> anyhow::Result<()> {
    let gone = hold::discard(client, prefix, key, pair.mod_revision()).await?;
    anyhow::ensure!(gone.is_some(), "lease {key} has changed meanwhile");
    // Nothing hangs on it any more; it would only wait a day to expire.
    let _ = client.lease_revoke(pair.lease()).await;
    tracing::info!(lease = %key, "this node's lease is given back");
    Ok(())
}
