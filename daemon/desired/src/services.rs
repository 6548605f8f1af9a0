//! Services and endpoint slices to the data path's frontends, slots and backends.

mod endpoints;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ebpf_shared::service::{
    BACKEND_SERVING, BACKEND_TERMINATING, BackendKey, BackendValue, FRONTEND_AFFINITY,
    FRONTEND_LOCAL_ONLY, FrontendKey, FrontendValue, SCOPE_CLUSTER, SCOPE_EXTERNAL, SlotKey,
    SlotValue,
};
use ebpf_shared::{V4, V6};
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub(crate) use endpoints::slot_endpoints;
pub use endpoints::{Endpoint, Readiness};

use crate::cluster::{Cluster, EndpointSlice, Service, ServicePort, ServiceType, TrafficPolicy};
use crate::family::TableAddress;
use crate::names::{PortNumber, Protocol, ServiceName};
use crate::services::endpoints::{SlotList, cluster_slots, local_slots};
use crate::stable_id::{ContentHash, assign};

/// The service tables of both families.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ServiceTables {
    /// IPv4.
    pub v4: FamilyTables<V4>,
    /// IPv6.
    pub v6: FamilyTables<V6>,
    /// What each service id in the tables (and in flows) stands for.
    pub names: BTreeMap<u32, ServicePortName>,
    /// What could not be programmed. Everything else is.
    pub problems: Vec<ServiceProblem>,
}

/// The service tables of one family. Put backends first, then slots, then frontends.
#[derive(Debug, Clone, PartialEq)]
pub struct FamilyTables<A: Ord> {
    /// `towline_backend_*`.
    pub backends: BTreeMap<BackendKey, BackendValue<A>>,
    /// `towline_slot_*`.
    pub slots: BTreeMap<SlotKey, SlotValue>,
    /// `towline_frontend_*`.
    pub frontends: BTreeMap<FrontendKey<A>, FrontendValue>,
}

impl<A: Ord> Default for FamilyTables<A> {
    fn default() -> Self {
        Self {
            backends: BTreeMap::new(),
            slots: BTreeMap::new(),
            frontends: BTreeMap::new(),
        }
    }
}

/// One port of a Service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServicePortName {
    /// The Service.
    pub service: ServiceName,
    /// The port's name; empty when it has none.
    pub port: String,
    /// The port's protocol.
    pub protocol: Protocol,
}

/// Prints `namespace/name:port/PROTOCOL`.
impl fmt::Display for ServicePortName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}/{}", self.service, self.port, self.protocol)
    }
}

/// Something of a Service that could not be programmed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ServiceProblem {
    /// Two services want one frontend.
    #[error(
        "service {service}: {address}:{port} is a frontend of {other} already: give each its own"
    )]
    FrontendTaken {
        /// The service port that goes without: the later one by name.
        service: ServicePortName,
        /// The address both want.
        address: IpAddr,
        /// The port both want.
        port: PortNumber,
        /// The service port that has it.
        other: ServicePortName,
    },
    /// More endpoints than a frontend can count.
    #[error(
        "service {service}: {endpoints} endpoints, of which {limit} are used: split the service"
    )]
    TooManyEndpoints {
        /// The service port.
        service: ServicePortName,
        /// How many it has.
        endpoints: usize,
        /// How many are used.
        limit: usize,
    },
}

/// Computes the service tables.
///
/// SCTP ports are known ([`endpoints_of`]) and not programmed. Headless services, ExternalName
/// services and those of another proxy have no frontend; a service without usable endpoints has
/// one that counts 0, so that its traffic is refused and not lost.
#[must_use]
pub fn services(cluster: &Cluster) -> ServiceTables {
    let mut plans = plans(cluster);
    plans.retain(|plan| plan.name.protocol != Protocol::Sctp);
    let backends = plans
        .iter()
        .flat_map(|plan| &plan.endpoints)
        .map(|one| (one.address, one.port));
    let backend_ids = assign(backends.collect(), 1, |(address, port), attempt| {
        ContentHash::new("backend")
            .part(address.to_string().as_bytes())
            .number(port.get().into())
            .number(attempt)
            .finish()
    });
    let names: BTreeSet<_> = plans.iter().map(|plan| plan.name.clone()).collect();
    let service_ids = assign(names, 1, |name, attempt| {
        ContentHash::new("service")
            .part(name.to_string().as_bytes())
            .number(attempt)
            .finish()
    });
    let registered = cluster.local_endpoints.values().flat_map(|endpoint| {
        endpoint
            .addresses
            .iter()
            .map(|&address| (address, endpoint.host_ifindex))
    });
    let context = Context {
        ifindexes: registered.collect(),
        backend_ids,
        service_ids,
    };
    let mut problems = Vec::new();
    let v4 = context.family_tables(&plans, &mut problems);
    let v6 = context.family_tables(&plans, &mut problems);
    let names = context
        .service_ids
        .into_iter()
        .map(|(name, id)| (id, name))
        .collect();
    ServiceTables {
        v4,
        v6,
        names,
        problems,
    }
}

