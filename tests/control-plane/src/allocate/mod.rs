//! Addresses and ports of Services.
//!
//! What is allocated is what the stored Services say; the pools here only make sure that nothing
//! is given out twice. A write reserves first, and either [`Lease::keep`]s what it reserved once it
//! is committed, or gives it back by dropping the lease (refusal, conflict, dry run).

mod addresses;
mod ports;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use crate::config::ClusterConfig;
use crate::json::{is_unset, list, list_mut, text};
use crate::registry::Resource;
use crate::status::{ApiError, Cause};

use addresses::AddressPool;
use ports::PortPool;

/// The pools.
#[derive(Debug)]
pub struct Allocators {
    pools: Mutex<Pools>,
}

#[derive(Debug)]
struct Pools {
    addresses: AddressPool,
    ports: PortPool,
}

/// What one Service holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Holding {
    addresses: BTreeSet<IpAddr>,
    ports: BTreeSet<u16>,
}

impl Holding {
    fn of(service: &Value) -> Self {
        let addresses = list(service, "/spec/clusterIPs")
            .iter()
            .chain(service.pointer("/spec/clusterIP"))
            .filter_map(|address| address.as_str()?.parse().ok())
            .collect();
        let ports = list(service, "/spec/ports")
            .iter()
            .filter_map(node_port)
            .collect();
        Self { addresses, ports }
    }

    fn minus(&self, other: &Self) -> Self {
        Self {
            addresses: self
                .addresses
                .difference(&other.addresses)
                .copied()
                .collect(),
            ports: self.ports.difference(&other.ports).copied().collect(),
        }
    }
}

fn node_port(port: &Value) -> Option<u16> {
    let number = port.get("nodePort")?.as_u64()?;
    u16::try_from(number).ok().filter(|number| *number != 0)
}

/// What a write reserved; given back when dropped without [`Lease::keep`].
#[derive(Debug)]
#[must_use = "a dropped lease gives back what it reserved"]
pub struct Lease<'a> {
    allocators: &'a Allocators,
    reserved: Holding,
    freed: Holding,
}

impl Lease<'_> {
    /// The write was committed: what it reserved stays, what it gave up is free.
    pub fn keep(mut self) {
        self.reserved = Holding::default();
        self.allocators.free(&std::mem::take(&mut self.freed));
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        self.allocators.free(&self.reserved);
    }
}

impl Allocators {
    /// Empty pools over the configured ranges.
    pub fn new(config: &ClusterConfig) -> Self {
        let addresses = AddressPool::new(config.service_cidr);
        Self {
            pools: Mutex::new(Pools {
                addresses,
                ports: PortPool::default(),
            }),
        }
    }

    fn pools(&self) -> MutexGuard<'_, Pools> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn free(&self, holding: &Holding) {
        if holding == &Holding::default() {
            return;
        }
        let mut pools = self.pools();
        holding
            .addresses
            .iter()
            .for_each(|address| pools.addresses.free(*address));
        holding
            .ports
            .iter()
            .for_each(|port| pools.ports.free(*port));
    }

    /// Takes note of a Service found in the store.
    pub fn adopt(&self, service: &Value) {
        let holding = Holding::of(service);
        let mut pools = self.pools();
        holding
            .addresses
            .iter()
            .for_each(|address| pools.addresses.adopt(*address));
        holding
            .ports
            .iter()
            .for_each(|port| pools.ports.adopt(*port));
    }

    /// A Service is gone.
    pub fn release(&self, resource: &Resource, service: &Value) {
        if is_service(resource) {
            self.free(&Holding::of(service));
        }
    }

    /// Completes a Service that is about to be written with addresses and ports, and checks those
    /// that it names itself. Other kinds pass.
    ///
    /// # Errors
    /// 422 naming the field when an address or port cannot be had.
    pub fn admit(
        &self,
        resource: &Resource,
        old: Option<&Value>,
        new: &mut Value,
    ) -> Result<Lease<'_>, ApiError> {
        let mut lease = Lease {
            allocators: self,
            reserved: Holding::default(),
            freed: Holding::default(),
        };
        if !is_service(resource) {
            return Ok(lease);
        }
        let held = old.map(Holding::of).unwrap_or_default();
        let admitted = {
            let mut pools = self.pools();
            pools
                .admit_addresses(new, &held, &mut lease.reserved)
                .and_then(|()| pools.admit_ports(new, &held, &mut lease.reserved))
        };
        if let Err(cause) = admitted {
            let name = text(new, "/metadata/name");
            return Err(ApiError::invalid(resource, name, &[cause]));
        }
        lease.freed = held.minus(&Holding::of(new));
        Ok(lease)
    }
}

