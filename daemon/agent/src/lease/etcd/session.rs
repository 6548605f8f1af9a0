//! One connection to etcd: list, watch, hold a lease.

use std::time::Duration;

use anyhow::Context as _;
use desired::lease::acquire::next;
use desired::lease::{Attributes, Claim, Obstacle, Step};
use desired::stable_id::ContentHash;
use etcd_client::{Client, EventType, GetOptions, WatchOptions, WatchResponse, WatchStream};
use etcd_client::{LeaseKeepAliveStream, LeaseKeeper};
use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::client::{described, pair};
use super::hold::{self, Own, TTL};
use super::table::Table;
use super::{EtcdLeases, StoreReport};

/// Time between two signs of life to the etcd lease: often enough that an etcd lease taken over
/// from flannel, which may be near its end, and a wiped etcd are noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(TTL.unsigned_abs() / 24);
/// Time between two questions how far the watch is: an etcd that was restored to an older revision
/// sends no events, and a cut connection sends nothing.
const PROGRESS: Duration = Duration::from_secs(15);

/// How a session ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// What is known is out of date.
    Relist(&'static str),
    /// Something went wrong.
    Failed(anyhow::Error),
}

/// What a session is doing.
pub(super) struct Session<'a> {
    leases: &'a mut EtcdLeases,
    prefix: String,
    table: Table,
    /// The revision up to which the table is true.
    revision: i64,
    own: Option<Own>,
    keeper: Option<(LeaseKeeper, LeaseKeepAliveStream)>,
    attempts: u64,
}

impl From<anyhow::Error> for Ended {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

// === impl Session ===

impl<'a> Session<'a> {
    pub(super) fn new(leases: &'a mut EtcdLeases) -> Self {
        let prefix = leases.settings.leases_prefix();
        Self {
            table: Table::new(prefix.clone()),
            prefix,
            leases,
            revision: 0,
            own: None,
            keeper: None,
            attempts: 0,
        }
    }

    /// Runs until something ends it; `listed` says whether it came so far.
    pub(super) async fn run(mut self, listed: &mut bool) -> Ended {
        match self.follow(listed).await {
            Ok(never) => match never {},
            Err(ended) => ended,
        }
    }

    async fn follow(&mut self, listed: &mut bool) -> Result<std::convert::Infallible, Ended> {
        let mut client = self.leases.settings.connect().await?;
        self.list(&mut client).await?;
        let mut watch = self.watch(&mut client).await?;
        *listed = true;
        self.leases
            .report
            .send_modify(|report| report.connected = true);
        let mut progress = ticks(PROGRESS);
        let mut alive = ticks(KEEP_ALIVE);
        let mut answered = true;
        loop {
            self.hold(&mut client).await?;
            self.tell();
            tokio::select! {
                message = watch.message() => {
                    answered = true;
                    let message = message.map_err(|error| described(&error)).context("etcd: watch leases")?;
                    self.apply(&message.context("etcd: watch leases: the stream ended")?)?;
                }
                changed = self.leases.lease.changed() => {
                    changed.context("the overlay loop has ended")?;
                }
                _ = alive.tick() => self.keep_alive(&mut client).await?,
                _ = progress.tick() => {
                    if !std::mem::take(&mut answered) {
                        return Err(Ended::Failed(anyhow::anyhow!("etcd: watch leases: no answer")));
                    }
                    let asked = watch.request_progress().await;
                    asked.map_err(|error| described(&error)).context("etcd: watch leases")?;
                }
            }
        }
    }

    async fn list(&mut self, client: &mut Client) -> anyhow::Result<()> {
        let options = GetOptions::new().with_prefix();
        let found = client.get(self.prefix.clone(), Some(options)).await;
        let found = found
            .map_err(|error| described(&error))
            .context("etcd: list leases")?;
        self.revision = found
            .header()
            .map_or(0, etcd_client::ResponseHeader::revision);
        self.table.reset(found.kvs().iter().map(pair));
        Ok(())
    }

    async fn watch(&mut self, client: &mut Client) -> anyhow::Result<WatchStream> {
        let options = WatchOptions::new()
            .with_prefix()
            .with_start_revision(self.revision + 1);
        let stream = client.watch(self.prefix.clone(), Some(options)).await;
        stream
            .map_err(|error| described(&error))
            .context("etcd: watch leases")
    }

