//! PURE: addresses of an interface, and the rules and routes there are, to the steps that give each
//! address a routing table.

use std::collections::BTreeMap;
use std::net::IpAddr;

use netstate::route::MAIN_TABLE;
use netstate::{IfName, Op, Route, RouteKey, SourceRule, Step};
use protocol::{Error, IpConfig};

use crate::interface::default_route;
use crate::sbr::config::Config;

/// The first table that is taken.
const FIRST_TABLE: u32 = 100;

/// What the plan needs to know about the pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Rules for single addresses.
    pub rules: Vec<SourceRule>,
    /// Tables that rules lead to.
    pub tables: Vec<u32>,
    /// Routes of all tables.
    pub routes: Vec<Route>,
}

/// What one address should have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The address.
    pub source: IpAddr,
    /// Its table; `None` for one of its own.
    pub table: Option<u32>,
    /// Where its table's default route leads.
    pub gateway: Option<IpAddr>,
}

// === impl Wanted ===

impl Wanted {
    /// What `config` wants for `ip`.
    #[must_use]
    pub fn of(config: &Config, ip: &IpConfig) -> Self {
        let source = ip.address.ip();
        let mut given = config.gateways.iter().copied();
        let given = given.find(|gateway| gateway.is_ipv4() == source.is_ipv4());
        // The gateway that was reported is in a table that somebody chose already.
        let reported = ip.gateway.filter(|_| config.table.is_none());
        Self {
            source,
            table: config.table,
            gateway: given.or(reported),
        }
    }
}

/// The steps of an ADD for the addresses `own` of interface `name`. Routes of the main table leave
/// it last: until then they tell the kernel which gateways can be reached.
///
/// # Errors
/// Code 999 when an address has a rule already.
pub fn add(
    config: &Config,
    name: &IfName,
    own: &[IpConfig],
    facts: &Facts,
) -> Result<Vec<Step>, Error> {
    let mut steps = Vec::new();
    let of_interface: Vec<&Route> = facts
        .routes
        .iter()
        .filter(|route| route.key.table == MAIN_TABLE && route.device.as_ref() == Some(name))
        .filter(|route| !is_link_local(route.key.destination.ip()))
        .collect();
    let mut taken = facts.tables.clone();
    taken.extend(facts.routes.iter().map(|route| route.key.table));
    let mut filled: Vec<RouteKey> = facts.routes.iter().map(|route| route.key).collect();
    for ip in own {
        let wanted = Wanted::of(config, ip);
        let source = wanted.source;
        if let Some(rule) = facts.rules.iter().find(|rule| rule.source == source) {
            let msg = format!("there is a rule {rule} already; DEL it first");
            return Err(Error::other(msg));
        }
        let table = wanted.table.unwrap_or_else(|| free_table(&taken));
        taken.push(table);
        steps.push(Step::pod(Op::AddSourceRule(SourceRule { source, table })));
        for mut route in routes(&wanted, ip, name, &of_interface) {
            route.key.table = table;
            if config.source_hints {
                route.source = Some(source);
            }
            if !filled.contains(&route.key) {
                filled.push(route.key);
                steps.push(Step::pod(Op::AddRoute(route)));
            }
        }
    }
    if config.table.is_none() {
        // Put back in reverse, each finds its gateway.
        let mut moved = of_interface;
        moved.sort_by_key(|route| route.gateway.is_none());
        let taken = moved.into_iter().cloned().map(Op::TakeRoute);
        steps.extend(taken.map(Step::pod));
    }
    Ok(steps)
}

fn free_table(taken: &[u32]) -> u32 {
    (FIRST_TABLE..)
        .find(|table| !taken.contains(table))
        .unwrap_or(FIRST_TABLE)
}

/// The routes of an address' table, gateways' own routes before those through them: a default route
/// by its gateway, and copies of the interface's routes that serve it.
fn routes(wanted: &Wanted, ip: &IpConfig, name: &IfName, all: &[&Route]) -> Vec<Route> {
    let mut found = BTreeMap::new();
    if let Some(gateway) = wanted.gateway {
        let to = default_route(wanted.source);
        let route = Route::via_device(to, name.clone()).gateway(gateway);
        found.insert(route.key, route);
    }
    if wanted.table.is_none() {
        let inside = |address: Option<IpAddr>| address.is_some_and(|a| ip.address.contains(a));
        let serves = |route: &&&Route| {
            route.key.destination.is_ipv4() == wanted.source.is_ipv4()
                && (inside(route.source)
                    || inside(route.gateway)
                    || (route.source.is_none() && route.gateway.is_none()))
        };
        for route in all.iter().filter(serves) {
            // The same default route may say more, such as an MTU; another one gives way.
            let other = found.get(&route.key);
            if other.is_none_or(|own| own.gateway == route.gateway) {
                found.insert(route.key, (*route).clone());
            }
        }
    }
    let mut routes: Vec<Route> = found.into_values().collect();
    routes.sort_by_key(|route| route.gateway.is_some());
    routes
}

/// Neighbours are found by these, whatever the packet's source.
fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(v6) if v6.segments()[0] & 0xffc0 == 0xfe80)
}