fn is_service(resource: &Resource) -> bool {
    resource.group.is_empty() && resource.kind == "Service"
}

impl Pools {
    fn admit_addresses(
        &mut self,
        service: &mut Value,
        held: &Holding,
        reserved: &mut Holding,
    ) -> Result<(), Cause> {
        if text(service, "/spec/type") == "ExternalName" {
            return Ok(());
        }
        let family = self.addresses.family();
        let first = list(service, "/spec/clusterIPs")
            .first()
            .and_then(Value::as_str);
        let named = match text(service, "/spec/clusterIP") {
            "" => first.unwrap_or_default(),
            address => address,
        };
        let address = match named {
            "None" => "None".to_owned(),
            "" => {
                let address = self.addresses.allocate().ok_or_else(|| {
                    Cause::invalid(
                        "spec.clusterIPs",
                        &json!([]),
                        "failed to allocate an IP: the range is full; delete a Service or choose a larger --service-cidr",
                    )
                })?;
                reserved.addresses.insert(address);
                address.to_string()
            }
            named => self.reserve(named, held, reserved)?.to_string(),
        };
        let Some(spec) = service.get_mut("spec") else {
            return Ok(());
        };
        spec["clusterIP"] = address.as_str().into();
        spec["clusterIPs"] = json!([address]);
        if is_unset(spec.get("ipFamilies")) {
            spec["ipFamilies"] = json!([family]);
        }
        if is_unset(spec.get("ipFamilyPolicy")) {
            spec["ipFamilyPolicy"] = "SingleStack".into();
        }
        Ok(())
    }

    /// Takes an address that the Service names, unless it has it already.
    fn reserve(
        &mut self,
        named: &str,
        held: &Holding,
        reserved: &mut Holding,
    ) -> Result<IpAddr, Cause> {
        let refuse = |why: &str| {
            let detail = format!("failed to allocate IP {named}: {why}");
            Cause::invalid("spec.clusterIPs", &json!([named]), &detail)
        };
        let address: IpAddr = named
            .parse()
            .map_err(|_| refuse("it is not an IP address"))?;
        if !held.addresses.contains(&address) {
            self.addresses
                .reserve(address)
                .map_err(|why| refuse(&why))?;
            reserved.addresses.insert(address);
        }
        Ok(address)
    }

    fn admit_ports(
        &mut self,
        service: &mut Value,
        held: &Holding,
        reserved: &mut Holding,
    ) -> Result<(), Cause> {
        let kind = text(service, "/spec/type").to_owned();
        let without = service.pointer("/spec/allocateLoadBalancerNodePorts") == Some(&false.into());
        let wanted = kind == "NodePort" || (kind == "LoadBalancer" && !without);
        // Ports of one Service that differ in protocol only may share a number.
        let mut shared: Vec<(u64, u16)> = Vec::new();
        for (index, port) in list_mut(service, "/spec/ports").enumerate() {
            let number = port.get("port").and_then(Value::as_u64).unwrap_or_default();
            let field = format!("spec.ports[{index}].nodePort");
            let node_port = match node_port(port) {
                Some(named) => {
                    let known = held.ports.contains(&named) || reserved.ports.contains(&named);
                    if !known {
                        self.ports
                            .reserve(named)
                            .map_err(|why| Cause::invalid(field, &named.into(), &why))?;
                        reserved.ports.insert(named);
                    }
                    named
                }
                None if !wanted => continue,
                None => match shared.iter().find(|(other, _)| *other == number) {
                    Some((_, same)) => *same,
                    None => {
                        let free = self.ports.allocate().ok_or_else(|| {
                            Cause::invalid(
                                field,
                                &0.into(),
                                "failed to allocate a nodePort: range is full",
                            )
                        })?;
                        reserved.ports.insert(free);
                        free
                    }
                },
            };
            shared.push((number, node_port));
            port["nodePort"] = node_port.into();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