    fn apply(&mut self, message: &WatchResponse) -> Result<(), Ended> {
        if message.compact_revision() > 0 {
            return Err(Ended::Relist("etcd has compacted what was missed"));
        }
        if message.canceled() {
            let reason = message.cancel_reason().to_owned();
            return Err(Ended::Failed(anyhow::anyhow!(
                "etcd: watch leases: {reason}"
            )));
        }
        let revision = message
            .header()
            .map_or(0, etcd_client::ResponseHeader::revision);
        if revision < self.revision {
            return Err(Ended::Relist("etcd is at an older revision than before"));
        }
        for event in message.events() {
            let Some(changed) = event.kv() else { continue };
            match event.event_type() {
                EventType::Put => self.table.put(&pair(changed)),
                EventType::Delete => self.table.delete(changed.key()),
            }
        }
        self.revision = revision;
        Ok(())
    }

    /// Takes steps until this node holds a lease that says how it is reached now, or has to wait.
    async fn hold(&mut self, client: &mut Client) -> Result<(), Ended> {
        let Some(lease) = self.leases.lease.borrow_and_update().clone() else {
            return Ok(());
        };
        let wanted = lease.announced.attributes();
        loop {
            let obstacle = match self.own.clone() {
                Some(own) => match self.check(client, own, &wanted).await? {
                    Check::Held => None,
                    Check::Obstacle(text) => Some(text),
                    Check::Lost => continue,
                },
                None => match self.acquire(client, &wanted).await? {
                    Acquired::Again => continue,
                    Acquired::Outdated => return Err(Ended::Relist("another node was faster")),
                    Acquired::Wait(obstacle) => Some(obstacle.to_string()),
                },
            };
            self.leases.report.send_if_modified(|report| {
                let modified = report.obstacle != obstacle;
                if let Some(text) = obstacle.as_ref().filter(|_| modified) {
                    tracing::warn!(obstacle = text, "this node holds no lease safely");
                }
                report.obstacle = obstacle;
                modified
            });
            return Ok(());
        }
    }

    /// Whether the lease that this node holds is still its own and says what it should.
    async fn check(
        &mut self,
        client: &mut Client,
        own: Own,
        wanted: &Attributes,
    ) -> Result<Check, Ended> {
        let known_until = own.modified;
        let Some(entry) = self.table.get(own.key).cloned() else {
            if self.revision < known_until {
                // The watch has not told of our own write yet.
                return Ok(Check::Held);
            }
            tracing::warn!(lease = %own.key, "this node's lease was deleted; it is taken again if it is free");
            self.lose(own.key);
            return Ok(Check::Lost);
        };
        if entry.modified > own.modified && entry.attributes.as_ref() != Some(&own.attributes) {
            let holder = entry.attributes.map_or_else(
                || "a value that cannot be read".to_owned(),
                |other| format!("PublicIP {}", other.public_ip),
            );
            return Ok(Check::Obstacle(format!(
                "lease {} of this node ({}) was overwritten by {holder}: give each node an address of its own, and release one of them",
                own.key, own.attributes.public_ip
            )));
        }
        if let Some(earlier) = self.table.overlapped_by(own.key, own.created) {
            tracing::warn!(lease = %own.key, %earlier, "this node's lease overlaps an earlier one and is given up");
            hold::discard(
                client,
                &self.prefix,
                own.key,
                entry.modified.max(own.modified),
            )
            .await?;
            self.own = None;
            return Err(Ended::Relist("a lease was given up"));
        }
        if own.attributes == *wanted {
            return Ok(Check::Held);
        }
        let current = Own {
            modified: entry.modified.max(own.modified),
            ..own
        };
        match hold::write(client, &self.prefix, &current, wanted).await? {
            Some(written) => {
                tracing::info!(lease = %written.key, "this node's lease says how it is reached now");
                self.own = Some(written);
                Ok(Check::Held)
            }
            None => Err(Ended::Relist("this node's lease has changed")),
        }
    }

