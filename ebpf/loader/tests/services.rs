//! Services on the device programs: packet in, packet out, byte for byte.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests fail by panicking"
)]

mod harness;

use ebpf_shared::{
    conntrack::{CT_SERVICE, CT_TRANSLATED, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN},
    hook::{FROM_POD, MARK_REJECT, TO_POD},
    protocol,
    reason::Reason,
    service::{FRONTEND_AFFINITY, FRONTEND_LOCAL_ONLY, FrontendValue},
};
use harness::*;
use netstate::target::Target;
use towline_loader as loader;

const POD: [u8; 4] = [10, 244, 1, 5];
const VIP: [u8; 4] = [10, 96, 0, 10];
const BACKEND: [u8; 4] = [10, 244, 2, 7];

#[test]
fn tcp_is_translated_to_the_backend_and_back() {
    let mut world = World::new();
    world.pod(LO, POD, 0, 1);
    world.service(VIP, 80, protocol::TCP, &[(BACKEND, 8080)]);

    let out = world.run(FROM_POD, &tcp((POD, 40_000), (VIP, 80), TCP_SYN));
    let expected = tcp((POD, 40_000), (BACKEND, 8080), TCP_SYN);
    assert_eq!(
        out,
        Ran {
            code: PASS,
            packet: expected,
            mark: 0
        }
    );

    let reply = world.run(
        TO_POD,
        &tcp((BACKEND, 8080), (POD, 40_000), TCP_SYN | TCP_ACK),
    );
    let expected = tcp((VIP, 80), (POD, 40_000), TCP_SYN | TCP_ACK);
    assert_eq!(
        reply,
        Ran {
            code: PASS,
            packet: expected,
            mark: 0
        }
    );

    let ack = world.run(FROM_POD, &tcp((POD, 40_000), (VIP, 80), TCP_ACK));
    assert_eq!(ack.packet, tcp((POD, 40_000), (BACKEND, 8080), TCP_ACK));

    let flows = world.datapath.maps().conntrack().unwrap().flows().unwrap();
    let seen: Vec<_> = flows
        .iter()
        .map(|f| (f.key.remote, f.value.kind, f.established))
        .collect();
    assert_eq!(
        seen,
        [(VIP, CT_SERVICE, true), (BACKEND, CT_TRANSLATED, true)]
    );
}

#[test]
fn udp_is_translated_and_a_missing_checksum_stays_missing() {
    let mut world = World::new();
    world.pod(LO, POD, 0, 1);
    world.service(VIP, 53, protocol::UDP, &[(BACKEND, 5353)]);
    let out = world.run(FROM_POD, &udp((POD, 40_000), (VIP, 53)));
    assert_eq!(out.packet, udp((POD, 40_000), (BACKEND, 5353)));

    let without = |src, dst| {
        let mut frame = udp(src, dst);
        frame[40..42].fill(0);
        frame
    };
    let out = world.run(TO_POD, &without((BACKEND, 5353), (POD, 40_000)));
    assert_eq!(
        (out.code, out.packet),
        (PASS, without((VIP, 53), (POD, 40_000)))
    );
}

#[test]
fn a_udp_flow_leaves_a_backend_that_is_gone() {
    let mut world = World::new();
    let second = [10, 244, 3, 9];
    world.pod(LO, POD, 0, 1);
    world.service(VIP, 53, protocol::UDP, &[(BACKEND, 53)]);
    let query = udp((POD, 40_000), (VIP, 53));
    assert_eq!(
        world.run(FROM_POD, &query).packet,
        udp((POD, 40_000), (BACKEND, 53))
    );

    world
        .tables
        .backends4
        .delete(&ebpf_shared::service::BackendKey { id: 1 })
        .unwrap();
    let id = ebpf_shared::service::BackendKey { id: 2 };
    let value = ebpf_shared::service::BackendValue {
        addr: second,
        port: 53u16.to_be_bytes(),
        pad: [0; 2],
        ifindex: 0,
        state: 0,
    };
    world.tables.backends4.put(&id, &value).unwrap();
    let slot = ebpf_shared::service::SlotKey {
        service: 5,
        generation: 1,
        n: 0,
    };
    world
        .tables
        .slots4
        .put(&slot, &ebpf_shared::service::SlotValue { backend: 2 })
        .unwrap();
    assert_eq!(
        world.run(FROM_POD, &query).packet,
        udp((POD, 40_000), (second, 53))
    );
}

