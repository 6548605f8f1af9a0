//! The checks of NetworkPolicy, before, under and after it.

use super::plan::{FEW, MANY, SERVER_1, SERVER_2, answered, any, ask, denied_udp, tcp};
use super::workloads::{DEMO, ECHO, FRIENDS, HTTP, POLICY, SERVERS, UDP};
use super::{Check, Expect, From, Pod, To};

const TARGET: Pod = Pod(POLICY, "target-1");
const GOOD_1: Pod = Pod(POLICY, "good-1");
const GOOD_2: Pod = Pod(POLICY, "good-2");
const BAD_1: Pod = Pod(POLICY, "bad-1");
const BAD_2: Pod = Pod(POLICY, "bad-2");
const FRIEND: Pod = Pod(FRIENDS, "friend-2");

pub(super) fn before_policy() -> Vec<Check> {
    let target = To::Pod(TARGET, HTTP);
    vec![
        answered("no policy: same node", BAD_1, target, &["target-1"]),
        answered("no policy: across nodes", BAD_2, target, &["target-1"]),
        tcp(
            "no policy: other port",
            GOOD_1,
            To::Pod(TARGET, ECHO),
            any(),
        ),
    ]
}

pub(super) fn ingress() -> Vec<Check> {
    let (target, service) = (To::Pod(TARGET, HTTP), To::Service(POLICY, "target", 80));
    vec![
        answered("ingress allowed, same node", GOOD_1, target, &["target-1"]),
        answered(
            "ingress allowed, across nodes",
            GOOD_2,
            target,
            &["target-1"],
        ),
        answered(
            "ingress allowed by namespace",
            FRIEND,
            target,
            &["target-1"],
        ),
        answered(
            "ingress allowed through the Service",
            GOOD_2,
            service,
            &["target-1"],
        ),
        tcp("ingress denied, same node", BAD_1, target, Expect::Denied),
        tcp(
            "ingress denied, across nodes",
            BAD_2,
            target,
            Expect::Denied,
        ),
        tcp(
            "ingress denied through the Service",
            BAD_2,
            service,
            Expect::Denied,
        ),
        tcp(
            "ingress denied, other port",
            GOOD_1,
            To::Pod(TARGET, ECHO),
            Expect::Denied,
        ),
        denied_udp(
            "ingress denied, other protocol",
            GOOD_1,
            To::Pod(TARGET, UDP),
        ),
        ask(
            "ingress allowed from the pod's own node",
            From::Node(1),
            target,
            FEW,
            vec!["target-1"],
        ),
        answered(
            "egress of the target is free",
            TARGET,
            To::Pod(SERVER_2, HTTP),
            &["server-2"],
        ),
    ]
}

pub(super) fn egress() -> Vec<Check> {
    vec![
        answered(
            "egress allowed, same node",
            BAD_1,
            To::Pod(SERVER_1, HTTP),
            &["server-1"],
        ),
        answered(
            "egress allowed, across nodes",
            BAD_1,
            To::Pod(SERVER_2, HTTP),
            &["server-2"],
        ),
        ask(
            "egress allowed through the Service",
            From::Pod(BAD_1),
            To::Service(DEMO, "server", 80),
            MANY,
            SERVERS.to_vec(),
        ),
        tcp(
            "egress denied, same node",
            BAD_1,
            To::Pod(GOOD_1, HTTP),
            Expect::Denied,
        ),
        tcp(
            "egress denied, across nodes",
            BAD_1,
            To::Pod(GOOD_2, HTTP),
            Expect::Denied,
        ),
        tcp(
            "egress denied, other port",
            BAD_1,
            To::Pod(SERVER_1, ECHO),
            Expect::Denied,
        ),
        denied_udp(
            "egress denied, other protocol",
            BAD_2,
            To::Pod(SERVER_1, UDP),
        ),
        tcp(
            "egress denied to outside",
            BAD_1,
            To::Outside(HTTP),
            Expect::Denied,
        ),
        answered(
            "ingress and its replies are free",
            GOOD_1,
            To::Pod(BAD_1, HTTP),
            &["bad-1"],
        ),
    ]
}

pub(super) fn after_policy() -> Vec<Check> {
    let target = To::Pod(TARGET, HTTP);
    vec![
        answered(
            "policy removed: ingress, same node",
            BAD_1,
            target,
            &["target-1"],
        ),
        answered(
            "policy removed: ingress, across nodes",
            BAD_2,
            target,
            &["target-1"],
        ),
        answered(
            "policy removed: egress",
            BAD_1,
            To::Pod(GOOD_2, HTTP),
            &["good-2"],
        ),
    ]
}
