//! Watches of the six kinds: API events → translation → store.
//!
//! While the API server is away, what is known stays; the watch resumes where it was, or lists
//! anew and replaces everything at once.

use std::collections::BTreeSet;
use std::fmt;
use std::pin::pin;
use std::sync::Arc;

use desired::cluster as domain;
use futures::{FutureExt as _, Stream, StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::api::networking::v1 as networking;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::store::{Change, Store, Stored};
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
        let mut failing = false;
        while let Some(first) = events.next().await {
            let mut changes = Vec::new();
            let mut next = Some(first);
            while let Some(event) = next.take() {
                match event {
                    Ok(event) => {
                        if failing {
                            tracing::info!(kind = %K::Domain::KIND, "the watch goes on");
                            failing = false;
                        }
                        self.take(event, &mut list, &mut changes);
                    }
                    Err(error) => {
                        list = List::default();
                        self.metrics.watch_error(K::Domain::KIND);
                        if !failing {
                            tracing::warn!(
                                kind = %K::Domain::KIND,
                                error = %anyhow::Error::from(error).root_cause(),
                                "the watch is interrupted; what is known stays, it is tried again"
                            );
                        }
                        failing = true;
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

    fn take<K: Watched>(
        &self,
        event: Event<K>,
        list: &mut List<K>,
        changes: &mut Vec<Change<K::Domain>>,
    ) {
        match event {
            Event::Apply(object) => {
                if let Some(value) = self.translated(&object) {
                    changes.push(Change::Apply(value));
                }
            }
            Event::Delete(object) => changes.extend(object.key().map(Change::Delete)),
            Event::Init => *list = List::default(),
            Event::InitApply(object) => match self.translated(&object) {
                Some(value) => list.objects.push(value),
                None => list.keep.extend(object.key()),
            },
            Event::InitDone => {
                let List { objects, keep } = std::mem::take(list);
                changes.push(Change::Reset { objects, keep });
            }
        }
    }

    /// The object's value; what had to be left out is logged and counted.
    fn translated<K: Watched>(&self, object: &K) -> Option<K::Domain> {
        match object.translate(&self.keys) {
            Ok(Translated { value, problems }) => {
                for problem in &problems {
                    tracing::warn!(%problem, "part of an object is left out");
                    self.metrics.rejected(K::Domain::KIND);
                }
                Some(value)
            }
            Err(problem) => {
                tracing::warn!(%problem, "object is left out");
                self.metrics.rejected(K::Domain::KIND);
                None
            }
        }
    }
}

/// A list that is not complete yet.
struct List<K: Watched> {
    objects: Vec<K::Domain>,
    keep: BTreeSet<<K::Domain as Stored>::Key>,
}

// === impl List ===

impl<K: Watched> Default for List<K> {
    fn default() -> Self {
        Self {
            objects: Vec::new(),
            keep: BTreeSet::new(),
        }
    }
}
