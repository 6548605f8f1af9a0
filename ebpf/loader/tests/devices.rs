//! The device programs on real veth pairs: attach, fail closed, replace under traffic, detach.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests fail by panicking"
)]

mod harness;

use ebpf_shared::{
    hook::{FROM_POD, TO_POD},
    policy::EGRESS,
    protocol,
    reason::Reason,
};
use harness::{net::*, *};
use netstate::names::IfName;
use towline_loader::{Datapath, PodAttachment, detach_pod, pod_attachments};

const A: [u8; 4] = [10, 244, 1, 5];
const B: [u8; 4] = [10, 244, 1, 6];
const VIP: [u8; 4] = [10, 96, 0, 10];

fn device(name: &str) -> IfName {
    name.parse().unwrap()
}

/// Two pods `a` and `b` with programs attached; `b` echoes on port 8080.
fn two_pods() -> (World, u32, u32) {
    let world = World::new();
    router();
    add_pod("pod-a", "10.244.1.5");
    add_pod("pod-b", "10.244.1.6");
    let a = world.datapath.attach_pod(&device("pod-a")).unwrap();
    let b = world.datapath.attach_pod(&device("pod-b")).unwrap();
    echo_server("pod-a", "10.244.1.5:8080");
    echo_server("pod-b", "10.244.1.6:8080");
    (world, a, b)
}

#[test]
fn traffic_flows_once_both_pods_are_known_and_by_the_short_way() {
    let (mut world, a, b) = two_pods();
    assert!(dial("pod-a", "10.244.1.6:8080").is_err(), "fails closed");
    world.pod(a, A, 0, 1);
    assert!(
        dial("pod-a", "10.244.1.6:8080").is_err(),
        "the other end fails closed"
    );
    world.pod(b, B, 0, 1);
    let mut stream = dial("pod-a", "10.244.1.6:8080").unwrap();
    assert_eq!(exchange(&mut stream, "hello"), "hello");
    let counters = world.datapath.maps().counters().unwrap();
    let redirected = counters
        .get(Reason::RedirectedLocal, EGRESS)
        .unwrap()
        .packets;
    assert!(redirected >= 4, "{redirected} packets redirected");
}

#[test]
fn services_work_across_and_into_the_same_pod() {
    let (mut world, a, b) = two_pods();
    world.pod(a, A, 0, 1);
    world.pod(b, B, 0, 1);
    world.service(VIP, 80, protocol::TCP, &[(B, 8080)]);
    let mut across = dial("pod-a", "10.96.0.10:80").unwrap();
    assert_eq!(exchange(&mut across, "across"), "across");
    let mut hairpin = dial("pod-b", "10.96.0.10:80").unwrap();
    assert_eq!(exchange(&mut hairpin, "hairpin"), "hairpin");
    assert_eq!(hairpin.peer_addr().unwrap().to_string(), "10.96.0.10:80");
}

#[test]
fn a_restart_replaces_the_programs_and_keeps_the_connections() {
    let (mut world, a, b) = two_pods();
    world.pod(a, A, 0, 1);
    world.pod(b, B, 0, 1);
    world.service(VIP, 80, protocol::TCP, &[(B, 8080)]);
    let mut stream = dial("pod-a", "10.96.0.10:80").unwrap();
    assert_eq!(exchange(&mut stream, "before"), "before");

    let attachment = |datapath: &Datapath, name: &str, ifindex| PodAttachment {
        device: name.to_owned(),
        ifindex,
        from_pod: Some(datapath.program_id(FROM_POD).unwrap()),
        to_pod: Some(datapath.program_id(TO_POD).unwrap()),
    };
    let first = [
        attachment(&world.datapath, "pod-a", a),
        attachment(&world.datapath, "pod-b", b),
    ];
    let by_index = |mut list: Vec<PodAttachment>| {
        list.sort_by_key(|entry| entry.device.clone());
        list
    };
    assert_eq!(by_index(pod_attachments().unwrap()), first);
    drop(world.datapath);
    assert_eq!(exchange(&mut stream, "without"), "without");

    let again = Datapath::load(&world.options).unwrap();
    for name in ["pod-a", "pod-b"] {
        again.attach_pod(&device(name)).unwrap();
        assert_eq!(exchange(&mut stream, "between"), "between");
    }
    let second = [
        attachment(&again, "pod-a", a),
        attachment(&again, "pod-b", b),
    ];
    assert_eq!(by_index(pod_attachments().unwrap()), second);
    assert_ne!(first, second);
    assert_eq!(again.maps().conntrack().unwrap().flows().unwrap().len(), 3);
}

#[test]
fn detaching_is_idempotent_and_an_absent_device_is_named() {
    let (world, ..) = two_pods();
    for _ in 0..2 {
        detach_pod(&device("pod-a")).unwrap();
    }
    detach_pod(&device("absent")).unwrap();
    let left: Vec<_> = pod_attachments()
        .unwrap()
        .into_iter()
        .map(|entry| entry.device)
        .collect();
    assert_eq!(left, ["pod-b"]);
    let error = world.datapath.attach_pod(&device("absent")).unwrap_err();
    assert!(
        error.to_string().starts_with("finding device absent: "),
        "{error}"
    );
}

/// As [`two_pods`], but both are ports of a bridge and neighbours on one link.
fn two_pods_on_a_bridge() -> (World, u32, u32) {
    let world = World::new();
    router();
    run("ip link add bridge type bridge");
    run("ip addr add 10.244.1.1/24 dev bridge");
    run("ip link set bridge up");
    let mut indexes = Vec::new();
    for (name, addr) in [("pod-a", "10.244.1.5"), ("pod-b", "10.244.1.6")] {
        run(&format!("ip netns add {name}"));
        run(&format!(
            "ip link add {name} type veth peer name eth0 netns {name}"
        ));
        run(&format!("ip link set {name} master bridge up"));
        run(&format!("ip -n {name} addr add {addr}/24 dev eth0"));
        run(&format!("ip -n {name} link set eth0 up"));
        run(&format!("ip -n {name} route add default via 10.244.1.1"));
        indexes.push(world.datapath.attach_pod(&device(name)).unwrap());
        echo_server(name, &format!("{addr}:8080"));
    }
    (world, indexes[0], indexes[1])
}

#[test]
fn pods_on_a_bridge_reach_each_other_and_themselves_by_the_short_way() {
    let (mut world, a, b) = two_pods_on_a_bridge();
    world.pod(a, A, 0, 1);
    world.pod(b, B, 0, 1);
    world.service(VIP, 80, protocol::TCP, &[(B, 8080)]);
    for (from, to) in [
        ("pod-a", "10.244.1.6:8080"),
        ("pod-a", "10.96.0.10:80"),
        ("pod-b", "10.96.0.10:80"),
    ] {
        let mut stream = dial(from, to).unwrap_or_else(|error| panic!("{from} to {to}: {error}"));
        assert_eq!(exchange(&mut stream, "hello"), "hello");
    }
}
