use std::collections::BTreeMap;
use std::sync::Arc;

use desired::cluster::Node;
use desired::fixture;
use desired::lease::LeaseKey;
use pretty_assertions::assert_eq;

use super::*;
use crate::translate::TranslateError;

const MAC: &str = "02:00:00:00:00:01";
const IP: &str = "172.30.0.1";

/// A node that is ready, to be spoilt.
struct Given {
    cluster: Cluster,
    missing: Vec<Kind>,
    findings: Findings,
    tenure: Tenure,
    lease: Option<Lease>,
    report: StoreReport,
    loops: Vec<(&'static str, Option<Vec<String>>)>,
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

impl Given {
    fn ready() -> Self {
        let own = fixture::node("n1", "10.244.0.0/24", MAC, IP);
        Self {
            missing: Vec::new(),
            findings: Findings::default(),
            tenure: Tenure::Wanted,
            lease: Some(Lease {
                subnets: own.pod_cidrs.clone(),
                announced: own.announced.clone().unwrap(),
                overlay: fixture::overlay(MAC, IP),
                mtu: 1450.try_into().unwrap(),
            }),
            cluster: fixture::cluster("n1").with_node(own),
            report: StoreReport::default(),
            loops: vec![(overlay::NAME, Some(vec![])), ("masquerade", Some(vec![]))],
        }
    }

    /// The same with its lease in etcd.
    fn in_etcd(mut self) -> Self {
        let key: LeaseKey = "10.244.0.0-24".parse().unwrap();
        let announced = self.lease.as_ref().unwrap().announced.clone();
        self.cluster.nodes.clear();
        self.cluster.leases = Leases::InStore {
            held: BTreeMap::from([(key, Arc::new(announced))]),
            own: Some(key),
        };
        self.report.connected = true;
        self
    }

    fn without_subnet(mut self) -> Self {
        if let Some(lease) = &mut self.lease {
            lease.subnets.clear();
        }
        self
    }

    #[track_caller]
    fn says(&self, waiting_for: &[&str], notes: &[&str]) {
        let facts = Facts {
            cluster: &self.cluster,
            missing: &self.missing,
            findings: &self.findings,
            tenure: self.tenure,
            lease: self.lease.as_ref(),
            report: &self.report,
            loops: &self.loops,
            now: at(1000),
        };
        assert_eq!(facts.waiting_for(), waiting_for);
        assert_eq!(facts.notes(), notes);
    }
}

#[test]
fn a_node_that_carries_pods_waits_for_nothing() {
    Given::ready().says(&[], &[]);
    Given::ready().in_etcd().says(&[], &[]);
}

#[test]
fn an_outage_of_the_store_is_a_note_and_no_reason_not_to_be_ready() {
    let mut given = Given::ready().in_etcd();
    given
        .report
        .lost("etcd at http://192.0.2.9:2379: connect: refused".to_owned());
    given.report.since = Some(at(7));
    given.report.expires = Some(at(2000));
    let note = "etcd is not followed since 1970-01-01T00:00:07Z: etcd at http://192.0.2.9:2379: connect: refused; \
                leases, routes and pods stay as they were";
    given.says(&[], &[note]);
    // A day later another node may have it.
    given.report.expires = Some(at(999));
    let expired = "etcd: this node's lease has expired meanwhile, and may be another node's: \
                   etcd at http://192.0.2.9:2379: connect: refused";
    given.says(&[expired], &[note]);

    let mut given = Given::ready();
    for kind in [Kind::Node, Kind::Pod] {
        given.findings.interrupt(kind, "refused".to_owned(), at(7));
    }
    let note = "the API server is not followed since 1970-01-01T00:00:07Z (Node, Pod): refused; everything stays as it was";
    given.says(&[], &[note]);
}

#[test]
fn at_the_start_only_the_cause_is_said() {
    let mut given = Given::ready();
    given.missing = vec![Kind::Node, Kind::Pod];
    given.lease = None;
    given.loops = vec![(overlay::NAME, None), ("masquerade", None)];
    given.says(&["the API server's first list of Node, Pod"], &[]);
    given
        .findings
        .interrupt(Kind::Pod, "refused".to_owned(), at(7));
    let note = "the API server is not followed since 1970-01-01T00:00:07Z (Pod): refused; everything stays as it was";
    given.says(
        &["the API server's first list of Node, Pod: refused"],
        &[note],
    );

    given.missing.clear();
    given.findings = Findings::default();
    given.says(
        &[
            "the first pass of the overlay loop",
            "the first pass of the masquerade loop",
        ],
        &[],
    );
    given.loops = vec![
        (
            overlay::NAME,
            Some(vec!["no uplink".to_owned(), "nor another".to_owned()]),
        ),
        ("masquerade", Some(vec![])),
    ];
    given.says(
        &["a pass of the overlay loop without errors: no uplink (and 1 more)"],
        &[],
    );
}

#[test]
fn a_subnet_that_is_missing_is_asked_for_where_it_comes_from() {
    let mut given = Given::ready().without_subnet();
    given.cluster.nodes.clear();
    given.says(
        &["a Node called n1: the API server has none; is node-name what this node's kubelet calls it?"],
        &[],
    );
    let node = Node::new("n1".parse().unwrap());
    given
        .cluster
        .nodes
        .insert(node.name.clone(), Arc::new(node));
    given.says(
        &["an IPv4 podCIDR: Node n1 has none in spec.podCIDRs; does its controller manager run with --allocate-node-cidrs?"],
        &[],
    );
    let mut given = Given::ready().in_etcd().without_subnet();
    given.says(&["a lease in etcd"], &[]);
    given.report.obstacle = Some("out of subnets".to_owned());
    given.says(&["a lease: out of subnets"], &[]);
}

#[test]
fn a_lease_that_others_cannot_see_or_that_is_in_danger_is_not_enough() {
    let mut given = Given::ready();
    given.cluster.nodes.clear();
    let own = fixture::node("n1", "10.244.0.0/24", "02:00:00:00:00:09", IP);
    given.cluster = given.cluster.with_node(own);
    given
        .report
        .troubled("the lease is not published: forbidden".to_owned());
    given.report.since = Some(at(7));
    given.says(
        &["its lease to say in the store how other nodes reach it: the lease is not published: forbidden"],
        &["the lease is not published: forbidden since 1970-01-01T00:00:07Z"],
    );
    let mut given = Given::ready().in_etcd();
    given.report.obstacle = Some("overwritten".to_owned());
    given.says(&["a lease: overwritten"], &[]);
    given.tenure = Tenure::GivenBack;
    given.says(
        &["a restart of towlined: this node's lease was given back by `towline node release`"],
        &[],
    );
}

#[test]
fn what_is_wrong_with_others_is_noted_and_not_without_end() {
    let mut given = Given::ready();
    for number in 2..9 {
        let problem = TranslateError {
            object: format!("Node n{number}"),
            field: "metadata.annotations[p/backend-data]".to_owned(),
            value: "x".to_owned(),
            remedy: "use JSON".to_owned(),
        };
        let name = format!("n{number}");
        given.findings.of_object(Kind::Node, &name, vec![problem]);
    }
    given.report.unreadable = vec!["notes: not a subnet".to_owned()];
    given.cluster =
        given
            .cluster
            .with_node(fixture::node("n9", "10.244.9.0/24", MAC, "172.30.0.9"));
    let line = |n: u8| {
        format!("left out: Node n{n}: metadata.annotations[p/backend-data] \"x\": use JSON")
    };
    let lines: Vec<String> = (2..7).map(line).collect();
    let mut notes = vec!["among the leases, cannot be read: notes: not a subnet"];
    notes.extend(lines.iter().map(String::as_str));
    notes.push("left out: 2 more, see `towline leases`");
    notes.push(
        "left out of the overlay: node n9: VtepMAC 02:00:00:00:00:01 is also that of node n1: give each node its own",
    );
    given.says(&[], &notes);
}
