//! Whole tables from whole snapshots.

use std::collections::BTreeMap;
use std::net::IpAddr;

use pretty_assertions::assert_eq;
use proptest::prelude::*;

use ebpf_shared::service::{BACKEND_SERVING, BACKEND_TERMINATING, FRONTEND_LOCAL_ONLY};

use super::*;
use crate::cluster::SliceEndpoint;
use crate::cluster::TrafficPolicy;
use crate::family::TableAddress;
use crate::fixture::{address, cluster, pod, service, slice};
use crate::names::Protocol::{Sctp, Tcp, Udp};

/// The tables as a person would draw them: frontend → backends in slot order.
fn drawn<A: TableAddress>(tables: &FamilyTables<A>) -> Vec<String> {
    let line = |(key, value): (&FrontendKey<A>, &FrontendValue)| {
        let slots: Vec<_> = (0..u32::from(value.n_cluster))
            .map(|n| {
                let slot = SlotKey {
                    service: value.service,
                    generation: value.generation,
                    n,
                };
                let id = tables.slots[&slot].backend;
                let backend = &tables.backends[&BackendKey { id }];
                let port = u16::from_be_bytes(backend.port);
                let place = if backend.ifindex == 0 {
                    String::new()
                } else {
                    format!("@{}", backend.ifindex)
                };
                format!("{}:{port}{place}", backend.addr.to_ip())
            })
            .collect();
        format!(
            "{}:{}/{} scope {} flags {} affinity {} local {} -> [{}]",
            key.addr.to_ip(),
            u16::from_be_bytes(key.port),
            key.proto,
            key.scope,
            value.flags,
            value.affinity_secs,
            value.n_local,
            slots.join(" ")
        )
    };
    tables.frontends.iter().map(line).collect()
}

fn terminating(text: &str, node: &str) -> SliceEndpoint {
    SliceEndpoint {
        ready: false,
        terminating: true,
        node: Some(node.parse().unwrap()),
        ..SliceEndpoint::ready(address(text))
    }
}

#[test]
fn a_service_has_its_endpoints_local_ones_first() {
    let cluster = cluster("n1")
        .with_local_pod(pod("shop/web-9", "10.244.1.9", &[]), 7)
        .with_service(service("shop/web", "10.96.0.1").with_port("http", Tcp, 80))
        .with_slice(
            slice("shop/web-1", "web")
                .with_port("http", Tcp, 8080)
                .with_ready("10.244.1.9", "n1")
                .with_ready("10.244.1.2", "n2"),
        )
        .with_slice(
            slice("shop/web-2", "web")
                .with_port("http", Tcp, 8081)
                .with_ready("10.244.3.1", "n3"),
        );
    let tables = services(&cluster);
    assert_eq!(
        drawn(&tables.v4),
        ["10.96.0.1:80/6 scope 0 flags 0 affinity 0 local 1 -> \
          [10.244.1.9:8080@7 10.244.1.2:8080 10.244.3.1:8081]"]
    );
    assert_eq!(
        tables
            .names
            .values()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
        ["shop/web:http/TCP"]
    );
    assert_eq!(
        (tables.v6, tables.problems),
        (FamilyTables::default(), vec![])
    );
}

#[test]
fn services_without_endpoints_are_refused_and_others_have_no_frontend() {
    let headless = Service {
        cluster_ips: vec![],
        ..service("a/headless", "10.96.0.2").with_port("", Tcp, 80)
    };
    let alias = Service {
        service_type: ServiceType::ExternalName,
        ..service("a/alias", "10.96.0.3").with_port("", Tcp, 80)
    };
    let foreign = Service {
        foreign_proxy: true,
        ..service("a/foreign", "10.96.0.4").with_port("", Tcp, 80)
    };
    let hidden = slice("a/empty-1", "empty")
        .with_port("", Tcp, 80)
        .with_ready("10.244.1.1", "n1");
    let cluster = cluster("n1")
        .with_service(
            service("a/empty", "10.96.0.1")
                .with_port("", Tcp, 80)
                .with_port("s", Sctp, 9),
        )
        .with_slice(EndpointSlice {
            headless: true,
            ..hidden
        })
        .with_service(headless)
        .with_service(alias)
        .with_service(foreign);
    let tables = services(&cluster);
    assert_eq!(
        drawn(&tables.v4),
        ["10.96.0.1:80/6 scope 0 flags 0 affinity 0 local 0 -> []"]
    );
    let frontend = tables.v4.frontends.values().next().unwrap();
    assert_eq!(
        ebpf_shared::service::choose(frontend, 0),
        ebpf_shared::service::Choice::Reject
    );
}

