//! Policy on the device programs: what passes, what is dropped, and which event says so.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests fail by panicking"
)]

mod harness;

use ebpf_shared::{
    conntrack::{TCP_ACK, TCP_SYN},
    event::{EVENT_DROP, EVENT_VERDICT, Event},
    hook::{FROM_POD, MARK_REJECT, TO_POD},
    maps::{CONFIG_VERDICT_EVENTS, Config},
    policy::*,
    protocol,
    reason::Reason,
};
use harness::*;
use netstate::target::Target;

const POD: [u8; 4] = [10, 244, 1, 5];
const PEER: [u8; 4] = [10, 244, 2, 7];
const OUTSIDE: [u8; 4] = [203, 0, 113, 9];
const NODE: [u8; 4] = [10, 244, 1, 1];
const CLASS_PEER: u32 = 20;

fn allow(world: &mut World, direction: u8, class: u32, from: u16, to: u16, verdict: u8) {
    let key = VerdictKey {
        policy_set: 7,
        class,
        direction,
        pad: [0; 3],
    };
    let interval = Interval {
        proto: protocol::TCP,
        verdict,
        from,
        to,
        pad: 0,
        rule: 77,
    };
    world
        .tables
        .verdicts
        .put(&key, &VerdictValue::new(&[interval]).unwrap())
        .unwrap();
}

fn classify(world: &mut World, addr: [u8; 4], class: u32) {
    world
        .tables
        .classes4
        .put(&ClassKey { addr }, &ClassValue { class })
        .unwrap();
}

fn events(world: &World) -> Vec<Event> {
    world.datapath.maps().events().unwrap().drain()
}

#[test]
fn a_device_without_pod_entry_drops_everything_but_arp() {
    let world = World::new();
    let syn = tcp((POD, 40_000), (PEER, 80), TCP_SYN);
    assert_eq!(world.run(FROM_POD, &syn).code, DROP);
    assert_eq!(world.run(TO_POD, &syn).code, DROP);
    let mut arp = syn.clone();
    arp[12..14].copy_from_slice(&[8, 6]);
    assert_eq!(
        world.run(FROM_POD, &arp),
        Ran {
            code: PASS,
            packet: arp,
            mark: 0
        }
    );

    let seen: Vec<_> = events(&world)
        .iter()
        .map(|e| (e.kind, e.reason, e.direction))
        .collect();
    let not_ready = Reason::NotReady as u8;
    assert_eq!(
        seen,
        [
            (EVENT_DROP, not_ready, EGRESS),
            (EVENT_DROP, not_ready, INGRESS)
        ]
    );
    let counters = world.datapath.maps().counters().unwrap();
    assert_eq!(counters.get(Reason::NotReady, EGRESS).unwrap().packets, 1);
}

#[test]
fn a_pod_may_only_use_its_own_address_and_receives_only_its_own_packets() {
    let mut world = World::new();
    world.pod(LO, POD, 0, 1);
    assert_eq!(
        world
            .run(FROM_POD, &tcp((PEER, 1), (OUTSIDE, 80), TCP_SYN))
            .code,
        DROP
    );
    assert_eq!(
        world
            .run(TO_POD, &tcp((OUTSIDE, 80), (PEER, 1), TCP_SYN))
            .code,
        DROP
    );
    let reasons: Vec<_> = events(&world)
        .iter()
        .map(|e| Reason::from_code(e.reason))
        .collect();
    assert_eq!(
        reasons,
        [Some(Reason::SpoofedSource), Some(Reason::WrongDestination)]
    );
}

#[test]
fn ingress_follows_class_and_port() {
    let mut world = World::new();
    world.pod(LO, POD, INGRESS_ISOLATED, 1);
    classify(&mut world, PEER, CLASS_PEER);
    classify(&mut world, NODE, CLASS_NODE);
    allow(&mut world, INGRESS, CLASS_PEER, 80, 89, VERDICT_ALLOW);
    let to = |world: &World, src, port| {
        world
            .run(TO_POD, &tcp((src, 50_000), (POD, port), TCP_SYN))
            .code
    };
    assert_eq!(to(&world, PEER, 80), PASS);
    assert_eq!(to(&world, PEER, 89), PASS);
    assert_eq!(to(&world, PEER, 90), DROP);
    assert_eq!(to(&world, OUTSIDE, 80), DROP);
    assert_eq!(
        to(&world, NODE, 22),
        PASS,
        "the node always reaches its own pods"
    );
    let event = events(&world)[0];
    let expected = (
        Reason::PolicyNoMatch as u8,
        CLASS_PEER,
        7,
        POD,
        90u16.to_be_bytes(),
    );
    let dst: [u8; 4] = event.dst[..4].try_into().unwrap();
    assert_eq!(
        (
            event.reason,
            event.class,
            event.policy_set,
            dst,
            event.dst_port
        ),
        expected
    );

    allow(&mut world, INGRESS, CLASS_PEER, 443, 443, VERDICT_DENY);
    assert_eq!(to(&world, PEER, 443), DROP);
    let event = *events(&world).last().unwrap();
    assert_eq!((event.reason, event.rule), (Reason::PolicyDenied as u8, 77));
}

