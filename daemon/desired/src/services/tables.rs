//! Frontends, slots and backends of one family.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ebpf_shared::service::{
    BACKEND_SERVING, BACKEND_TERMINATING, BackendKey, BackendValue, FRONTEND_AFFINITY,
    FRONTEND_LOCAL_ONLY, FrontendKey, FrontendValue, SCOPE_CLUSTER, SCOPE_EXTERNAL, SlotKey,
    SlotValue,
};

use super::endpoints::{Endpoint, Readiness, SlotList, cluster_slots, local_slots};
use super::{FamilyTables, Plan, ServicePortName, ServiceProblem};
use crate::cluster::{Service, TrafficPolicy};
use crate::family::TableAddress;
use crate::names::PortNumber;
use crate::stable_id::ContentHash;

/// What the tables refer to.
pub(super) struct Context {
    pub(super) backend_ids: BTreeMap<(IpAddr, PortNumber), u32>,
    pub(super) service_ids: BTreeMap<ServicePortName, u32>,
    /// Host-side device of the pod at each address of this node.
    pub(super) ifindexes: BTreeMap<IpAddr, u32>,
}

/// Most endpoints that a frontend can count.
const LIMIT: usize = u16::MAX as usize;

fn too_many(plan: &Plan<'_>, endpoints: usize) -> Option<ServiceProblem> {
    (endpoints > LIMIT).then(|| ServiceProblem::TooManyEndpoints {
        service: plan.name.clone(),
        endpoints,
        limit: LIMIT,
    })
}

/// What a frontend's address is to the service.
#[derive(Clone, Copy)]
enum Role {
    Cluster,
    External,
}

