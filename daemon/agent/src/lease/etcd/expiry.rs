//! How long leases last, asked only when somebody wants to see it: etcd tells of one at a time.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use desired::lease::LeaseKey;
use etcd_client::GetOptions;
use futures::StreamExt as _;

use super::client::{EtcdSettings, described};

/// Questions that are under way at a time.
const AT_ONCE: usize = 64;
/// How long all of it may take; what is not known by then is not shown.
const LIMIT: Duration = Duration::from_secs(5);

/// When a lease ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Expiry {
    /// After so many seconds, unless its node keeps it.
    Seconds(i64),
    /// Never: an administrator has reserved it.
    Never,
}

/// What is known within five seconds of all leases' ends.
///
/// # Errors
/// When etcd cannot be asked at all.
pub async fn expiries(settings: &EtcdSettings) -> anyhow::Result<BTreeMap<LeaseKey, Expiry>> {
    let mut known = BTreeMap::new();
    let asked = tokio::time::timeout(LIMIT, ask(settings, &mut known)).await;
    match asked {
        Ok(Err(error)) => Err(settings.explained(&error)),
        Err(_) if known.is_empty() => {
            let error = anyhow::anyhow!("no answer within {} s", LIMIT.as_secs());
            Err(settings.explained(&error))
        }
        _ => Ok(known),
    }
}

async fn ask(
    settings: &EtcdSettings,
    known: &mut BTreeMap<LeaseKey, Expiry>,
) -> anyhow::Result<()> {
    let prefix = settings.leases_prefix();
    let mut client = settings.connect().await?;
    let options = GetOptions::new().with_prefix().with_keys_only();
    let found = client.get(prefix.clone(), Some(options)).await;
    let found = found
        .map_err(|error| described(&error))
        .context("list leases")?;
    let mut kept = Vec::new();
    for pair in found.kvs() {
        let name = String::from_utf8_lossy(pair.key());
        let key = name.strip_prefix(&prefix).map(str::parse::<LeaseKey>);
        match (key, pair.lease()) {
            (Some(Ok(key)), 0) => drop(known.insert(key, Expiry::Never)),
            (Some(Ok(key)), id) => kept.push((key, id)),
            _ => {}
        }
    }
    let answers = kept.into_iter().map(|(key, id)| {
        let mut client = client.clone();
        async move { (key, client.lease_time_to_live(id, None).await) }
    });
    let mut answers = futures::stream::iter(answers).buffer_unordered(AT_ONCE);
    while let Some((key, answer)) = answers.next().await {
        let answer = answer
            .map_err(|error| described(&error))
            .with_context(|| format!("time of lease {key}"))?;
        known.insert(key, Expiry::Seconds(answer.ttl()));
    }
    Ok(())
}
