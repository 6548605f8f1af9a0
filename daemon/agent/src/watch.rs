//! Watches of the six kinds: API events → translation → store.
//!
//! While the API server is away, what is known stays; the watch resumes where it was, or lists
//! anew and replaces everything at once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::pin::pin;
use std::sync::Arc;

use desired::cluster as domain;
use futures::{FutureExt as _, Stream, StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::api::networking::v1 as networking;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::watch as channel;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::findings::Findings;
use crate::metrics::Metrics;
use crate::store::{Change, Kind, Store, Stored};
use crate::translate::{self, AnnotationKeys, TranslateError, Translated};

/// Server-side limit of one watch in seconds; a connection that died silently is noticed by it.
const WATCH_SECONDS: u32 = 120;
/// Most events that are applied as one change.
const BATCH: usize = 512;

/// How objects of one kind become domain values.
pub trait Watched:
    Resource<DynamicType = ()> + Clone + fmt::Debug + DeserializeOwned + Send + 'static
{
    /// What it becomes.
    type Domain: Stored;

    /// The object's value in the domain.
    ///
    /// # Errors
    /// When nothing of the object can be used.
    fn translate(&self, keys: &AnnotationKeys) -> Result<Translated<Self::Domain>, TranslateError>;

    /// The key the object has in the snapshot, if its name is one.
    fn key(&self) -> Option<<Self::Domain as Stored>::Key>;
}

macro_rules! watched {
    ($object:ty, $domain:ty, |$this:ident, $keys:pat_param| $translate:expr, $key:expr) => {
        impl Watched for $object {
            type Domain = $domain;

            fn translate(
                &self,
                $keys: &AnnotationKeys,
            ) -> Result<Translated<Self::Domain>, TranslateError> {
                let $this = self;
                $translate
            }

            fn key(&self) -> Option<<Self::Domain as Stored>::Key> {
                let meta = self.meta();
                let namespace = meta.namespace.as_deref().unwrap_or_default();
                let name = meta.name.as_deref().unwrap_or_default();
                let key: fn(&str, &str) -> Option<<Self::Domain as Stored>::Key> = $key;
                key(namespace, name)
            }
        }
    };
}

watched!(
    core::Node,
    domain::Node,
    |o, keys| translate::node(o, keys),
    |_, name| { name.parse().ok() }
);
watched!(
    core::Namespace,
    domain::Namespace,
    |o, _| translate::namespace(o),
    |_, name| { name.parse().ok() }
);
watched!(
    core::Pod,
    domain::Pod,
    |o, _| translate::pod(o),
    |namespace, name| { desired::names::PodName::new(namespace, name).ok() }
);
watched!(
    core::Service,
    domain::Service,
    |o, _| translate::service(o),
    |namespace, name| { desired::names::ServiceName::new(namespace, name).ok() }
);
watched!(
    discovery::EndpointSlice,
    domain::EndpointSlice,
    |o, _| translate::endpoint_slice(o),
    |namespace, name| desired::names::SliceName::new(namespace, name).ok()
);
watched!(
    networking::NetworkPolicy,
    domain::NetworkPolicy,
    |o, _| translate::network_policy(o),
    |namespace, name| desired::names::PolicyName::new(namespace, name).ok()
);

/// What all watches share.
#[derive(Clone)]
pub struct Watches {
    /// The API server.
    pub client: Client,
    /// Where the values go.
    pub store: Arc<Store>,
    /// Counts what goes wrong.
    pub metrics: Arc<Metrics>,
    /// Where it is told what is wrong.
    pub findings: channel::Sender<Findings>,
    /// Names of the Node annotations.
    pub keys: AnnotationKeys,
    /// Ends all watches.
    pub stop: CancellationToken,
}

// === impl Watches ===

impl Watches {
    /// Starts the six watches as tasks of `tasks`.
    pub fn start(&self, tasks: &mut JoinSet<()>) {
        self.start_one::<core::Node>(tasks);
        self.start_one::<core::Namespace>(tasks);
        self.start_one::<core::Pod>(tasks);
        self.start_one::<core::Service>(tasks);
        self.start_one::<discovery::EndpointSlice>(tasks);
        self.start_one::<networking::NetworkPolicy>(tasks);
    }

    fn start_one<K: Watched>(&self, tasks: &mut JoinSet<()>) {
        let this = self.clone();
        tasks.spawn(async move {
            let config = watcher::Config::default().timeout(WATCH_SECONDS);
            // `Init` only says that a list is about to be asked for: as a success it would reset
            // the backoff before every failure.
            let events = watch(Api::<K>::all(this.client.clone()), config)
                .try_filter(|event| std::future::ready(!matches!(event, Event::Init)))
                .default_backoff();
            let stop = this.stop.clone();
            tokio::select! {
                () = stop.cancelled() => {}
                () = this.follow(events) => {}
            }
        });
    }

    /// Applies `events` to the store, those that are at hand together.
    async fn follow<K: Watched>(&self, events: impl Stream<Item = watcher::Result<Event<K>>>) {
        let mut events = pin!(events);
        let mut list = List::default();
        let kind = K::Domain::KIND;
        while let Some(first) = events.next().await {
            let mut changes = Vec::new();
            let mut next = Some(first);
            while let Some(event) = next.take() {
                match event {
                    Ok(event) => self.take(event, &mut list, &mut changes),
                    Err(error) => {
                        list = List::default();
                        self.metrics.watch_error(kind);
                        let error = anyhow::Error::from(error).root_cause().to_string();
                        self.interrupted(kind, error);
                    }
                }
                if changes.len() < BATCH {
                    next = events.next().now_or_never().flatten();
                }
            }
            if !changes.is_empty() {
                self.store.change(changes);
                let count = K::Domain::table(&self.store.snapshot()).len();
                self.metrics.objects(K::Domain::KIND, count);
            }
        }
    }

    fn interrupted(&self, kind: Kind, error: String) {
        if self.findings.borrow().interruption(kind).is_none() {
            tracing::warn!(
                %kind,
                error,
                "the watch is interrupted; what is known stays, it is tried again"
            );
        }
        let now = Timestamp::now();
        self.findings
            .send_if_modified(|all| all.interrupt(kind, error, now));
    }

    fn take<K: Watched>(
        &self,
        event: Event<K>,
        list: &mut List<K>,
        changes: &mut Vec<Change<K::Domain>>,
    ) {
        match event {
            Event::Apply(object) => {
                let (value, problems) = self.translated(&object);
                self.found(&object, problems);
                changes.extend(value.map(Change::Apply));
            }
            Event::Delete(object) => {
                self.found(&object, Vec::new());
                changes.extend(object.key().map(Change::Delete));
            }
            Event::Init => *list = List::default(),
            Event::InitApply(object) => {
                let (value, problems) = self.translated(&object);
                if !problems.is_empty() {
                    list.problems.insert(named(&object), problems);
                }
                match value {
                    Some(value) => list.objects.push(value),
                    None => list.keep.extend(object.key()),
                }
            }
            Event::InitDone => {
                let all = std::mem::take(list);
                let kind = K::Domain::KIND;
                self.findings
                    .send_if_modified(|known| known.of_list(kind, all.problems));
                let List { objects, keep, .. } = all;
                changes.push(Change::Reset { objects, keep });
            }
        }
    }

    /// The object's value, and what had to be left out, which is logged and counted.
    fn translated<K: Watched>(&self, object: &K) -> (Option<K::Domain>, Vec<TranslateError>) {
        let (value, problems) = match object.translate(&self.keys) {
            Ok(Translated { value, problems }) => (Some(value), problems),
            Err(problem) => (None, vec![problem]),
        };
        let left_out = match value {
            Some(_) => "part of an object is left out",
            None => "object is left out",
        };
        for problem in &problems {
            tracing::warn!(%problem, "{left_out}");
            self.metrics.rejected(K::Domain::KIND);
        }
        (value, problems)
    }

    fn found<K: Watched>(&self, object: &K, problems: Vec<TranslateError>) {
        let (kind, name) = (K::Domain::KIND, named(object));
        self.findings
            .send_if_modified(|known| known.of_object(kind, &name, problems));
    }
}

/// A list or watch is answered: what was interrupted goes on, even if there is no event for long.
pub fn answered(findings: &channel::Sender<Findings>, path: &str) {
    let paths = [
        (Kind::Node, core::Node::url_path(&(), None)),
        (Kind::Namespace, core::Namespace::url_path(&(), None)),
        (Kind::Pod, core::Pod::url_path(&(), None)),
        (Kind::Service, core::Service::url_path(&(), None)),
        (
            Kind::EndpointSlice,
            discovery::EndpointSlice::url_path(&(), None),
        ),
        (
            Kind::NetworkPolicy,
            networking::NetworkPolicy::url_path(&(), None),
        ),
    ];
    for (kind, _) in paths.into_iter().filter(|(_, known)| known == path) {
        if findings.send_if_modified(|all| all.resume(kind)) {
            tracing::info!(%kind, "the watch goes on");
        }
    }
}

/// `NAMESPACE/NAME`, or the name alone.
fn named<K: Watched>(object: &K) -> String {
    let meta = object.meta();
    let name = meta.name.as_deref().unwrap_or_default();
    match meta.namespace.as_deref() {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name.to_owned(),
    }
}

/// A list that is not complete yet.
struct List<K: Watched> {
    objects: Vec<K::Domain>,
    keep: BTreeSet<<K::Domain as Stored>::Key>,
    problems: BTreeMap<String, Vec<TranslateError>>,
}

// === impl List ===

impl<K: Watched> Default for List<K> {
    fn default() -> Self {
        Self {
            objects: Vec::new(),
            keep: BTreeSet::new(),
            problems: BTreeMap::new(),
        }
    }
}
