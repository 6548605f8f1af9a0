//! The list of checks.

use super::policy_plan as policy;
use super::workloads::{DEMO, EGRESS, HTTP, INGRESS, SERVERS, UDP};
use super::{Ask, Check, Expect, From, How, Phase, Pod, Prepare, Source, To};
use crate::applet::Protocol;

const CLIENT: Pod = Pod(DEMO, "client-1");
pub(super) const SERVER_1: Pod = Pod(DEMO, "server-1");
pub(super) const SERVER_2: Pod = Pod(DEMO, "server-2");

/// Attempts where any backend may answer; enough that a missing one shows.
pub(super) const MANY: u32 = 40;
pub(super) const FEW: u32 = 5;
/// Attempts expected to time out are slow.
const DENIED: u32 = 2;

/// Every phase of the matrix, in order. Three nodes are needed.
pub fn plan() -> Vec<Phase> {
    vec![
        Phase {
            prepare: Prepare::Workloads,
            checks: connectivity(),
        },
        Phase {
            prepare: Prepare::Nothing,
            checks: policy::before_policy(),
        },
        Phase {
            prepare: Prepare::Policies(INGRESS),
            checks: policy::ingress(),
        },
        Phase {
            prepare: Prepare::Policies(EGRESS),
            checks: policy::egress(),
        },
        Phase {
            prepare: Prepare::RemovePolicies(&["target-ingress", "bad-egress"]),
            checks: policy::after_policy(),
        },
        Phase {
            prepare: Prepare::Nothing,
            checks: vec![
                check(
                    "towlined killed under load, connections live on",
                    How::Restart,
                ),
                check(
                    "address of a deleted pod reused, policy follows the pod",
                    How::Reuse,
                ),
            ],
        },
    ]
}

/// What a backend or a lease store could break: the first phase and restarts under load.
pub fn short() -> Vec<Phase> {
    let mut phases = plan();
    let mut last = phases.pop();
    if let Some(last) = &mut last {
        last.checks
            .retain(|check| matches!(check.how, How::Restart));
    }
    phases.truncate(1);
    phases.extend(last);
    phases
}

fn connectivity() -> Vec<Check> {
    let service = |port| To::Service(DEMO, "server", port);
    let all = || SERVERS.to_vec();
    vec![
        check("every node has a lease, its pods are in it", How::Leased),
        answered(
            "pod to pod, same node",
            CLIENT,
            To::Pod(SERVER_1, HTTP),
            &["server-1"],
        ),
        answered(
            "pod to pod, across nodes",
            CLIENT,
            To::Pod(SERVER_2, HTTP),
            &["server-2"],
        ),
        check(
            "pod to pod, across nodes, carried by the backend",
            How::Carried(CLIENT, SERVER_2),
        ),
        udp(
            "pod to pod, across nodes, UDP",
            From::Pod(CLIENT),
            To::Pod(SERVER_2, UDP),
            vec!["server-2"],
        ),
        ask(
            "node to pod, same node",
            From::Node(1),
            To::Pod(SERVER_1, HTTP),
            FEW,
            vec!["server-1"],
        ),
        ask(
            "node to pod, across nodes",
            From::Node(1),
            To::Pod(SERVER_2, HTTP),
            FEW,
            vec!["server-2"],
        ),
        ask(
            "pod to ClusterIP, backends on all nodes",
            From::Pod(CLIENT),
            service(80),
            MANY,
            all(),
        ),
        ask(
            "node to ClusterIP, backends on all nodes",
            From::Node(1),
            service(80),
            MANY,
            all(),
        ),
        udp(
            "pod to UDP Service, backends on all nodes",
            From::Pod(CLIENT),
            service(81),
            all(),
        ),
        udp(
            "node to UDP Service, backends on all nodes",
            From::Node(1),
            service(81),
            all(),
        ),
        hairpin("pod to itself through its Service", SERVER_1, service(80)),
        tcp(
            "pod to Service without endpoints",
            CLIENT,
            To::Service(DEMO, "nobody", 80),
            Expect::Refused,
        ),
        outside("pod to outside, masqueraded"),
    ]
}

fn check(name: &str, how: How) -> Check {
    Check {
        name: name.to_owned(),
        how,
    }
}

/// HTTP from a pod: answered by `by`, who sees the caller's own address.
pub(super) fn answered(name: &str, from: Pod, to: To, by: &[&'static str]) -> Check {
    ask(name, From::Pod(from), to, FEW, by.to_vec())
}

pub(super) fn ask(name: &str, from: From, to: To, count: u32, by: Vec<&'static str>) -> Check {
    let ask = Ask {
        from,
        to,
        protocol: Protocol::Http,
        count,
    };
    check(name, How::Ask(ask, Expect::Answered(by, source(from))))
}

fn udp(name: &str, from: From, to: To, by: Vec<&'static str>) -> Check {
    let ask = Ask {
        from,
        to,
        protocol: Protocol::Udp,
        count: MANY,
    };
    check(name, How::Ask(ask, Expect::Answered(by, source(from))))
}

/// A pod keeps its address on every way inside of the cluster; a node has several.
fn source(from: From) -> Source {
    match from {
        From::Pod(_) => Source::Caller,
        From::Node(_) => Source::Any,
    }
}

/// Through its own Service a pod may reach itself, and then does not see its own address.
fn hairpin(name: &str, from: Pod, to: To) -> Check {
    let ask = Ask {
        from: From::Pod(from),
        to,
        protocol: Protocol::Http,
        count: MANY,
    };
    check(
        name,
        How::Ask(ask, Expect::Answered(SERVERS.to_vec(), Source::Any)),
    )
}

fn outside(name: &str) -> Check {
    let ask = Ask {
        from: From::Pod(CLIENT),
        to: To::Outside(HTTP),
        protocol: Protocol::Http,
        count: FEW,
    };
    check(
        name,
        How::Ask(ask, Expect::Answered(Vec::new(), Source::Node)),
    )
}

pub(super) fn tcp(name: &str, from: Pod, to: To, expect: Expect) -> Check {
    let ask = Ask {
        from: From::Pod(from),
        to,
        protocol: Protocol::Tcp,
        count: DENIED,
    };
    check(name, How::Ask(ask, expect))
}

pub(super) fn denied_udp(name: &str, from: Pod, to: To) -> Check {
    let ask = Ask {
        from: From::Pod(from),
        to,
        protocol: Protocol::Udp,
        count: DENIED,
    };
    check(name, How::Ask(ask, Expect::Denied))
}

pub(super) fn any() -> Expect {
    Expect::Answered(Vec::new(), Source::Any)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_fit_a_line() {
        let phases = plan();
        let names = phases
            .iter()
            .flat_map(|phase| &phase.checks)
            .map(|check| check.name.as_str());
        let names = names.collect::<Vec<_>>();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
        assert!(names.iter().all(|name| name.len() <= 56), "{names:?}");
    }
}
