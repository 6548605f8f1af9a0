//! Maps as targets, capacities, adoption of pins.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests fail by panicking"
)]

mod harness;

use std::collections::BTreeMap;

use ebpf_shared::{conntrack::TCP_SYN, hook::FROM_POD, maps::name, policy::*, service::*};
use harness::*;
use netstate::target::Target;
use towline_loader::{
    Datapath, Error, Maps, Options, layout_hash, remove_pins, retire_other_layouts,
};

#[test]
fn a_map_is_a_target() {
    let mut world = World::new();
    let table = &mut world.tables.backends4;
    let mut wanted = BTreeMap::new();
    for id in 0..10_000u32 {
        let addr = id.to_be_bytes();
        let value = BackendValue {
            addr,
            port: [0, 80],
            pad: [0; 2],
            ifindex: 0,
            state: 0,
        };
        table.put(&BackendKey { id }, &value).unwrap();
        wanted.insert(BackendKey { id }, value);
    }
    assert_eq!(table.observe().unwrap(), wanted);
    table.delete(&BackendKey { id: 3 }).unwrap();
    table.delete(&BackendKey { id: 3 }).unwrap();
    wanted.remove(&BackendKey { id: 3 });
    assert_eq!(table.observe().unwrap(), wanted);
}

#[test]
fn pods_and_their_addresses_change_together() {
    let mut world = World::new();
    let key = |ifindex| PodKey { ifindex };
    let local = |world: &World, addr| {
        let usage = world.datapath.maps().usage().unwrap();
        let entries = usage
            .iter()
            .find(|u| u.name == name::LOCAL_V4)
            .unwrap()
            .entries;
        (
            entries,
            world.tables.pods.get(&key(addr)).unwrap().map(|p| p.addr4),
        )
    };
    world.pod(5, [10, 0, 0, 5], 0, 1);
    assert_eq!(local(&world, 5), (Some(1), Some([10, 0, 0, 5])));
    world.pod(5, [10, 0, 0, 6], 0, 1);
    assert_eq!(local(&world, 5), (Some(1), Some([10, 0, 0, 6])));
    // The address moves to another device before the old pod is deleted.
    world.pod(9, [10, 0, 0, 6], 0, 1);
    let seen: Vec<_> = world.tables.pods.observe().unwrap().into_keys().collect();
    assert_eq!(
        seen,
        [key(9)],
        "a pod whose address leads elsewhere is to be mended"
    );
    world.tables.pods.delete(&key(5)).unwrap();
    assert_eq!(world.tables.pods.observe().unwrap().len(), 1);
    world.tables.pods.delete(&key(9)).unwrap();
    assert_eq!(local(&world, 9), (Some(0), None));
}

#[test]
fn a_full_map_says_so_and_capacities_are_checked() {
    isolate();
    let directory = tempfile::tempdir().unwrap();
    let bpffs = directory.path();
    mount_bpffs(bpffs);
    let mut options = options(bpffs.join("towline"));
    options.capacities.insert(name::SLOT_V4.to_owned(), 2);
    let datapath = Datapath::load(&options).unwrap();
    let mut slots = datapath.maps().tables().unwrap().slots4;
    let key = |n| SlotKey {
        service: 1,
        generation: 1,
        n,
    };
    for n in 0..2 {
        slots.put(&key(n), &SlotValue { backend: n }).unwrap();
    }
    let full = slots.put(&key(2), &SlotValue { backend: 2 }).unwrap_err();
    assert_eq!(
        full.to_string(),
        "eBPF map towline_slot_v4 is full (2 entries): raise its capacity"
    );

    let refused = |name: &str, capacity| {
        let capacities = BTreeMap::from([(name.to_owned(), capacity)]);
        let error = Datapath::load(&Options {
            capacities,
            ..options.clone()
        })
        .unwrap_err();
        matches!(error, Error::Capacity { .. })
    };
    assert!(refused("towline_nothing", 5));
    assert!(refused(name::CONFIG, 5));
    assert!(refused(name::SLOT_V4, 0));
    assert!(refused(name::EVENTS, 5000));
}

#[test]
fn pins_are_adopted_found_by_readers_and_removed() {
    let mut world = World::new();
    world.pod(5, [10, 0, 0, 5], 0, 1);
    let root = world.options.bpf_root.clone();
    drop(world.datapath);
    let again = Datapath::load(&world.options).unwrap();
    assert_eq!(
        again.maps().tables().unwrap().pods.observe().unwrap().len(),
        1
    );
    let reader = Maps::open(&root).unwrap();
    assert_eq!(reader.config().unwrap(), again.maps().config().unwrap());

    let old = "0123456789abcdef";
    std::fs::create_dir_all(root.join(old).join("maps")).unwrap();
    assert_eq!(retire_other_layouts(&root).unwrap(), [old]);
    assert!(root.join(layout_hash()).exists());
    remove_pins(&root).unwrap();
    assert!(matches!(Maps::open(&root), Err(Error::NotLoaded { .. })));
}

#[test]
fn a_directory_that_is_no_bpffs_is_named() {
    isolate();
    let directory = tempfile::tempdir().unwrap();
    let options = options(directory.path().join("towline"));
    assert!(matches!(
        Datapath::load(&options),
        Err(Error::NoBpffs { .. })
    ));
}

#[test]
fn flows_of_a_pod_that_is_gone_are_swept_at_once() {
    let mut world = World::new();
    let (pod, peer) = ([10, 0, 0, 5], [10, 0, 0, 6]);
    world.pod(LO, pod, 0, 1);
    let conntrack = world.datapath.maps().conntrack().unwrap();
    let sweep = || {
        let now = towline_loader::monotonic_ns();
        let timeouts = ebpf_shared::conntrack::Timeouts::DEFAULT;
        conntrack.sweep(&timeouts, now).unwrap().removed
    };
    let open = |world: &World| {
        world
            .run(FROM_POD, &tcp((pod, 1), (peer, 80), TCP_SYN))
            .code
    };
    assert_eq!(open(&world), PASS);
    assert_eq!(sweep(), 0, "its pod is there");
    world.pod(LO, peer, 0, 1);
    assert_eq!(sweep(), 1, "the device has another pod's address");
    world.pod(LO, pod, 0, 1);
    assert_eq!(open(&world), PASS);
    world.tables.pods.delete(&PodKey { ifindex: LO }).unwrap();
    assert_eq!(sweep(), 1);
    assert_eq!(conntrack.flows().unwrap(), []);
}
