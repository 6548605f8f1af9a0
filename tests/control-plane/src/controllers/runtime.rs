//! Runs controllers: informers feed one snapshot, changes become keys in queues, keys are reconciled
//! by pure functions, and the resulting actions are executed by tasks.
//!
//! The snapshot belongs to one task, so nothing is locked. Nothing polls: the task sleeps until a
//! watch, a finished execution or a deadline wakes it.

use anyhow::{Context, bail};
use jiff::Timestamp;
use std::collections::HashSet;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::action::Action;
use super::controller::Controller;
use super::execute::{Effect, Outcome, execute};
use super::informer::{Report, follow};
use super::object::{Change, Key, ResourceType};
use super::snapshot::Snapshot;
use super::workqueue::WorkQueue;
use crate::client::Client;

/// Reports waiting to be taken in; an informer that finds the line full waits.
const REPORTS: usize = 1024;

struct Slot {
    controller: Box<dyn Controller>,
    queue: WorkQueue,
}

struct Runtime {
    client: Client,
    snapshot: Snapshot,
    slots: Vec<Slot>,
    executions: JoinSet<(usize, Key, Outcome)>,
}

/// Runs the controllers over these resource types until `shutdown`.
///
/// # Errors
/// When a resource type cannot be listed, or an internal task fails.
pub(crate) async fn run(
    client: Client,
    controllers: Vec<Box<dyn Controller>>,
    resources: Vec<ResourceType>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let (sender, mut reports) = mpsc::channel(REPORTS);
    let mut informers = JoinSet::new();
    for resource in &resources {
        let task = follow(client.clone(), *resource, sender.clone());
        let resource = *resource;
        informers.spawn(async move { (resource, task.await) });
    }
    drop(sender);
    let mut runtime = Runtime::new(client, controllers);
    let mut unlisted: HashSet<ResourceType> = resources.into_iter().collect();
    let mut batch = Vec::new();
    loop {
        if unlisted.is_empty() {
            runtime.dispatch();
        }
        let deadline = runtime.next_deadline();
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(done) = runtime.executions.join_next() => runtime.finish(done)?,
            Some(ended) = informers.join_next() => {
                let (resource, result) = ended.context("informer task failed")?;
                result.with_context(|| format!("cannot follow {}", resource.plural))?;
            }
            count = reports.recv_many(&mut batch, REPORTS) => {
                if count == 0 {
                    break;
                }
                for report in batch.drain(..) {
                    unlisted.remove(&report.0);
                    runtime.take_in(&report);
                }
            }
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {}
        }
    }
    if !unlisted.is_empty() && !shutdown.is_cancelled() {
        bail!("the store was closed before the controllers had started");
    }
    // What was begun is finished, so that no half of a round is lost.
    while runtime.executions.join_next().await.is_some() {}
    Ok(())
}

impl Runtime {
    fn new(client: Client, controllers: Vec<Box<dyn Controller>>) -> Self {
        let slots = controllers
            .into_iter()
            .map(|controller| {
                let mut queue = WorkQueue::new(controller.width());
                for key in controller.initial() {
                    queue.add(key);
                }
                Slot { controller, queue }
            })
            .collect();
        Self {
            client,
            snapshot: Snapshot::new(Timestamp::now()),
            slots,
            executions: JoinSet::new(),
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.slots
            .iter()
            .filter_map(|slot| slot.queue.next_deadline())
            .min()
    }

    fn take_in(&mut self, (resource, observation): &Report) {
        match self.snapshot.observe(*resource, observation) {
            Ok(changes) => changes.iter().for_each(|change| self.announce(change)),
            Err(error) => {
                tracing::error!(resource = resource.plural, %error, "object ignored: not of its type's shape");
            }
        }
    }

    fn announce(&mut self, change: &Change) {
        for slot in &mut self.slots {
            for key in slot.controller.affected(change, &self.snapshot) {
                slot.queue.add(key);
            }
        }
    }

    /// Reconciles every key for which a worker is free.
    fn dispatch(&mut self) {
        let now = Instant::now();
        for (index, slot) in self.slots.iter_mut().enumerate() {
            while let Some(key) = slot.queue.take(now) {
                let actions = slot
                    .controller
                    .reconcile(&key, &self.snapshot, Timestamp::now());
                let client = self.client.clone();
                tracing::trace!(controller = slot.controller.name(), %key, count = actions.len(), "reconciled");
                if let Some(pause) = only_recheck(&actions) {
                    slot.queue.succeed(&key);
                    if let Some(pause) = pause {
                        slot.queue.add_at(key, now + pause);
                    }
                    continue;
                }
                self.executions
                    .spawn(async move { (index, key, execute(&client, actions).await) });
            }
        }
    }

    fn finish(&mut self, done: Result<(usize, Key, Outcome), JoinError>) -> anyhow::Result<()> {
        let (index, key, outcome) = done.context("execution task failed")?;
        for effect in outcome.effects {
            let change = match effect {
                Effect::Written(resource, object) => {
                    self.snapshot.record_written(resource, &object).unwrap_or_else(|error| {
                        tracing::error!(resource = resource.plural, %error, "answer ignored: not of its type's shape");
                        None
                    })
                }
                Effect::Removed(key, uid) => self.snapshot.record_removed(&key, &uid),
            };
            if let Some(change) = change {
                self.announce(&change);
            }
        }
        let slot = &mut self.slots[index];
        let now = Instant::now();
        match outcome.error {
            None => {
                slot.queue.succeed(&key);
                if let Some(pause) = outcome.recheck {
                    slot.queue.add_at(key, now + pause);
                }
            }
            Some(error) => {
                let pause = slot.queue.fail(&key, now);
                let controller = slot.controller.name();
                // A conflict means only that the snapshot was a moment behind.
                if error.code == 409 {
                    tracing::debug!(controller, %key, %error, ?pause, "will try again");
                } else {
                    tracing::warn!(controller, %key, %error, ?pause, "will try again");
                }
            }
        }
        Ok(())
    }
}

/// `Some` when nothing is to be executed; inside it the shortest recheck.
fn only_recheck(actions: &[Action]) -> Option<Option<std::time::Duration>> {
    let mut shortest = None;
    for action in actions {
        let Action::Recheck(pause) = action else {
            return None;
        };
        shortest = Some(shortest.map_or(*pause, |known: std::time::Duration| known.min(*pause)));
    }
    Some(shortest)
}
