//! One connection to etcd: list, watch, hold a lease.

use std::convert::Infallible;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use desired::cluster::Announced;
use etcd_client::{
    Client, EventType, GetOptions, GetResponse, ResponseHeader, WatchOptions, WatchResponse,
    WatchStream,
};
use futures::FutureExt as _;
use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::client::{self, described, pair};
use super::hold::Own;
use super::keeper::Keeper;
use super::state::State;
use super::table::Pair;
use super::{EtcdLeases, StoreReport};

/// Time between two questions how far the watch is: a cut connection says nothing, and neither
/// does an etcd behind a proxy that was restored to an older revision.
const PROGRESS: Duration = Duration::from_secs(15);

/// Shortest time between two snapshots that are told for other nodes' sake: when all of a large
/// cluster starts, each event is not a new picture of everything.
const TELL: Duration = Duration::from_millis(50);

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
    pub(super) leases: &'a mut EtcdLeases,
    pub(super) state: &'a mut State,
    pub(super) prefix: String,
    pub(super) keeper: Keeper,
    /// Whether the table says more than the snapshot.
    untold: bool,
}

impl From<anyhow::Error> for Ended {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

// === impl Session ===

impl<'a> Session<'a> {
    pub(super) fn new(leases: &'a mut EtcdLeases, state: &'a mut State) -> Self {
        Self {
            prefix: leases.settings.leases_prefix(),
            leases,
            state,
            keeper: Keeper::default(),
            untold: true,
        }
    }

    /// Runs until something ends it.
    pub(super) async fn run(mut self) -> Ended {
        match self.follow().await {
            Ok(never) => match never {},
            Err(Ended::Failed(error)) => Ended::Failed(self.leases.settings.explained(&error)),
            Err(ended) => ended,
        }
    }

    async fn follow(&mut self) -> Result<Infallible, Ended> {
        let mut client = self.leases.settings.connect().await?;
        self.list(&client).await?;
        let mut watch = self.watch(&client).await?;
        let mut progress = ticks(PROGRESS);
        let mut answered = true;
        let mut told = None;
        loop {
            self.hold(&mut client).await?;
            // Not before: who may read but not write is not served.
            self.leases.report.send_if_modified(StoreReport::found);
            let own = self.state.own.as_ref().map(|own| (own.key, own.modified));
            let due = match told {
                Some((known, at)) if known == own => Some(at + TELL),
                _ => None,
            };
            let due = due.filter(|due| *due > Instant::now());
            if due.is_none() && (self.untold || told.is_none_or(|(known, _)| known != own)) {
                self.tell();
                told = Some((own, Instant::now()));
            }
            tokio::select! {
                () = at(due.filter(|_| self.untold)) => {}
                message = watch.message() => {
                    answered = true;
                    let mut next = Some(message);
                    // What has come meanwhile is looked at together.
                    while let Some(message) = next {
                        self.apply(&client, message).await?;
                        next = watch.message().now_or_never();
                    }
                }
                changed = self.leases.lease.changed() => {
                    changed.context("the overlay loop has ended")?;
                }
                () = at(self.state.retry) => self.state.retry = None,
                () = self.keeper.due() => self.beat(&mut client).await?,
                _ = progress.tick() => {
                    if !std::mem::take(&mut answered) {
                        return Err(anyhow!("watch leases: no answer").into());
                    }
                    let asked = watch.request_progress().await;
                    asked.map_err(|error| described(&error)).context("watch leases")?;
                }
            }
        }
    }

    async fn list(&mut self, client: &Client) -> anyhow::Result<()> {
        let found = self.get(client, GetOptions::new().with_prefix()).await?;
        let pairs = found.kvs().iter().map(pair);
        if self.state.list(revision(found.header()), pairs) {
            tracing::warn!("etcd was wiped, or restored to an older revision than was known");
        }
        Ok(())
    }

    async fn get(&self, client: &Client, options: GetOptions) -> anyhow::Result<GetResponse> {
        let found = client::get(client, &self.prefix, options).await;
        found
            .map_err(|error| described(&error))
            .context("list leases")
    }

    async fn watch(&self, client: &Client) -> anyhow::Result<WatchStream> {
        let options = WatchOptions::new()
            .with_prefix()
            .with_start_revision(self.state.revision + 1);
        let stream = client::watch(client, &self.prefix, options).await;
        stream
            .map_err(|error| described(&error))
            .context("watch leases")
    }

    async fn apply(
        &mut self,
        client: &Client,
        message: Result<Option<WatchResponse>, etcd_client::Error>,
    ) -> Result<(), Ended> {
        let message = message.map_err(|error| described(&error));
        let message = message.context("watch leases")?;
        let message = message.context("watch leases: the stream ended")?;
        if message.compact_revision() > 0 {
            return Err(Ended::Relist("etcd has compacted what was missed"));
        }
        if message.canceled() {
            let reason = message.cancel_reason().to_owned();
            return Err(anyhow!("watch leases: {reason}").into());
        }
        self.untold |= !message.events().is_empty();
        for event in message.events() {
            let Some(changed) = event.kv() else { continue };
            match event.event_type() {
                EventType::Put => self.state.table.put(&pair(changed)),
                EventType::Delete => self
                    .state
                    .table
                    .delete(changed.key(), changed.mod_revision()),
            }
            // Not the revision of the answer: etcd before 3.4.25 tells of progress before it has
            // told of everything up to there.
            self.state.revision = self.state.revision.max(changed.mod_revision());
        }
        if revision(message.header()) < self.state.revision {
            // This member may lag behind the one that was asked before; only the majority knows.
            let limit = GetOptions::new().with_prefix().with_limit(1);
            let now = self.get(client, limit).await?;
            if revision(now.header()) < self.state.revision {
                return Err(Ended::Relist("etcd is at an older revision than before"));
            }
        }
        Ok(())
    }

    /// Tells the snapshot, and what cannot be read.
    fn tell(&mut self) {
        self.untold = false;
        let own = self.state.own.as_ref();
        let mut held = self.state.table.announced();
        if let Some(own) = own
            && let Ok(announced) = Announced::of(&own.attributes)
        {
            // What others write there is not how this node is reached.
            held.insert(own.key, announced.into());
        }
        self.leases.store.set_leases(held, own.map(|own| own.key));
        let unreadable = self.state.table.unreadable();
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

    /// This node has written `own`: the watch tells of it later.
    pub(super) fn written(&mut self, own: Own) {
        let name = format!("{}{}", self.prefix, own.key);
        self.state.table.put(&Pair {
            key: name.as_bytes(),
            value: &own.attributes.encode(),
            created: own.created,
            modified: own.modified,
            etcd_lease: own.etcd_lease,
        });
        self.state.hold(own);
    }
}

fn revision(header: Option<&ResponseHeader>) -> i64 {
    header.map_or(0, ResponseHeader::revision)
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

fn ticks(every: Duration) -> Interval {
    let mut ticks = tokio::time::interval_at(Instant::now() + every, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