impl Context {
    /// The tables of the services that have addresses of a family.
    pub(super) fn family_tables<A: TableAddress>(
        &self,
        plans: &[Plan<'_>],
        problems: &mut Vec<ServiceProblem>,
    ) -> FamilyTables<A> {
        let mut tables = FamilyTables::default();
        let mut owners: BTreeMap<FrontendKey<A>, &ServicePortName> = BTreeMap::new();
        for plan in plans {
            let frontends = frontends::<A>(plan);
            if frontends.is_empty() {
                continue;
            }
            let of_family = |one: &&Endpoint| A::from_ip(one.address).is_some();
            let endpoints: Vec<_> = plan.endpoints.iter().filter(of_family).cloned().collect();
            self.add_draining(&endpoints, &mut tables);
            for (key, local_only) in frontends {
                if let Some(&other) = owners.get(&key) {
                    problems.push(ServiceProblem::FrontendTaken {
                        service: plan.name.clone(),
                        address: key.addr.to_ip(),
                        port: plan.port,
                        other: other.clone(),
                    });
                    continue;
                }
                owners.insert(key, &plan.name);
                let value = self.frontend(plan, &endpoints, local_only, &mut tables, problems);
                tables.frontends.insert(key, value);
            }
        }
        tables
    }

    /// Adds the slots and backends of one frontend and returns the frontend's value.
    fn frontend<A: TableAddress>(
        &self,
        plan: &Plan<'_>,
        endpoints: &[Endpoint],
        local_only: bool,
        tables: &mut FamilyTables<A>,
        problems: &mut Vec<ServiceProblem>,
    ) -> FrontendValue {
        let list = if local_only {
            local_slots(endpoints)
        } else {
            cluster_slots(endpoints)
        };
        let SlotList {
            mut endpoints,
            local,
        } = list;
        if let Some(problem) = too_many(plan, endpoints.len()) {
            endpoints.truncate(LIMIT);
            if !problems.contains(&problem) {
                problems.push(problem);
            }
        }
        let ids: Vec<u32> = endpoints
            .iter()
            .filter_map(|one| self.add_backend(one, BACKEND_SERVING, tables))
            .collect();
        let service = self
            .service_ids
            .get(&plan.name)
            .copied()
            .unwrap_or_default();
        let generation = ids
            .iter()
            .fold(ContentHash::new("slots"), |hash, &id| {
                hash.number(id.into())
            })
            .finish_nonzero();
        for (n, &backend) in (0..).zip(&ids) {
            tables.slots.insert(
                SlotKey {
                    service,
                    generation,
                    n,
                },
                SlotValue { backend },
            );
        }
        let affinity = plan.service.affinity_seconds;
        let local_flag = if local_only { FRONTEND_LOCAL_ONLY } else { 0 };
        FrontendValue {
            service,
            generation,
            n_cluster: u16::try_from(ids.len()).unwrap_or(u16::MAX),
            n_local: u16::try_from(local).unwrap_or(u16::MAX),
            flags: local_flag | affinity.map_or(0, |_| FRONTEND_AFFINITY),
            pad: 0,
            affinity_secs: affinity.unwrap_or_default(),
        }
    }

    /// Endpoints that drain keep their flows: their backends stay, marked as such.
    fn add_draining<A: TableAddress>(&self, endpoints: &[Endpoint], tables: &mut FamilyTables<A>) {
        for one in endpoints
            .iter()
            .filter(|one| one.readiness == Readiness::Draining)
        {
            self.add_backend(one, BACKEND_TERMINATING, tables);
        }
    }

    /// A backend that any service uses is serving, whatever the others say of it.
    fn add_backend<A: TableAddress>(
        &self,
        endpoint: &Endpoint,
        state: u32,
        tables: &mut FamilyTables<A>,
    ) -> Option<u32> {
        let id = *self.backend_ids.get(&(endpoint.address, endpoint.port))?;
        let value = BackendValue {
            addr: A::from_ip(endpoint.address)?,
            port: endpoint.port.get().to_be_bytes(),
            pad: [0; 2],
            ifindex: self
                .ifindexes
                .get(&endpoint.address)
                .copied()
                .unwrap_or_default(),
            state,
        };
        let known = tables.backends.entry(BackendKey { id }).or_insert(value);
        if state == BACKEND_SERVING {
            known.state = BACKEND_SERVING;
        }
        Some(id)
    }
}

/// The frontends of a family, and whether each uses this node's endpoints only.
fn frontends<A: TableAddress>(plan: &Plan<'_>) -> Vec<(FrontendKey<A>, bool)> {
    let mut frontends = Vec::new();
    for (address, role) in frontend_addresses(plan.service) {
        let Some(addr) = A::from_ip(address) else {
            continue;
        };
        frontends.extend(
            scopes(plan.service, role)
                .into_iter()
                .map(|(scope, local_only)| {
                    let key = FrontendKey {
                        addr,
                        port: plan.port.get().to_be_bytes(),
                        proto: plan.name.protocol.number(),
                        scope,
                    };
                    (key, local_only)
                }),
        );
    }
    frontends
}

fn frontend_addresses(service: &Service) -> impl Iterator<Item = (IpAddr, Role)> + '_ {
    let cluster = service
        .cluster_ips
        .iter()
        .map(|&address| (address, Role::Cluster));
    let outside: BTreeSet<_> = service
        .external_ips
        .iter()
        .chain(&service.load_balancer_ips)
        .copied()
        .collect();
    cluster.chain(outside.into_iter().map(|address| (address, Role::External)))
}

/// The scopes in which an address is answered, and whether with this node's endpoints only.
///
/// Pods and nodes that dial an external address reach all endpoints, whatever
/// `externalTrafficPolicy` says (k#65387).
fn scopes(service: &Service, role: Role) -> Vec<(u8, bool)> {
    let local = |policy| policy == TrafficPolicy::Local;
    match role {
        Role::Cluster => vec![(SCOPE_CLUSTER, local(service.internal_traffic_policy))],
        Role::External => vec![
            (SCOPE_CLUSTER, false),
            (SCOPE_EXTERNAL, local(service.external_traffic_policy)),
        ],
    }
}