/// The endpoints of every port of a service, whether or not they are used; empty for a service
/// that is not there.
#[must_use]
pub fn endpoints_of(
    cluster: &Cluster,
    service: &ServiceName,
) -> Vec<(ServicePortName, Vec<Endpoint>)> {
    let slices: Vec<_> = slices(cluster)
        .filter(|(name, _)| *name == service)
        .map(|(_, slice)| slice)
        .collect();
    let ports = cluster
        .services
        .get(service)
        .into_iter()
        .flat_map(|service| &service.ports);
    ports
        .map(|port| {
            let name = port_name(service, port);
            let slices = slices.iter().copied();
            (
                name,
                endpoints::endpoints(port, slices, &cluster.this_node.name),
            )
        })
        .collect()
}

/// One port of one service with its endpoints.
struct Plan<'a> {
    name: ServicePortName,
    service: &'a Service,
    port: PortNumber,
    endpoints: Vec<Endpoint>,
}

fn plans(cluster: &Cluster) -> Vec<Plan<'_>> {
    let mut by_service: BTreeMap<&ServiceName, Vec<&EndpointSlice>> = BTreeMap::new();
    for (service, slice) in slices(cluster) {
        by_service.entry(service).or_default().push(slice);
    }
    let programmed = cluster
        .services
        .values()
        .filter(|service| is_programmed(service));
    let mut plans = Vec::new();
    for service in programmed {
        let slices = by_service
            .get(&service.name)
            .map(Vec::as_slice)
            .unwrap_or_default();
        plans.extend(service.ports.iter().map(|port| Plan {
            name: port_name(&service.name, port),
            service,
            port: port.port,
            endpoints: endpoints::endpoints(port, slices.iter().copied(), &cluster.this_node.name),
        }));
    }
    plans
}

fn slices(cluster: &Cluster) -> impl Iterator<Item = (&ServiceName, &EndpointSlice)> {
    let of_services = cluster
        .endpoint_slices
        .values()
        .filter(|slice| !slice.headless);
    of_services.filter_map(|slice| Some((slice.service.as_ref()?, slice.as_ref())))
}

/// Whether a service has virtual addresses that are ours to implement.
#[must_use]
pub fn is_programmed(service: &Service) -> bool {
    service.service_type != ServiceType::ExternalName
        && !service.foreign_proxy
        && !service.cluster_ips.is_empty()
}

fn port_name(service: &ServiceName, port: &ServicePort) -> ServicePortName {
    ServicePortName {
        service: service.clone(),
        port: port.name.clone(),
        protocol: port.protocol,
    }
}

struct Context {
    backend_ids: BTreeMap<(IpAddr, PortNumber), u32>,
    service_ids: BTreeMap<ServicePortName, u32>,
    /// Host-side device of the pod at each address of this node.
    ifindexes: BTreeMap<IpAddr, u32>,
}

/// What a frontend's address is to the service.
#[derive(Clone, Copy)]
enum Role {
    Cluster,
    External,
}

impl Context {
    fn family_tables<A: TableAddress>(
        &self,
        plans: &[Plan<'_>],
        problems: &mut Vec<ServiceProblem>,
    ) -> FamilyTables<A> {
        let mut tables = FamilyTables::default();
        let mut owners: BTreeMap<FrontendKey<A>, &ServicePortName> = BTreeMap::new();
        for plan in plans {
            let addresses = frontend_addresses(plan.service);
            let mut addresses = addresses
                .filter_map(|(address, role)| Some((A::from_ip(address)?, role)))
                .peekable();
            if addresses.peek().is_none() {
                continue;
            }
            let of_family = |one: &&Endpoint| A::from_ip(one.address).is_some();
            let endpoints: Vec<_> = plan.endpoints.iter().filter(of_family).cloned().collect();
            self.add_draining(&endpoints, &mut tables);
            for (address, role) in addresses {
                for (scope, local_only) in scopes(plan.service, role) {
                    let key = FrontendKey {
                        addr: address,
                        port: plan.port.get().to_be_bytes(),
                        proto: plan.name.protocol.number(),
                        scope,
                    };
                    if let Some(&other) = owners.get(&key) {
                        problems.push(ServiceProblem::FrontendTaken {
                            service: plan.name.clone(),
                            address: address.to_ip(),
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
        let limit = usize::from(u16::MAX);
        if list.endpoints.len() > limit {
            let (service, endpoints) = (plan.name.clone(), list.endpoints.len());
            let problem = ServiceProblem::TooManyEndpoints {
                service,
                endpoints,
                limit,
            };
            if !problems.contains(&problem) {
                problems.push(problem);
            }
        }
        let SlotList {
            mut endpoints,
            local,
        } = list;
        endpoints.truncate(limit);
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
