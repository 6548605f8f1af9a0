//! NetworkPolicy: programs on the pods' devices, verdicts, classes, and the pods' own entries.
//!
//! Programs come first and the pod's entry last: a device with programs and without an entry
//! drops everything, so a pod is closed until everything that decides on its flows is there.

use std::collections::BTreeMap;
use std::sync::Arc;

use desired::cluster::{Cluster, EndpointId, LocalEndpoint};
use desired::policy::{PeerTables, PolicyProblem, PolicyTables, bridge, policy};
use ebpf_shared::maps::Config;
use ebpf_shared::policy::{
    CidrKey, ClassKey, ClassValue, PodKey, PodNetnsKey, PodNetnsValue, PodValue, VerdictKey,
    VerdictValue,
};
use ebpf_shared::{V4, V6};
use netstate::{IfName, Report, Wanted, reconcile};
use tokio::sync::watch;

use super::map::Map;
use super::run::{Pass, Reconciler, merge};
use crate::endpoint::{InForce, Waiting};
use crate::host::Observer;

/// Name of the loop.
pub const NAME: &str = "policy";

/// What the programs of a pod's device are attached to: name and kernel index of the device.
pub type Attachments = Map<u32, IfName>;

/// Class maps of one family.
pub struct PeerMaps<A: Ord + Clone> {
    /// `towline_class_*`.
    pub classes: Map<ClassKey<A>, ClassValue>,
    /// `towline_cidr_class_*`.
    pub cidr_classes: Map<CidrKey<A>, ClassValue>,
}

/// All maps of the policy loop.
pub struct PolicyMaps {
    /// `towline_config`.
    pub config: Map<u32, Config>,
    /// What its one entry shall be.
    pub wanted_config: Config,
    /// Programs by device.
    pub attachments: Attachments,
    /// `towline_verdict`.
    pub verdicts: Map<VerdictKey, VerdictValue>,
    /// IPv4 peers.
    pub v4: PeerMaps<V4>,
    /// IPv6 peers.
    pub v6: PeerMaps<V6>,
    /// `towline_pod` with its address index.
    pub pods: Map<PodKey, PodValue>,
    /// `towline_pod_netns`.
    pub pod_netns: Map<PodNetnsKey, PodNetnsValue>,
}

/// The loop that keeps policy.
pub struct PolicyLoop {
    maps: PolicyMaps,
    observer: Box<dyn Observer>,
    enforce: bool,
    tables: watch::Sender<Arc<PolicyTables>>,
    in_force: watch::Sender<InForce>,
    problems: Vec<PolicyProblem>,
}

// === impl PolicyLoop ===

impl PolicyLoop {
    /// Keeps `maps`. Without `enforce` every pod is open, but still bound to its own addresses.
    #[must_use]
    pub fn new(
        maps: PolicyMaps,
        observer: Box<dyn Observer>,
        enforce: bool,
        tables: watch::Sender<Arc<PolicyTables>>,
        in_force: watch::Sender<InForce>,
    ) -> Self {
        Self {
            maps,
            observer,
            enforce,
            tables,
            in_force,
            problems: Vec::new(),
        }
    }

    /// The snapshot with what is observed on this host, and without what is not to be enforced.
    fn input(&mut self, cluster: &Arc<Cluster>) -> Arc<Cluster> {
        let mut input = self.observer.observed(cluster);
        if !self.enforce && !input.network_policies.is_empty() {
            Arc::make_mut(&mut input).network_policies.clear();
        }
        input
    }

    /// Changes the kernel over to `tables`. While old and new entries meet, verdicts that bridge
    /// both keep flows going which both allow; they go when everything else is done.
    fn apply(&mut self, cluster: &Cluster, tables: &PolicyTables, look: bool) -> Report {
        let mut bridged = bridge(&self.tables.borrow(), tables);
        let bridges = !bridged.is_empty();
        bridged.extend(tables.verdicts.iter().map(|(key, value)| (*key, *value)));
        let mut report = self.apply_with(cluster, tables, &bridged, look);
        if bridges {
            let verdicts = &mut self.maps.verdicts;
            let mut verdicts = Wanted::new("verdict", verdicts, &tables.verdicts);
            merge(&mut report, reconcile(&mut [&mut verdicts]));
        }
        report
    }