#[test]
fn policies_and_affinity_become_flags() {
    let mut web = service("a/web", "10.96.0.1").with_port("", Udp, 53);
    web.external_ips = vec![address("192.0.2.1")];
    web.load_balancer_ips = vec![address("192.0.2.1"), address("198.51.100.1")];
    web.internal_traffic_policy = TrafficPolicy::Local;
    web.external_traffic_policy = TrafficPolicy::Local;
    web.affinity_seconds = Some(60);
    let cluster = cluster("n1").with_service(web).with_slice(
        slice("a/web-1", "web")
            .with_port("", Udp, 53)
            .with_ready("10.244.2.1", "n2")
            .with_endpoint(terminating("10.244.1.1", "n1")),
    );
    assert_eq!(
        drawn(&services(&cluster).v4),
        [
            "10.96.0.1:53/17 scope 0 flags 3 affinity 60 local 1 -> [10.244.1.1:53 10.244.2.1:53]",
            "192.0.2.1:53/17 scope 0 flags 2 affinity 60 local 0 -> [10.244.2.1:53]",
            "192.0.2.1:53/17 scope 1 flags 3 affinity 60 local 1 -> [10.244.1.1:53 10.244.2.1:53]",
            "198.51.100.1:53/17 scope 0 flags 2 affinity 60 local 0 -> [10.244.2.1:53]",
            "198.51.100.1:53/17 scope 1 flags 3 affinity 60 local 1 -> [10.244.1.1:53 10.244.2.1:53]",
        ]
    );
}

#[test]
fn a_draining_backend_stays_for_its_flows() {
    let cluster = cluster("n1")
        .with_service(service("a/web", "10.96.0.1").with_port("", Tcp, 80))
        .with_slice(
            slice("a/web-1", "web")
                .with_port("", Tcp, 80)
                .with_ready("10.244.2.1", "n2")
                .with_endpoint(terminating("10.244.2.2", "n2")),
        );
    let tables = services(&cluster).v4;
    assert_eq!(tables.slots.len(), 1);
    let states: BTreeMap<_, _> = tables
        .backends
        .values()
        .map(|backend| (backend.addr, backend.state))
        .collect();
    assert_eq!(
        states,
        BTreeMap::from([
            ([10, 244, 2, 1], BACKEND_SERVING),
            ([10, 244, 2, 2], BACKEND_TERMINATING),
        ])
    );
}

#[test]
fn families_are_apart() {
    let mut web = service("a/web", "10.96.0.1").with_port("", Tcp, 80);
    web.cluster_ips.push(address("fd96::1"));
    let cluster = cluster("n1")
        .with_service(web)
        .with_slice(
            slice("a/web-4", "web")
                .with_port("", Tcp, 80)
                .with_ready("10.244.1.1", "n1"),
        )
        .with_slice(
            slice("a/web-6", "web")
                .with_port("", Tcp, 80)
                .with_ready("fd00::1", "n1"),
        );
    let tables = services(&cluster);
    assert_eq!(
        drawn(&tables.v4),
        ["10.96.0.1:80/6 scope 0 flags 0 affinity 0 local 1 -> [10.244.1.1:80]"]
    );
    assert_eq!(
        drawn(&tables.v6),
        ["fd96::1:80/6 scope 0 flags 0 affinity 0 local 1 -> [fd00::1:80]"]
    );
}

#[test]
fn the_first_service_by_name_keeps_a_frontend() {
    let with_external = |name, cluster_ip| {
        let mut one = service(name, cluster_ip).with_port("", Tcp, 80);
        one.external_ips = vec![address("192.0.2.1")];
        one
    };
    let cluster = cluster("n1")
        .with_service(with_external("a/one", "10.96.0.1"))
        .with_service(with_external("b/two", "10.96.0.2"));
    let tables = services(&cluster);
    assert_eq!(tables.v4.frontends.len(), 4);
    assert_eq!(
        tables
            .problems
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
        ["service b/two:/TCP: 192.0.2.1:80 is a frontend of a/one:/TCP already: give each its own";
            2]
    );
}