#[test]
fn a_pod_reaches_itself_through_its_service() {
    let mut world = World::new();
    world.pod(LO, POD, ebpf_shared::policy::INGRESS_ISOLATED, 1);
    world.service(VIP, 80, protocol::TCP, &[(POD, 8080)]);
    for flags in [TCP_SYN, TCP_ACK] {
        let out = world.run(FROM_POD, &tcp((POD, 40_000), (VIP, 80), flags));
        let packet = tcp((VIP, 40_000), (POD, 8080), flags);
        assert_eq!(
            out,
            Ran {
                code: REDIRECT,
                packet,
                mark: 0
            }
        );

        let answer = world.run(FROM_POD, &tcp((POD, 8080), (VIP, 40_000), flags | TCP_ACK));
        let packet = tcp((VIP, 80), (POD, 40_000), flags | TCP_ACK);
        assert_eq!(
            answer,
            Ran {
                code: REDIRECT,
                packet,
                mark: 0
            }
        );
    }
    let flows = world.datapath.maps().conntrack().unwrap().flows().unwrap();
    assert_eq!(
        flows.iter().map(|f| f.established).collect::<Vec<_>>(),
        [true, true]
    );
}

#[test]
fn a_frontend_without_backends_is_marked_and_its_rejection_passes() {
    let mut world = World::new();
    world.pod(LO, POD, ebpf_shared::policy::INGRESS_ISOLATED, 1);
    world.service(VIP, 80, protocol::TCP, &[]);
    let syn = tcp((POD, 40_000), (VIP, 80), TCP_SYN);
    let out = world.run(FROM_POD, &syn);
    assert_eq!(
        out,
        Ran {
            code: PASS,
            packet: syn.clone(),
            mark: MARK_REJECT
        }
    );
    let reset = tcp((VIP, 80), (POD, 40_000), TCP_RST | TCP_ACK);
    assert_eq!(
        world.run(TO_POD, &reset),
        Ran {
            code: PASS,
            packet: reset,
            mark: 0
        }
    );

    world.service(VIP, 80, protocol::TCP, &[(BACKEND, 8080)]);
    let out = world.run(FROM_POD, &syn);
    assert_eq!(
        (out.packet, out.mark),
        (tcp((POD, 40_000), (BACKEND, 8080), TCP_SYN), 0)
    );
}

#[test]
fn port_unreachable_reaches_the_socket_that_dialled_the_frontend() {
    let mut world = World::new();
    world.pod(LO, POD, ebpf_shared::policy::INGRESS_ISOLATED, 1);
    world.service(VIP, 53, protocol::UDP, &[(BACKEND, 5353)]);
    let query = udp((POD, 40_000), (VIP, 53));
    let sent = world.run(FROM_POD, &query).packet;
    let error = world.run(TO_POD, &frame::unreachable(BACKEND, POD, &sent));
    assert_eq!(error.code, PASS);
    let expected = frame::unreachable(VIP, POD, &query);
    let quoted = 14 + 20 + 8;
    assert_eq!(
        error.packet[..34],
        expected[..34],
        "the error comes from the frontend"
    );
    assert_eq!(
        error.packet[quoted..quoted + 24],
        expected[quoted..quoted + 24],
        "quoted header and ports"
    );
    assert_eq!(
        ebpf_shared::checksum::compute(&error.packet[34..], 0),
        [0, 0],
        "ICMP checksum"
    );
}

#[test]
fn fragments_follow_their_first_one() {
    let mut world = World::new();
    world.pod(LO, POD, 0, 1);
    world.service(VIP, 53, protocol::UDP, &[(BACKEND, 5353)]);
    let later = frame::ipv4(protocol::UDP, POD, VIP, 0x0002, b"tail of datagram");
    assert_eq!(
        world.run(FROM_POD, &later).code,
        DROP,
        "its first fragment is unknown"
    );

    let segment = |dst: [u8; 4], port| {
        frame::segment(protocol::UDP, (POD, 40_000), (dst, port), 0, b"head of ")
    };
    let first = frame::ipv4(protocol::UDP, POD, VIP, 0x2000, &segment(VIP, 53));
    let out = world.run(FROM_POD, &first);
    assert_eq!(
        out.packet,
        frame::ipv4(protocol::UDP, POD, BACKEND, 0x2000, &segment(BACKEND, 5353))
    );
    let out = world.run(FROM_POD, &later);
    let expected = frame::ipv4(protocol::UDP, POD, BACKEND, 0x0002, b"tail of datagram");
    assert_eq!((out.code, out.packet), (PASS, expected));
}