    async fn acquire(
        &mut self,
        client: &mut Client,
        wanted: &Attributes,
    ) -> Result<Acquired, Ended> {
        let macs = wanted.macs();
        let claim = Claim {
            public_ip: wanted.public_ip,
            public_ipv6: wanted.public_ipv6,
            macs: &macs,
            previous: self.leases.previous,
            pools: &self.leases.pools,
        };
        self.attempts += 1;
        let (node, attempts) = (self.leases.node.clone(), self.attempts);
        let mut family = 0;
        let mut choose = |many: usize| {
            family += 1;
            let hash = ContentHash::new("subnet-choice")
                .part(node.as_bytes())
                .number(attempts)
                .number(family)
                .finish();
            usize::try_from(hash).unwrap_or(usize::MAX) % many.max(1)
        };
        let own = match next(&self.table.held(), &claim, &mut choose) {
            Step::Wait(obstacle) => return Ok(Acquired::Wait(obstacle)),
            Step::Discard { key, revision } => {
                let gone = hold::discard(client, &self.prefix, key, revision).await?;
                tracing::info!(lease = %key, gone, "this node's lease is of another network and is given up");
                return Ok(Acquired::Outdated);
            }
            Step::Create(key) => hold::create(client, &self.prefix, key, wanted).await?,
            Step::Keep { key, .. } => self.take_over(client, key, wanted).await?,
        };
        let Some(own) = own else {
            return Ok(Acquired::Outdated);
        };
        tracing::info!(lease = %own.key, "this node holds a lease");
        self.leases.previous = Some(own.key);
        self.own = Some(own);
        self.keeper = None;
        self.keep_alive(client).await?;
        Ok(Acquired::Again)
    }

    /// A lease that is this node's already, from an earlier run or from flannel.
    async fn take_over(
        &mut self,
        client: &mut Client,
        key: desired::lease::LeaseKey,
        wanted: &Attributes,
    ) -> anyhow::Result<Option<Own>> {
        let Some(entry) = self.table.get(key) else {
            return Ok(None);
        };
        let own = Own {
            key,
            attributes: entry.attributes.clone().unwrap_or_else(|| wanted.clone()),
            created: entry.created,
            modified: entry.modified,
            etcd_lease: entry.etcd_lease,
        };
        if entry.attributes.as_ref() == Some(wanted) {
            return Ok(Some(own));
        }
        hold::write(client, &self.prefix, &own, wanted).await
    }

    /// Keeps the etcd lease from expiring. A reservation has none.
    async fn keep_alive(&mut self, client: &mut Client) -> anyhow::Result<()> {
        let Some(own) = self.own.as_ref().filter(|own| own.etcd_lease != 0) else {
            return Ok(());
        };
        let failed = |error: etcd_client::Error| described(&error).context("etcd: keep the lease");
        if self.keeper.is_none() {
            // Opening the stream is a sign of life already; its answer is the first message.
            self.keeper = Some(
                client
                    .lease_keep_alive(own.etcd_lease)
                    .await
                    .map_err(failed)?,
            );
            return Ok(());
        }
        if let Some((keeper, answers)) = &mut self.keeper {
            keeper.keep_alive().await.map_err(failed)?;
            let answer = answers.message().await.map_err(failed)?;
            if answer.is_none_or(|answer| answer.ttl() <= 0) {
                anyhow::bail!("etcd: the lease of {} has expired", own.key);
            }
        }
        Ok(())
    }

    fn lose(&mut self, key: desired::lease::LeaseKey) {
        self.leases.previous = Some(key);
        self.own = None;
        self.keeper = None;
    }

    /// Tells the snapshot, and what cannot be read.
    fn tell(&mut self) {
        let own = self.own.as_ref();
        let mut held = self.table.announced();
        if let Some(own) = own
            && let Ok(announced) = desired::cluster::Announced::of(&own.attributes)
        {
            // The watch may not have told of our own write yet, and what others write there is not us.
            held.insert(own.key, announced.into());
        }
        self.leases.store.set_leases(held, own.map(|own| own.key));
        let unreadable = self.table.unreadable();
        self.leases
            .report
            .send_if_modified(|report: &mut StoreReport| {
                let modified = report.unreadable != unreadable;
                if modified {
                    for problem in &unreadable {
                        tracing::warn!(problem, "a key among the leases cannot be read");
                    }
                    report.unreadable = unreadable;
                }
                modified
            });
    }
}

enum Check {
    Held,
    Lost,
    Obstacle(String),
}

enum Acquired {
    /// There is a lease: look at it.
    Again,
    /// The table is not true any more.
    Outdated,
    Wait(Obstacle),
}

fn ticks(every: Duration) -> Interval {
    let mut ticks = tokio::time::interval_at(Instant::now() + every, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