#[test]
fn a_change_of_endpoints_changes_the_generation_of_that_service_only() {
    let with = |endpoints: &[&str]| {
        let other = slice("a/other-1", "other")
            .with_port("", Tcp, 80)
            .with_ready("10.244.9.9", "n9");
        let web = slice("a/web-1", "web").with_port("", Tcp, 80);
        let web = endpoints
            .iter()
            .fold(web, |slice, one| slice.with_ready(one, "n2"));
        let cluster = cluster("n1")
            .with_slice(web)
            .with_slice(other)
            .with_service(service("a/web", "10.96.0.1").with_port("", Tcp, 80))
            .with_service(service("a/other", "10.96.0.2").with_port("", Tcp, 80));
        services(&cluster)
            .v4
            .frontends
            .into_values()
            .map(|value| (value.service, value.generation))
            .collect::<Vec<_>>()
    };
    let (before, after) = (with(&["10.244.2.1"]), with(&["10.244.2.1", "10.244.2.2"]));
    assert_eq!((before[0].0, before[1]), (after[0].0, after[1]));
    assert_ne!(before[0].1, after[0].1);
}

/// One endpoint in some slice: service, slice, last octet, node, readiness.
type Row = (usize, usize, u8, usize, usize);

fn random_cluster(rows: &[Row], local: &[bool; 3]) -> Cluster {
    let mut cluster = cluster("n0");
    for (index, &local) in local.iter().enumerate() {
        let mut one =
            service(&format!("a/s{index}"), &format!("10.96.0.{index}")).with_port("", Tcp, 80);
        if local {
            one.internal_traffic_policy = TrafficPolicy::Local;
        }
        cluster = cluster.with_service(one);
        for part in 0..2 {
            let name = format!("a/s{index}-{part}");
            let of_slice = rows.iter().filter(|row| (row.0, row.1) == (index, part));
            let one = of_slice.fold(
                slice(&name, &format!("s{index}")).with_port("", Tcp, 8080),
                |slice, &(_, _, octet, node, state)| {
                    slice.with_endpoint(SliceEndpoint {
                        ready: state == 0,
                        serving: state < 2,
                        terminating: state == 1,
                        node: Some(format!("n{node}").parse().unwrap()),
                        ..SliceEndpoint::ready(IpAddr::from([
                            10,
                            244,
                            u8::try_from(node).unwrap(),
                            octet,
                        ]))
                    })
                },
            );
            cluster = cluster.with_slice(one);
        }
    }
    cluster
}

/// What the specification says in its own words: the best state of an address over all slices;
/// ready ones, else draining ones; with a local policy among this node's.
fn expected_backends(rows: &[Row], service: usize, local_only: bool) -> BTreeSet<IpAddr> {
    let mut best: BTreeMap<(usize, u8), usize> = BTreeMap::new();
    for &(_, _, octet, node, state) in rows.iter().filter(|row| row.0 == service) {
        if !local_only || node == 0 {
            best.entry((node, octet))
                .and_modify(|known| *known = state.min(*known))
                .or_insert(state);
        }
    }
    let wanted = if best.values().any(|&state| state == 0) {
        0
    } else {
        1
    };
    best.into_iter()
        .filter(|&(_, state)| state == wanted)
        .map(|((node, octet), _)| IpAddr::from([10, 244, u8::try_from(node).unwrap(), octet]))
        .collect()
}

proptest! {
    #[test]
    fn every_frontend_has_the_expected_backends(
        rows in prop::collection::vec((0..3usize, 0..2usize, 1..6u8, 0..3usize, 0..3usize), 0..30),
        local: [bool; 3],
    ) {
        let cluster = random_cluster(&rows, &local);
        let tables = services(&cluster).v4;
        prop_assert_eq!(tables.frontends.len(), 3);
        for (key, value) in &tables.frontends {
            let service = usize::from(key.addr[3]);
            let local_only = value.flags & FRONTEND_LOCAL_ONLY != 0;
            prop_assert_eq!(local_only, local[service]);
            let backend = |n: u32| {
                let slot = SlotKey { service: value.service, generation: value.generation, n };
                tables.backends[&BackendKey { id: tables.slots[&slot].backend }]
            };
            let used = if local_only { value.n_local } else { value.n_cluster };
            let found: Vec<_> = (0..u32::from(used)).map(|n| backend(n).addr.to_ip()).collect();
            let distinct: BTreeSet<_> = found.iter().copied().collect();
            prop_assert_eq!(found.len(), distinct.len());
            prop_assert_eq!(distinct, expected_backends(&rows, service, local_only));
            for n in 0..u32::from(value.n_cluster) {
                prop_assert_eq!(backend(n).addr[2] == 0, n < u32::from(value.n_local));
                prop_assert_eq!(backend(n).state, BACKEND_SERVING);
            }
        }
        prop_assert_eq!(services(&cluster), services(&cluster.clone()));
    }
}
