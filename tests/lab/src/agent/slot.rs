//! One container of a pod over all its runs: when to start it, and what is known of it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::core::v1::Container;
use kube::ResourceExt;
use tokio::process::Child;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::backoff::Backoff;
use super::container::{self, Run};
use super::environment::{self, Facts};
use super::image;
use super::probe::{self, Finding, Subject};
use super::sandbox;
use super::shim::{ContainerSpec, Exit};
use super::status::{ContainerFacts, Ended, State, restarts};
use super::worker::Worker;
use crate::enter::Place;

/// A run that lasts this long has the next restart start with a short pause again.
const STEADY: Duration = Duration::from_secs(600);

/// News of a container.
#[derive(Debug)]
pub(super) enum SlotEvent {
    /// A run has ended.
    Ended {
        /// Which container.
        slot: usize,
        /// Which run.
        number: i32,
        /// How.
        exit: Exit,
    },
    /// A probe has found something.
    Probed {
        /// Which container.
        slot: usize,
        /// Which run.
        number: i32,
        /// What.
        finding: Finding,
    },
}

/// One container.
pub(super) struct Slot {
    pub(super) container: Container,
    pub(super) init: bool,
    pub(super) run: Option<Run>,
    pub(super) retry_at: Option<Instant>,
    next_number: i32,
    state: State,
    last: Option<Ended>,
    ready: bool,
    started: bool,
    backoff: Backoff,
    probes: Option<JoinSet<()>>,
}

impl Slot {
    pub(super) fn new(container: Container, init: bool) -> Self {
        let reason = if init {
            "PodInitializing"
        } else {
            "ContainerCreating"
        };
        Self {
            container,
            init,
            run: None,
            retry_at: None,
            next_number: 0,
            state: State::Waiting(reason.to_owned(), String::new()),
            last: None,
            ready: false,
            started: false,
            backoff: Backoff::new(Duration::from_secs(10), Duration::from_secs(300)),
            probes: None,
        }
    }

    pub(super) fn succeeded(&self) -> bool {
        matches!(&self.state, State::Ended(ended) if ended.code == 0)
    }

    pub(super) fn facts(&self) -> ContainerFacts {
        ContainerFacts {
            name: self.container.name.clone(),
            image: self.container.image.clone().unwrap_or_default(),
            id: self.run.as_ref().map(|run| run.id.clone()),
            state: self.state.clone(),
            last: self.last.clone(),
            restarts: self.run.as_ref().map_or(0, |run| run.number),
            ready: self.ready || (self.init && self.succeeded()),
            started: self.started,
        }
    }

    pub(super) fn stop_probes(&mut self) {
        self.probes = None;
        self.ready = false;
    }

    /// Takes the end of a run: for good, or until the restart that the policy wants.
    pub(super) fn ended(&mut self, number: i32, exit: &Exit, policy: &str) {
        let Some(run) = self.run.clone().filter(|run| run.number == number) else {
            return;
        };
        let ended = Ended {
            code: exit.code,
            signal: exit.signal,
            started_at: run.started_at,
            finished_at: exit.finished_at,
            id: run.id.clone(),
        };
        self.stop_probes();
        self.started = false;
        if !restarts(policy, self.init, exit.code) {
            self.state = State::Ended(ended);
            return;
        }
        let lasted = exit.finished_at.duration_since(run.started_at);
        if lasted.unsigned_abs() >= STEADY {
            self.backoff.reset();
        }
        // As kubelet, the first restart comes at once, later ones after growing pauses.
        let pause = if number == 0 {
            Duration::ZERO
        } else {
            self.backoff.advance()
        };
        let message = format!(
            "back-off {} s restarting {}",
            pause.as_secs(),
            self.container.name
        );
        self.state = match pause.is_zero() {
            true => State::Ended(ended.clone()),
            false => State::Waiting("CrashLoopBackOff".to_owned(), message),
        };
        self.last = Some(ended);
        self.retry_at = Some(Instant::now() + pause);
    }

    /// Takes a probe's finding; gives the run to stop if it is unhealthy.
    pub(super) fn probed(&mut self, number: i32, finding: &Finding) -> Option<Run> {
        let run = self.run.as_ref().filter(|run| run.number == number)?;
        match finding {
            Finding::Started => self.started = true,
            Finding::Ready(ready, _) => self.ready = *ready,
            Finding::Unhealthy(_) => return Some(run.clone()),
        }
        None
    }

    /// Whether a start is due: never ran, or a restart whose pause is over.
    fn due(&self) -> bool {
        match (&self.state, self.retry_at) {
            (State::Running(_), _) => false,
            (_, Some(at)) => at <= Instant::now(),
            (State::Waiting(..), None) => true,
            (State::Ended(_), None) => false,
        }
    }
}

impl Worker {
    /// Takes over the runs that an earlier node agent started.
    pub(super) fn adopt_runs(&mut self) -> Result<()> {
        for index in 0..self.slots.len() {
            let name = self.slots[index].container.name.clone();
            let Some(number) = self.dir.last_run(&name)? else {
                continue;
            };
            self.slots[index].next_number = number + 1;
            if let Some(run) = container::adopt(&self.dir.run_dir(&name, number)?, number)? {
                self.follow(index, run, None);
            }
        }
        Ok(())
    }

    pub(super) async fn start_if_due(&mut self, index: usize) {
        if !self.slots[index].due() {
            return;
        }
        if let Err((reason, message)) = self.start(index) {
            self.context.event(&self.pod, "Warning", "Failed", &message);
            let slot = &mut self.slots[index];
            slot.state = State::Waiting(reason, message);
            slot.retry_at = Some(Instant::now() + slot.backoff.advance());
        }
    }