#[test]
fn a_cidr_classifies_what_has_no_class_of_its_own() {
    let mut world = World::new();
    world.pod(LO, POD, EGRESS_ISOLATED, 1);
    let key = CidrKey {
        prefix: 24,
        addr: [203, 0, 113, 0],
    };
    world
        .tables
        .cidr_classes4
        .put(&key, &ClassValue { class: 30 })
        .unwrap();
    allow(&mut world, EGRESS, 30, 443, 443, VERDICT_ALLOW);
    let out = |world: &World, dst, port| {
        world
            .run(FROM_POD, &tcp((POD, 40_000), (dst, port), TCP_SYN))
            .code
    };
    assert_eq!(out(&world, OUTSIDE, 443), PASS);
    assert_eq!(out(&world, OUTSIDE, 80), DROP);
    assert_eq!(
        out(&world, [198, 51, 100, 1], 443),
        DROP,
        "an unknown peer fails closed"
    );
    assert_eq!(world.tables.cidr_classes4.observe().unwrap().len(), 1);
}

#[test]
fn replies_pass_and_egress_is_judged_on_the_real_backend() {
    let mut world = World::new();
    world.pod(LO, POD, INGRESS_ISOLATED | EGRESS_ISOLATED, 1);
    classify(&mut world, PEER, CLASS_PEER);
    let vip = [10, 96, 0, 10];
    world.service(vip, 80, protocol::TCP, &[(PEER, 8080)]);
    let syn = tcp((POD, 40_000), (vip, 80), TCP_SYN);
    assert_eq!(world.run(FROM_POD, &syn).code, DROP);
    allow(&mut world, EGRESS, CLASS_PEER, 8080, 8080, VERDICT_ALLOW);
    assert_eq!(world.run(FROM_POD, &syn).code, PASS);
    let reply = tcp((PEER, 8080), (POD, 40_000), TCP_SYN | TCP_ACK);
    assert_eq!(world.run(TO_POD, &reply).code, PASS);
    let other = tcp((PEER, 8080), (POD, 40_001), TCP_SYN | TCP_ACK);
    assert_eq!(
        world.run(TO_POD, &other).code,
        DROP,
        "not a reply to anything"
    );
}

#[test]
fn a_new_revision_judges_known_flows_again() {
    let mut world = World::new();
    world.pod(LO, POD, INGRESS_ISOLATED, 1);
    classify(&mut world, PEER, CLASS_PEER);
    allow(&mut world, INGRESS, CLASS_PEER, 80, 80, VERDICT_ALLOW);
    assert_eq!(
        world
            .run(TO_POD, &tcp((PEER, 50_000), (POD, 80), TCP_SYN))
            .code,
        PASS
    );
    let answer = tcp((POD, 80), (PEER, 50_000), TCP_SYN | TCP_ACK);
    assert_eq!(world.run(FROM_POD, &answer).code, PASS);
    let data = tcp((PEER, 50_000), (POD, 80), TCP_ACK);

    allow(&mut world, INGRESS, CLASS_PEER, 81, 81, VERDICT_ALLOW);
    assert_eq!(
        world.run(TO_POD, &data).code,
        PASS,
        "the verdict of a known flow is kept"
    );
    world.pod(LO, POD, INGRESS_ISOLATED, 2);
    assert_eq!(world.run(TO_POD, &data).code, DROP);
    allow(&mut world, INGRESS, CLASS_PEER, 80, 80, VERDICT_ALLOW);
    world.pod(LO, POD, INGRESS_ISOLATED, 3);
    assert_eq!(world.run(TO_POD, &data).code, PASS);
}

