//! The transactions by which a node takes, changes and gives up a lease. Each compares first, so
//! that nobody's change is ever overwritten unseen.

use anyhow::Context as _;
use desired::lease::{Attributes, LeaseKey};
use etcd_client::{Client, Compare, CompareOp, PutOptions, Txn, TxnOp};

use super::client::described;

/// Seconds after which a lease of a node that is gone is free again: flannel's.
pub(super) const TTL: i64 = 86_400;

/// A lease that this node holds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Own {
    pub(super) key: LeaseKey,
    /// What was written.
    pub(super) attributes: Attributes,
    /// Revision of its creation and of what was written.
    pub(super) created: i64,
    pub(super) modified: i64,
    /// The etcd lease that keeps it; 0 for a reservation, which needs none.
    pub(super) etcd_lease: i64,
}

/// Creates the lease unless there is one with the same IPv4 address, of whatever length and with
/// whatever IPv6 part; `None` if there is.
pub(super) async fn create(
    client: &mut Client,
    prefix: &str,
    key: LeaseKey,
    attributes: &Attributes,
) -> anyhow::Result<Option<Own>> {
    let granted = client.lease_grant(TTL, None).await;
    let etcd_lease = granted
        .map_err(|error| described(&error))
        .context("etcd: grant a lease")?
        .id();
    let name = format!("{prefix}{key}");
    let same_address = format!("{prefix}{}-", key.v4.network());
    let absent = Compare::version(same_address, CompareOp::Equal, 0).with_prefix();
    let put = TxnOp::put(
        name,
        attributes.encode(),
        Some(PutOptions::new().with_lease(etcd_lease)),
    );
    let done = client.txn(Txn::new().when([absent]).and_then([put])).await;
    let done = done
        .map_err(|error| described(&error))
        .with_context(|| format!("etcd: create {key}"));
    let revision = match &done {
        Ok(done) if done.succeeded() => done
            .header()
            .map_or(0, etcd_client::ResponseHeader::revision),
        _ => {
            // Nothing hangs on it; it would only wait a day to expire.
            let _ = client.lease_revoke(etcd_lease).await;
            done?;
            return Ok(None);
        }
    };
    Ok(Some(Own {
        key,
        attributes: attributes.clone(),
        created: revision,
        modified: revision,
        etcd_lease,
    }))
}

/// Writes the value of a lease that was last changed at `own.modified`; `None` if somebody has
/// changed it since.
pub(super) async fn write(
    client: &mut Client,
    prefix: &str,
    own: &Own,
    attributes: &Attributes,
) -> anyhow::Result<Option<Own>> {
    let name = format!("{prefix}{}", own.key);
    let unchanged = Compare::mod_revision(name.clone(), CompareOp::Equal, own.modified);
    let options = match own.etcd_lease {
        0 => PutOptions::new(),
        id => PutOptions::new().with_lease(id),
    };
    let put = TxnOp::put(name, attributes.encode(), Some(options));
    let done = client
        .txn(Txn::new().when([unchanged]).and_then([put]))
        .await;
    let done = done
        .map_err(|error| described(&error))
        .with_context(|| format!("etcd: write {}", own.key))?;
    let revision = done
        .header()
        .map_or(0, etcd_client::ResponseHeader::revision);
    Ok(done.succeeded().then(|| Own {
        attributes: attributes.clone(),
        modified: revision,
        ..own.clone()
    }))
}

/// Deletes a lease that was last changed at `modified`, and what kept it; whether it was so.
pub(super) async fn discard(
    client: &mut Client,
    prefix: &str,
    key: LeaseKey,
    modified: i64,
) -> anyhow::Result<bool> {
    let name = format!("{prefix}{key}");
    let unchanged = Compare::mod_revision(name.clone(), CompareOp::Equal, modified);
    let delete = TxnOp::delete(name, None);
    let done = client
        .txn(Txn::new().when([unchanged]).and_then([delete]))
        .await;
    let done = done
        .map_err(|error| described(&error))
        .with_context(|| format!("etcd: delete {key}"))?;
    Ok(done.succeeded())
}