    fn start(&mut self, index: usize) -> Result<(), (String, String)> {
        let config = |error: anyhow::Error| {
            (
                "CreateContainerConfigError".to_owned(),
                format!("{error:#}"),
            )
        };
        let slot = &self.slots[index];
        let spec = self.container_spec(&slot.container).map_err(config)?;
        let argv = image::argv(&self.context.agent, &slot.container)
            .map_err(|error| (error.reason.to_owned(), error.message))?;
        let argv = argv
            .iter()
            .map(|arg| environment::expand(arg, &spec.env))
            .collect();
        let spec = ContainerSpec { argv, ..spec };
        let number = slot.next_number;
        let dir = self
            .dir
            .run_dir(&slot.container.name, number)
            .map_err(config)?;
        let (run, child) = container::start(&self.context.agent, &dir, number, &spec)
            .map_err(|error| ("RunContainerError".to_owned(), format!("{error:#}")))?;
        self.slots[index].next_number = number + 1;
        self.follow(index, run, Some(child));
        Ok(())
    }

    /// Watches a run: its end, and its probes.
    fn follow(&mut self, index: usize, run: Run, child: Option<Child>) {
        let events = self.events.clone();
        let (watched, number) = (run.clone(), run.number);
        tokio::spawn(async move {
            match watched.ended(child).await {
                Ok(exit) => drop(events.send(SlotEvent::Ended {
                    slot: index,
                    number,
                    exit,
                })),
                Err(error) => tracing::error!(container = %watched.id, "lost sight: {error:#}"),
            }
        });
        let address = self
            .sandbox
            .as_ref()
            .and_then(|record| record.addresses.first().copied());
        let subject = Subject {
            container: self.slots[index].container.clone(),
            run: run.clone(),
            address: address.unwrap_or(self.context.node_ip),
            agent: self.context.agent.clone(),
        };
        let slot = &mut self.slots[index];
        slot.state = State::Running(run.started_at);
        slot.retry_at = None;
        slot.run = Some(run);
        if !slot.init {
            let probed = move |finding| SlotEvent::Probed {
                slot: index,
                number,
                finding,
            };
            slot.probes = Some(probe::start(subject, self.events.clone(), probed));
        }
    }

    fn container_spec(&self, container: &Container) -> Result<ContainerSpec> {
        let record = self.sandbox.as_ref().context("the pod has no sandbox")?;
        // The service account's token volume comes with every pod; nothing here reads it.
        let mut mounts = container.volume_mounts.iter().flatten();
        if let Some(volume) = mounts.find(|mount| !mount.name.starts_with("kube-api-access-")) {
            bail!(
                "volumeMounts {:?}: the lab's pods have no volumes",
                volume.name
            );
        }
        let id = sandbox::random_id();
        let cgroup = self.context.pod_cgroup(&self.pod)?.child(&id);
        let place = match record.host_network {
            true => Place::default(),
            false => sandbox::place(&record.id),
        };
        let node_ip = self.context.node_ip;
        let pod_ips = match record.host_network {
            true => vec![node_ip],
            false => record.addresses.clone(),
        };
        let facts = Facts {
            pod_ips,
            host_ip: node_ip,
        };
        let services = self.context.services();
        Ok(ContainerSpec {
            env: environment::variables(&self.pod, container, &services, &facts)?,
            cwd: container
                .working_dir
                .clone()
                .map_or_else(|| PathBuf::from("/"), PathBuf::from),
            place: Place {
                cgroup: Some(cgroup.path().to_owned()),
                ..place
            },
            files: self.hosts_file(record.host_network, &facts)?,
            argv: Vec::new(),
            id,
        })
    }

    fn hosts_file(&self, host_network: bool, facts: &Facts) -> Result<BTreeMap<PathBuf, PathBuf>> {
        if host_network {
            return Ok(BTreeMap::new());
        }
        let mut text = String::from("127.0.0.1 localhost\n::1 localhost ip6-localhost\n");
        for ip in &facts.pod_ips {
            text += &format!("{ip} {}\n", self.pod.name_any());
        }
        let path = self.dir.path().join("hosts");
        std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        Ok(BTreeMap::from([(PathBuf::from("/etc/hosts"), path)]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    fn slot_with_run(number: i32) -> Slot {
        let mut slot = Slot::new(Container::default(), false);
        slot.run = Some(container::test_run(number));
        slot.state = State::Running(Timestamp::UNIX_EPOCH);
        slot
    }

    fn exit(code: i32) -> Exit {
        Exit {
            code,
            signal: None,
            finished_at: Timestamp::from_second(5).unwrap(),
        }
    }

    #[tokio::test]
    async fn a_container_restarts_at_once_and_then_after_a_pause() {
        let mut first = slot_with_run(0);
        first.ended(0, &exit(1), "Always");
        assert!(first.due());
        let mut second = slot_with_run(1);
        second.ended(1, &exit(1), "Always");
        assert!(!second.due());
        assert!(matches!(&second.state, State::Waiting(reason, _) if reason == "CrashLoopBackOff"));
        let mut done = slot_with_run(0);
        done.ended(0, &exit(0), "OnFailure");
        assert!(!done.due() && done.succeeded());
    }

    #[test]
    fn news_of_an_earlier_run_is_ignored() {
        let mut slot = slot_with_run(1);
        assert!(
            slot.probed(0, &Finding::Ready(true, String::new()))
                .is_none()
        );
        assert!(!slot.ready);
        assert!(slot.probed(1, &Finding::Unhealthy(String::new())).is_some());
    }
}