#[test]
fn between_pods_of_one_node_both_policies_are_asked_before_the_redirect() {
    let mut world = World::new();
    let (other, ifindex) = ([10, 244, 1, 6], 4242);
    world.pod(LO, POD, 0, 1);
    world.pod(ifindex, other, INGRESS_ISOLATED, 1);
    classify(&mut world, POD, CLASS_PEER);
    let syn = tcp((POD, 40_000), (other, 80), TCP_SYN);
    assert_eq!(world.run(FROM_POD, &syn).code, DROP);
    let event = events(&world)[0];
    assert_eq!(
        (event.ifindex, event.direction),
        (ifindex, INGRESS),
        "the receiver's policy denied"
    );
    allow(&mut world, INGRESS, CLASS_PEER, 80, 80, VERDICT_ALLOW);
    assert_eq!(world.run(FROM_POD, &syn).code, REDIRECT);
}

#[test]
fn echo_is_a_flow_named_by_its_identifier() {
    let mut world = World::new();
    world.pod(LO, POD, INGRESS_ISOLATED, 1);
    let echo =
        |kind, src, dst, id| frame::build(protocol::ICMP, (src, id), (dst, 0), kind, b"ping");
    assert_eq!(world.run(FROM_POD, &echo(8, POD, PEER, 5)).code, PASS);
    assert_eq!(world.run(TO_POD, &echo(0, PEER, POD, 5)).code, PASS);
    assert_eq!(world.run(TO_POD, &echo(0, PEER, POD, 6)).code, DROP);
    assert_eq!(world.run(TO_POD, &echo(8, PEER, POD, 7)).code, DROP);
}

#[test]
fn an_echo_request_is_no_reply_to_the_pods_own() {
    let mut world = World::new();
    world.pod(LO, POD, INGRESS_ISOLATED, 1);
    let echo =
        |kind, src, dst, id| frame::build(protocol::ICMP, (src, id), (dst, 0), kind, b"ping");
    let own = echo(8, POD, PEER, 5);
    assert_eq!(world.run(FROM_POD, &own).code, PASS);
    assert_eq!(world.run(TO_POD, &echo(8, PEER, POD, 5)).code, DROP);
    assert_eq!(world.run(TO_POD, &echo(0, PEER, POD, 5)).code, PASS);
    let error = frame::unreachable(OUTSIDE, POD, &own);
    assert_eq!(world.run(TO_POD, &error).code, PASS);
    assert_eq!(world.run(TO_POD, &echo(0, PEER, POD, 6)).code, DROP);
}

#[test]
fn allowed_flows_are_reported_when_asked_for() {
    let mut world = World::new();
    world.pod(LO, POD, INGRESS_ISOLATED, 1);
    classify(&mut world, PEER, CLASS_PEER);
    allow(&mut world, INGRESS, CLASS_PEER, 80, 80, VERDICT_ALLOW);
    let config = Config {
        flags: CONFIG_VERDICT_EVENTS,
        ..Config::default()
    };
    world.datapath.maps().set_config(&config).unwrap();
    assert_eq!(
        world
            .run(TO_POD, &tcp((PEER, 50_000), (POD, 80), TCP_SYN))
            .code,
        PASS
    );
    let seen: Vec<_> = events(&world)
        .iter()
        .map(|e| (e.kind, e.rule, e.class))
        .collect();
    assert_eq!(seen, [(EVENT_VERDICT, 77, CLASS_PEER)]);
}

#[test]
fn an_icmp_error_reaches_only_the_peer_whose_packet_it_quotes() {
    let mut world = World::new();
    world.pod(LO, POD, EGRESS_ISOLATED, 1);
    let query = udp((PEER, 5000), (POD, 53));
    assert_eq!(world.run(TO_POD, &query).code, PASS);
    let out = |to| world.run(FROM_POD, &frame::unreachable(POD, to, &query));
    assert_eq!(out(PEER).code, PASS);
    assert_eq!(out(OUTSIDE).code, DROP, "quotes a packet of somebody else");
}

#[test]
fn policy_is_asked_again_when_a_rejecting_frontend_is_gone() {
    let mut world = World::new();
    world.pod(LO, POD, EGRESS_ISOLATED, 1);
    world.service(OUTSIDE, 80, protocol::TCP, &[]);
    let syn = tcp((POD, 40_000), (OUTSIDE, 80), TCP_SYN);
    let rejected = world.run(FROM_POD, &syn);
    assert_eq!((rejected.code, rejected.mark), (PASS, MARK_REJECT));
    let frontends = world.tables.frontends4.observe().unwrap();
    for key in frontends.keys() {
        world.tables.frontends4.delete(key).unwrap();
    }
    assert_eq!(world.run(FROM_POD, &syn).code, DROP);
}