    fn apply_with(
        &mut self,
        cluster: &Cluster,
        tables: &PolicyTables,
        bridged: &BTreeMap<VerdictKey, VerdictValue>,
        look: bool,
    ) -> Report {
        let attached = cluster.local_endpoints.values();
        let attached = attached
            .map(|one| (one.host_ifindex, one.host_interface.clone()))
            .collect();
        let maps = &mut self.maps;
        maps.begin(look);
        let PeerTables {
            classes,
            cidr_classes,
        } = &tables.v4;
        let mut classes4 = Wanted::new("class-v4", &mut maps.v4.classes, classes);
        let mut cidrs4 = Wanted::new("cidr-class-v4", &mut maps.v4.cidr_classes, cidr_classes);
        let PeerTables {
            classes,
            cidr_classes,
        } = &tables.v6;
        let mut classes6 = Wanted::new("class-v6", &mut maps.v6.classes, classes);
        let mut cidrs6 = Wanted::new("cidr-class-v6", &mut maps.v6.cidr_classes, cidr_classes);
        let config = BTreeMap::from([(0, maps.wanted_config)]);
        let mut config = Wanted::new("config", &mut maps.config, &config);
        let mut attachments = Wanted::new("attachment", &mut maps.attachments, &attached);
        let mut verdicts = Wanted::new("verdict", &mut maps.verdicts, bridged);
        let mut pod_netns = Wanted::new("pod-netns", &mut maps.pod_netns, &tables.pod_netns);
        let mut pods = Wanted::new("pod", &mut maps.pods, &tables.pods);
        reconcile(&mut [
            &mut config,
            &mut attachments,
            &mut verdicts,
            &mut classes4,
            &mut cidrs4,
            &mut classes6,
            &mut cidrs6,
            &mut pod_netns,
            &mut pods,
        ])
    }

    fn tell_problems(&mut self, tables: &PolicyTables) {
        if tables.problems != self.problems {
            for problem in &tables.problems {
                tracing::warn!(%problem, "policy is not enforced as written; it denies instead");
            }
            self.problems.clone_from(&tables.problems);
        }
    }
}

impl Reconciler for PolicyLoop {
    fn name(&self) -> &'static str {
        NAME
    }

    fn pass(&mut self, cluster: &Arc<Cluster>, pass: Pass) -> Report {
        let input = self.input(cluster);
        let Some(tables) = policy(&input) else {
            return Report::default();
        };
        self.tell_problems(&tables);
        let report = self.apply(&input, &tables, pass.look);
        let now = in_force(&input, &tables, &report, &self.in_force.borrow());
        self.tables.send_replace(Arc::new(tables));
        self.in_force.send_if_modified(|known| {
            let modified = *known != now;
            *known = now;
            modified
        });
        report
    }
}

/// What is in force after a pass. If the kernel refused anything, only what was in force before
/// still is.
fn in_force(
    cluster: &Cluster,
    tables: &PolicyTables,
    report: &Report,
    before: &InForce,
) -> InForce {
    let mut ready: BTreeMap<EndpointId, (Arc<LocalEndpoint>, u32)> = BTreeMap::new();
    let mut waiting = BTreeMap::new();
    for (id, endpoint) in &cluster.local_endpoints {
        let known = tables.pods.contains_key(&PodKey {
            ifindex: endpoint.host_ifindex,
        });
        match (known, report.errors.first()) {
            (false, _) => {
                waiting.insert(id.clone(), Waiting::Pod);
            }
            (true, None) => {
                ready.insert(id.clone(), (endpoint.clone(), tables.revision));
            }
            (true, Some(error)) => match before.revision(endpoint) {
                Some(revision) => {
                    ready.insert(id.clone(), (endpoint.clone(), revision));
                }
                None => {
                    waiting.insert(id.clone(), Waiting::Tables(error.to_string()));
                }
            },
        }
    }
    InForce { ready, waiting }
}

// === impl PolicyMaps ===

impl PolicyMaps {
    fn begin(&mut self, look: bool) {
        self.config.begin(look);
        self.attachments.begin(look);
        self.verdicts.begin(look);
        self.v4.begin(look);
        self.v6.begin(look);
        self.pods.begin(look);
        self.pod_netns.begin(look);
    }
}

// === impl PeerMaps ===

impl<A: Ord + Clone + 'static> PeerMaps<A> {
    fn begin(&mut self, look: bool) {
        self.classes.begin(look);
        self.cidr_classes.begin(look);
    }
}
