//! The transactions by which a node takes, changes and gives up a lease. Each compares first, so
//! that nobody's change is ever overwritten unseen.

use anyhow::Context as _;
use desired::lease::{Attributes, LeaseKey};
use etcd_client::{Client, Compare, CompareOp, PutOptions, Txn, TxnOp, TxnResponse};

use super::client::described;
use super::guard;

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
    /// Whether this process chose the subnet: nobody can have used it before.
    pub(super) is_new: bool,
}

/// Creates the lease unless there is one that shares addresses with it, of whatever length; `None`
/// if there is, or may be. Names begin with their IPv4 part, and that is all that can be compared of
/// them: of IPv6 parts it counts that no name is newer than `known`, the last revision that the
/// choice was made from.
pub(super) async fn create(
    client: &mut Client,
    prefix: &str,
    key: LeaseKey,
    attributes: &Attributes,
    etcd_lease: i64,
    known: i64,
) -> anyhow::Result<Option<Own>> {
    let absent = guard::overlapping(key.v4).into_iter().map(|(first, end)| {
        let (first, end) = (format!("{prefix}{first}"), format!("{prefix}{end}"));
        Compare::version(first, CompareOp::Equal, 0).with_range(end)
    });
    let all_known = || Compare::create_revision(prefix, CompareOp::Less, known + 1).with_prefix();
    let compares: Vec<Compare> = absent.chain(key.v6.map(|_| all_known())).collect();
    let put = put(prefix, key, attributes, etcd_lease);
    let txn = Txn::new().when(compares).and_then([put]);
    let done = commit(client, txn, "create", key).await?;
    Ok(done.map(|revision| Own {
        key,
        attributes: attributes.clone(),
        created: revision,
        modified: revision,
        etcd_lease,
        is_new: false,
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
    let put = put(prefix, own.key, attributes, own.etcd_lease);
    let txn = Txn::new()
        .when([unchanged(prefix, own.key, own.modified)])
        .and_then([put]);
    let done = commit(client, txn, "write", own.key).await?;
    Ok(done.map(|revision| Own {
        attributes: attributes.clone(),
        modified: revision,
        ..own.clone()
    }))
}

/// Deletes a lease that was last changed at `modified`; the revision of that, or `None` if somebody
/// has changed it since.
pub(super) async fn discard(
    client: &mut Client,
    prefix: &str,
    key: LeaseKey,
    modified: i64,
) -> anyhow::Result<Option<i64>> {
    let delete = TxnOp::delete(format!("{prefix}{key}"), None);
    let txn = Txn::new()
        .when([unchanged(prefix, key, modified)])
        .and_then([delete]);
    commit(client, txn, "delete", key).await
}

fn unchanged(prefix: &str, key: LeaseKey, modified: i64) -> Compare {
    Compare::mod_revision(format!("{prefix}{key}"), CompareOp::Equal, modified)
}

fn put(prefix: &str, key: LeaseKey, attributes: &Attributes, etcd_lease: i64) -> TxnOp {
    let options = match etcd_lease {
        0 => PutOptions::new(),
        id => PutOptions::new().with_lease(id),
    };
    TxnOp::put(format!("{prefix}{key}"), attributes.encode(), Some(options))
}

/// The revision at which it was done, if what was compared was so.
async fn commit(
    client: &mut Client,
    txn: Txn,
    verb: &str,
    key: LeaseKey,
) -> anyhow::Result<Option<i64>> {
    let done = client.txn(txn).await;
    let done = done
        .map_err(|error| described(&error))
        .with_context(|| format!("{verb} lease {key}"))?;
    let revision = |done: &TxnResponse| done.header().map_or(0, |header| header.revision());
    Ok(done.succeeded().then(|| revision(&done)))
}
