//! One pod's life on the node: sandbox, containers, probes, status, end. One task per pod.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::Context;
use super::backoff::Backoff;
use super::checkpoint::{PodDir, SandboxRecord};
use super::probe::Finding;
use super::sandbox;
use super::slot::{Slot, SlotEvent};
use super::status::{self, PodFacts};

/// The newest that is known of a pod's object.
#[derive(Debug, Clone)]
pub(super) struct Update {
    /// The object.
    pub(super) pod: Arc<Pod>,
    /// Whether it no longer exists at the API server.
    pub(super) gone: bool,
}

/// One pod.
pub(super) struct Worker {
    pub(super) context: Arc<Context>,
    pub(super) pod: Arc<Pod>,
    pub(super) dir: PodDir,
    pub(super) sandbox: Option<SandboxRecord>,
    pub(super) slots: Vec<Slot>,
    pub(super) events: mpsc::UnboundedSender<SlotEvent>,
    inbox: mpsc::UnboundedReceiver<SlotEvent>,
    updates: watch::Receiver<Update>,
    sandbox_error: Option<String>,
    sandbox_backoff: Backoff,
    retry_at: Option<Instant>,
    start_time: Timestamp,
    published: Option<PodStatus>,
    over: bool,
}

impl Worker {
    /// A worker for the pod in `updates`, taking over what `dir` records.
    ///
    /// # Errors
    /// When the records are damaged.
    pub(super) fn new(
        context: Arc<Context>,
        dir: PodDir,
        mut updates: watch::Receiver<Update>,
    ) -> Result<Self> {
        let pod = updates.borrow_and_update().pod.clone();
        let (events, inbox) = mpsc::unbounded_channel();
        let spec = pod.spec.clone().unwrap_or_default();
        let init = spec
            .init_containers
            .unwrap_or_default()
            .into_iter()
            .map(|c| Slot::new(c, true));
        let main = spec.containers.into_iter().map(|c| Slot::new(c, false));
        let start_time = pod
            .status
            .as_ref()
            .and_then(|status| status.start_time.as_ref());
        let mut worker = Self {
            start_time: start_time.map_or_else(Timestamp::now, |time| time.0),
            sandbox: dir.sandbox()?,
            slots: init.chain(main).collect(),
            sandbox_error: None,
            sandbox_backoff: Backoff::new(Duration::from_millis(500), Duration::from_secs(10)),
            retry_at: None,
            published: None,
            over: false,
            context,
            pod,
            dir,
            events,
            inbox,
            updates,
        };
        worker.adopt_runs()?;
        Ok(worker)
    }

    /// Runs the pod until it is deleted and nothing of it is left.
    pub(super) async fn run(mut self) {
        loop {
            let update = self.updates.borrow_and_update().clone();
            self.pod = update.pod;
            if update.gone || self.pod.metadata.deletion_timestamp.is_some() {
                return self.terminate(update.gone).await;
            }
            self.advance().await;
            self.publish().await;
            let wake = self.next_wake();
            tokio::select! {
                changed = self.updates.changed() => if changed.is_err() { return },
                Some(event) = self.inbox.recv() => self.take(event),
                () = sleep_until(wake) => {}
            }
        }
    }

    /// Takes the next step that is due: the sandbox, then init containers in turn, then the others.
    async fn advance(&mut self) {
        let now = Instant::now();
        if self.over || self.retry_at.is_some_and(|at| at > now) {
            return;
        }
        self.retry_at = None;
        if let Err(error) = self.ensure_sandbox().await {
            let message = format!("{error:#}");
            tracing::warn!(pod = %self.pod.name_any(), error = %message, "sandbox not made");
            self.context
                .event(&self.pod, "Warning", "FailedCreatePodSandBox", &message);
            self.sandbox_error = Some(message);
            self.retry_at = Some(now + self.sandbox_backoff.advance());
            return;
        }
        self.sandbox_error = None;
        for index in 0..self.slots.len() {
            if self.slots[index].init {
                self.start_if_due(index).await;
                if !self.slots[index].succeeded() {
                    return;
                }
            } else {
                self.start_if_due(index).await;
            }
        }
    }

    async fn ensure_sandbox(&mut self) -> Result<()> {
        match &self.sandbox {
            Some(record) if record.ready => return Ok(()),
            // Half made, by an attempt that failed or an agent that was killed.
            Some(record) => {
                sandbox::remove(&self.context.cni, &self.dir, record).await?;
                self.sandbox = None;
            }
            None => {}
        }
        let made = sandbox::create(&self.context.cni, &self.dir, &self.pod).await;
        self.sandbox = self.dir.sandbox()?;
        if made.is_err()
            && let Some(record) = &self.sandbox
        {
            sandbox::remove(&self.context.cni, &self.dir, record).await?;
            self.sandbox = None;
        }
        made.map(drop)
    }

    fn take(&mut self, event: SlotEvent) {
        let policy = self
            .pod
            .spec
            .as_ref()
            .and_then(|spec| spec.restart_policy.clone());
        let policy = policy.unwrap_or_else(|| "Always".to_owned());
        match event {
            SlotEvent::Ended { slot, number, exit } => {
                self.slots[slot].ended(number, &exit, &policy);
            }
            SlotEvent::Probed {
                slot,
                number,
                finding,
            } => {
                let name = self.slots[slot].container.name.clone();
                if let Finding::Unhealthy(why) | Finding::Ready(false, why) = &finding {
                    let message = format!("container {name}: {why}");
                    self.context
                        .event(&self.pod, "Warning", "Unhealthy", &message);
                }
                let grace = self.grace();
                if let Some(run) = self.slots[slot].probed(number, &finding) {
                    tokio::spawn(async move { run.stop(grace).await });
                }
            }
        }
    }

