//! Keeping the etcd lease from expiring: a sign of life that no watcher sees.

use std::time::Duration;

use anyhow::Context as _;
use etcd_client::{Client, LeaseKeepAliveStream, LeaseKeeper};
use tokio::time::Instant;

use super::client::{REQUEST, described};

/// Longest and shortest time between two signs of life. A lease taken over from flannel may be
/// near its end and one of a day has 24 chances.
const EVERY: (i64, i64) = (3600, 1);

/// The stream of signs of life of one connection.
#[derive(Default)]
pub(super) struct Keeper {
    /// For which etcd lease.
    id: i64,
    stream: Option<(LeaseKeeper, LeaseKeepAliveStream)>,
    /// When the next one is due.
    due: Option<Instant>,
}

// === impl Keeper ===

impl Keeper {
    /// Keeps this etcd lease, or none. `granted` is the time it has from now on if that is known:
    /// otherwise it may be about to expire.
    pub(super) fn keep(&mut self, id: i64, granted: Option<i64>) {
        if id == self.id {
            return;
        }
        let due = Instant::now() + granted.map_or(Duration::ZERO, every);
        *self = Self {
            id,
            stream: None,
            due: (id != 0).then_some(due),
        };
    }

    /// Waits until a sign of life is due.
    pub(super) async fn due(&self) {
        match self.due {
            Some(due) => tokio::time::sleep_until(due).await,
            None => std::future::pending().await,
        }
    }

    /// Gives a sign of life; the seconds that the etcd lease has from now, or `None` if there is
    /// none any more.
    pub(super) async fn beat(&mut self, client: &mut Client) -> anyhow::Result<Option<i64>> {
        let answered = tokio::time::timeout(REQUEST, self.ask(client)).await;
        let ttl = answered
            .context("no answer")
            .flatten()
            .context("keep the lease")?;
        self.due = Some(Instant::now() + every(ttl));
        if ttl > 0 {
            return Ok(Some(ttl));
        }
        self.stream = None;
        Ok(None)
    }

    /// The time that the etcd lease has now; 0 if there is none.
    async fn ask(&mut self, client: &mut Client) -> anyhow::Result<i64> {
        let failed = |error: etcd_client::Error| described(&error);
        let (keeper, answers) = match &mut self.stream {
            Some(stream) => stream,
            // To open the stream is a sign of life too; of its answer only a refusal is shown.
            none => match client.lease_keep_alive(self.id).await {
                Err(etcd_client::Error::LeaseKeepAliveError(_)) => return Ok(0),
                opened => none.insert(opened.map_err(failed)?),
            },
        };
        keeper.keep_alive().await.map_err(failed)?;
        let answer = answers.message().await.map_err(failed)?;
        Ok(answer.context("the stream ended")?.ttl().max(0))
    }
}

fn every(ttl: i64) -> Duration {
    Duration::from_secs((ttl / 3).clamp(EVERY.1, EVERY.0).unsigned_abs())
}
