//! Services and endpoint slices to the data path's frontends, slots and backends.

mod endpoints;
mod tables;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ebpf_shared::service::{
    BackendKey, BackendValue, FrontendKey, FrontendValue, SlotKey, SlotValue,
};
use ebpf_shared::{V4, V6};
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub(crate) use endpoints::slot_endpoints;
pub use endpoints::{Endpoint, Readiness};

use crate::cluster::{Cluster, EndpointSlice, Service, ServicePort, ServiceType};
use crate::names::{PortNumber, Protocol, ServiceName};
use crate::services::tables::Context;
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
    let plans = plans(cluster);
    let backends = plans
        .iter()
        .flat_map(|plan| &plan.endpoints)
        .map(|one| (one.address, one.port));
    let backend_ids = assign(backends.collect(), 1, |(address, port), attempt| {
        let hash = ContentHash::new("backend");
        let hash = match address {
            IpAddr::V4(v4) => hash.part(&v4.octets()),
            IpAddr::V6(v6) => hash.part(&v6.octets()),
        };
        hash.number(port.get().into()).number(attempt).finish()
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

/// Ports of a service with all their endpoints.
pub type PortEndpoints = Vec<(ServicePortName, Vec<Endpoint>)>;

/// The endpoints of every port of a service, in order of its ports, whether or not they are used;
/// empty for a service that is not there.
#[must_use]
pub fn endpoints_of(cluster: &Cluster, service: &ServiceName) -> PortEndpoints {
    let Some(service) = cluster.services.get(service) else {
        return Vec::new();
    };
    let slices = slices(cluster).filter(|(name, _)| **name == service.name);
    let slices: Vec<_> = slices.map(|(_, slice)| slice).collect();
    port_endpoints(cluster, service, &slices).collect()
}

/// The same for all services, in one pass over the slices.
#[must_use]
pub fn all_endpoints(cluster: &Cluster) -> BTreeMap<ServiceName, PortEndpoints> {
    let by_service = slices_by_service(cluster);
    let of_service = |service: &Service| {
        let slices = by_service
            .get(&service.name)
            .map(Vec::as_slice)
            .unwrap_or_default();
        (
            service.name.clone(),
            port_endpoints(cluster, service, slices).collect(),
        )
    };
    cluster
        .services
        .values()
        .map(|service| of_service(service))
        .collect()
}

fn port_endpoints<'a>(
    cluster: &'a Cluster,
    service: &'a Service,
    slices: &'a [&'a EndpointSlice],
) -> impl Iterator<Item = (ServicePortName, Vec<Endpoint>)> + 'a {
    service.ports.iter().map(|port| {
        let name = port_name(&service.name, port);
        let slices = slices.iter().copied();
        (
            name,
            endpoints::endpoints(port, slices, &cluster.this_node.name),
        )
    })
}

/// One port of one service with its endpoints.
struct Plan<'a> {
    name: ServicePortName,
    service: &'a Service,
    port: PortNumber,
    endpoints: Vec<Endpoint>,
}

fn plans(cluster: &Cluster) -> Vec<Plan<'_>> {
    let by_service = slices_by_service(cluster);
    let mut plans = Vec::new();
    for service in cluster
        .services
        .values()
        .filter(|service| is_programmed(service))
    {
        let slices = by_service
            .get(&service.name)
            .map(Vec::as_slice)
            .unwrap_or_default();
        let ports = port_endpoints(cluster, service, slices).zip(&service.ports);
        let balanced = ports.filter(|(_, port)| port.protocol != Protocol::Sctp);
        plans.extend(balanced.map(|((name, endpoints), port)| Plan {
            name,
            service,
            port: port.port,
            endpoints,
        }));
    }
    plans
}

fn slices_by_service(cluster: &Cluster) -> BTreeMap<&ServiceName, Vec<&EndpointSlice>> {
    let mut by_service: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (service, slice) in slices(cluster) {
        by_service.entry(service).or_default().push(slice);
    }
    by_service
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