    fn facts(&self) -> PodFacts {
        let ready = self.sandbox.as_ref().filter(|record| record.ready);
        let host_ip = self.context.node_ip;
        let addresses = match ready {
            Some(record) if record.host_network => vec![host_ip],
            Some(record) => record.addresses.clone(),
            None => Vec::new(),
        };
        let (init, main) = self.slots.iter().partition::<Vec<_>, _>(|slot| slot.init);
        PodFacts {
            sandbox_ready: ready.is_some(),
            sandbox_error: self.sandbox_error.clone(),
            addresses,
            host_ip,
            start_time: self.start_time,
            init: init.into_iter().map(Slot::facts).collect(),
            main: main.into_iter().map(Slot::facts).collect(),
        }
    }

    /// Writes the status if it changed; a failure is tried again soon.
    async fn publish(&mut self) {
        let status = status::compute(&self.pod, &self.facts(), Timestamp::now());
        let known = self.published.as_ref().or(self.pod.status.as_ref());
        if known == Some(&status) {
            return;
        }
        let patch = json!({"metadata": {"uid": self.pod.metadata.uid}, "status": status});
        let params = PatchParams::default();
        let done = self
            .pods()
            .patch_status(&self.pod.name_any(), &params, &Patch::Merge(&patch))
            .await;
        match done {
            Ok(_) => {
                let phase = status.phase.clone().unwrap_or_default();
                Arc::make_mut(&mut self.pod).status = Some(status.clone());
                self.published = Some(status);
                if phase == "Succeeded" || phase == "Failed" {
                    self.finish().await;
                }
            }
            // Deleted or replaced meanwhile: the watch will say so.
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {}
            Err(error) => {
                tracing::warn!(pod = %self.pod.name_any(), %error, "status not written");
                let soon = Instant::now() + Duration::from_secs(1);
                self.retry_at = Some(self.retry_at.map_or(soon, |at| at.min(soon)));
            }
        }
    }

    /// A pod whose containers are done for good gives its network back.
    async fn finish(&mut self) {
        self.over = true;
        if let Some(record) = &self.sandbox {
            match sandbox::remove(&self.context.cni, &self.dir, record).await {
                Ok(()) => self.sandbox = None,
                Err(error) => {
                    tracing::warn!(pod = %self.pod.name_any(), "sandbox not removed: {error:#}");
                }
            }
        }
    }

    async fn terminate(&mut self, gone: bool) {
        for slot in &mut self.slots {
            slot.stop_probes();
        }
        if !gone {
            self.publish().await;
        }
        let grace = if gone { Duration::ZERO } else { self.grace() };
        self.stop_containers(grace).await;
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(10));
        while let Err(error) = self.clean().await {
            let message = format!("{error:#}");
            tracing::warn!(pod = %self.pod.name_any(), error = %message, "pod not cleaned up");
            self.context
                .event(&self.pod, "Warning", "FailedKillPod", &message);
            tokio::time::sleep(backoff.advance()).await;
        }
        while let Err(error) = self.delete_object().await {
            tracing::warn!(pod = %self.pod.name_any(), %error, "pod object not deleted");
            tokio::time::sleep(backoff.advance()).await;
        }
        tracing::info!(pod = %self.pod.name_any(), "pod ended");
    }

    /// Stops all containers, at once when the object is forced away meanwhile.
    async fn stop_containers(&mut self, grace: Duration) {
        let runs = self
            .slots
            .iter()
            .filter_map(|slot| slot.run.clone())
            .collect::<Vec<_>>();
        let stops = futures::future::join_all(runs.iter().map(|run| run.stop(grace)));
        let forced = async {
            while !self.updates.borrow_and_update().gone {
                if self.updates.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        let results = tokio::select! {
            results = stops => results,
            () = forced, if !grace.is_zero() => {
                futures::future::join_all(runs.iter().map(|run| run.stop(Duration::ZERO))).await
            }
        };
        for error in results.into_iter().filter_map(Result::err) {
            tracing::warn!(pod = %self.pod.name_any(), "container not stopped: {error:#}");
        }
    }

    async fn clean(&mut self) -> Result<()> {
        if let Some(record) = &self.sandbox {
            sandbox::remove(&self.context.cni, &self.dir, record).await?;
            self.sandbox = None;
        }
        let cgroup = self.context.pod_cgroup(&self.pod)?;
        let dir = self.dir.clone();
        let clean =
            tokio::task::spawn_blocking(move || cgroup.destroy().and_then(|()| dir.remove()));
        clean.await.context("wait for the clean-up")?
    }

    async fn delete_object(&self) -> Result<(), kube::Error> {
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions {
                uid: self.pod.metadata.uid.clone(),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        match self.pods().delete(&self.pod.name_any(), &params).await {
            Ok(_) => Ok(()),
            // Gone already, or another pod of the same name.
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn pods(&self) -> Api<Pod> {
        let namespace = self.pod.metadata.namespace.as_deref().unwrap_or("default");
        Api::namespaced(self.context.client.clone(), namespace)
    }

    fn grace(&self) -> Duration {
        let spec = self
            .pod
            .spec
            .as_ref()
            .and_then(|spec| spec.termination_grace_period_seconds);
        let seconds = self
            .pod
            .metadata
            .deletion_grace_period_seconds
            .or(spec)
            .unwrap_or(30);
        Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
    }

    fn next_wake(&self) -> Option<Instant> {
        self.slots
            .iter()
            .filter_map(|slot| slot.retry_at)
            .chain(self.retry_at)
            .min()
    }
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