#[test]
fn a_closed_connection_gives_its_ports_free() {
    let mut world = World::new();
    world.pod(LO, POD, 0, 1);
    world.service(VIP, 80, protocol::TCP, &[(BACKEND, 8080)]);
    world.run(FROM_POD, &tcp((POD, 40_000), (VIP, 80), TCP_SYN));
    world.run(
        TO_POD,
        &tcp((BACKEND, 8080), (POD, 40_000), TCP_SYN | TCP_ACK),
    );
    world.run(FROM_POD, &tcp((POD, 40_000), (VIP, 80), TCP_FIN | TCP_ACK));
    world.run(
        TO_POD,
        &tcp((BACKEND, 8080), (POD, 40_000), TCP_FIN | TCP_ACK),
    );
    let conntrack = world.datapath.maps().conntrack().unwrap();
    let flows = conntrack.flows().unwrap();
    assert_eq!(
        flows.iter().map(|f| f.established).collect::<Vec<_>>(),
        [false, false]
    );

    let out = world.run(FROM_POD, &tcp((POD, 40_000), (VIP, 80), TCP_ACK));
    assert_eq!(
        out.packet,
        tcp((POD, 40_000), (BACKEND, 8080), TCP_ACK),
        "the last ACK still passes"
    );

    let later = loader::monotonic_ns() + 11_000_000_000;
    let timeouts = ebpf_shared::conntrack::Timeouts::DEFAULT;
    let sweep = conntrack.sweep(&timeouts, later).unwrap();
    assert_eq!(
        sweep,
        loader::Sweep {
            seen: 2,
            removed: 2
        }
    );
    assert_eq!(conntrack.flows().unwrap(), []);
}

#[test]
fn an_unanswered_flow_is_translated_once_its_service_exists() {
    let mut world = World::new();
    world.pod(LO, POD, 0, 1);
    let query = udp((POD, 40_000), (VIP, 53));
    assert_eq!(world.run(FROM_POD, &query).packet, query);
    world.service(VIP, 53, protocol::UDP, &[(BACKEND, 5353)]);
    assert_eq!(
        world.run(FROM_POD, &query).packet,
        udp((POD, 40_000), (BACKEND, 5353))
    );
}

/// Changes the value of the one frontend.
fn change_frontend(world: &mut World, change: impl Fn(&mut FrontendValue)) {
    let (key, mut value) = world
        .tables
        .frontends4
        .observe()
        .unwrap()
        .pop_first()
        .unwrap();
    change(&mut value);
    world.tables.frontends4.put(&key, &value).unwrap();
}

#[test]
fn new_flows_spread_over_the_backends_unless_the_client_sticks() {
    let mut world = World::new();
    world.pod(LO, POD, 0, 1);
    let backends: Vec<_> = (1..=8).map(|n| ([10, 244, 2, n], 80)).collect();
    world.service(VIP, 80, protocol::TCP, &backends);
    let chosen = |world: &World, ports: std::ops::Range<u16>| {
        let mut seen = std::collections::BTreeSet::new();
        for port in ports {
            let out = world.run(FROM_POD, &tcp((POD, port), (VIP, 80), TCP_SYN));
            seen.insert(out.packet[33]);
        }
        seen.len()
    };
    // The chance to miss one of 8 in 200 is below one in 10^10.
    assert_eq!(chosen(&world, 1000..1200), 8);
    change_frontend(&mut world, |f| {
        (f.flags, f.affinity_secs) = (FRONTEND_AFFINITY, 60);
    });
    assert_eq!(chosen(&world, 2000..2100), 1);
}

#[test]
fn local_only_services_use_this_nodes_backends_or_drop() {
    let mut world = World::new();
    world.pod(LO, POD, 0, 1);
    world.service(
        VIP,
        80,
        protocol::TCP,
        &[(BACKEND, 8080), ([10, 244, 3, 9], 8080)],
    );
    change_frontend(&mut world, |f| {
        (f.flags, f.n_local) = (FRONTEND_LOCAL_ONLY, 1);
    });
    for port in 1000..1050 {
        let out = world.run(FROM_POD, &tcp((POD, port), (VIP, 80), TCP_SYN));
        assert_eq!(out.packet, tcp((POD, port), (BACKEND, 8080), TCP_SYN));
    }
    change_frontend(&mut world, |f| f.n_local = 0);
    let out = world.run(FROM_POD, &tcp((POD, 2000), (VIP, 80), TCP_SYN));
    assert_eq!(out.code, DROP);
    let event = world.datapath.maps().events().unwrap().next().unwrap();
    assert_eq!(
        Reason::from_code(event.reason),
        Some(Reason::NoLocalBackend)
    );
}
