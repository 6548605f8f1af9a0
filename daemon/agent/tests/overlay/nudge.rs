//! The loop as the daemon runs it: what the kernel tells is answered at once, not at the resync.

use std::sync::Arc;
use std::time::{Duration, Instant};

use agent::board::Board;
use agent::metrics::Metrics;
use agent::reconcile::{nudges, run};
use hostnet::netns::Netns;
use hostnet::{Changes, Netlink, PROTOCOL_TOWLINE};
use nix::sched::{CloneFlags, setns};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::host::{VXLAN, cluster, in_new_namespace, name, peer};

/// Far beyond any test's patience: only news makes the loop look.
const RESYNC: Duration = Duration::from_secs(3600);

/// Waits, woken by the kernel alone, until the daemon has `count` routes.
fn await_routes(netlink: &mut Netlink, changes: &mut Changes, count: usize) {
    loop {
        let routes = netlink.routes(Some(PROTOCOL_TOWLINE)).unwrap();
        if routes.len() == count {
            return;
        }
        let told = changes.wait(Duration::from_secs(20)).unwrap();
        assert!(told, "nothing happens, and there are {}", routes.len());
    }
}

/// Runs the loop with two peers while `meanwhile` does something to the host; of what is repaired then
/// at least `least` entries are counted.
fn while_it_runs(meanwhile: impl FnOnce(&mut Netlink, &mut Changes) + Send + 'static, least: u64) {
    in_new_namespace(VXLAN, move |mut host| {
        let here = Arc::new(Netns::current().unwrap());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            // Kernel parameters are those of the namespace of whoever writes them.
            .on_thread_start(move || setns(&*here, CloneFlags::CLONE_NEWNET).unwrap())
            .build()
            .unwrap();
        let mut changes = Changes::open().unwrap();
        let (snapshots, clusters) = watch::channel(Arc::new(cluster([peer(2), peer(3)])));
        let board = Arc::new(Board::new(vec!["overlay"], Arc::new(Metrics::default())));
        let stop = CancellationToken::new();
        let news = Some(nudges(host.overlay.changes().unwrap()).unwrap());
        let ended = runtime.spawn(run(
            host.overlay,
            clusters,
            RESYNC,
            board.clone(),
            stop.clone(),
            news,
        ));
        await_routes(&mut host.netlink, &mut changes, 2);
        meanwhile(&mut host.netlink, &mut changes);
        snapshots.send_replace(Arc::new(cluster([peer(3)])));
        await_routes(&mut host.netlink, &mut changes, 1);
        stop.cancel();
        runtime.block_on(ended).unwrap().unwrap();
        let repaired = board.loops()["overlay"].drift_repaired;
        assert!(repaired >= least, "{repaired} entries counted");
    });
}

#[test]
fn a_flapping_device_has_its_routes_back_without_waiting_for_the_resync() {
    let flap = |netlink: &mut Netlink, changes: &mut Changes| {
        for _ in 0..2 {
            netlink.set_down(&name("flannel.1")).unwrap();
            netlink.set_up(&name("flannel.1")).unwrap();
            await_routes(netlink, changes, 2);
        }
        netlink.delete_link(&name("flannel.1")).unwrap();
        await_routes(netlink, changes, 2);
    };
    while_it_runs(flap, 4);
}

#[test]
fn removed_neighbours_and_forwarding_entries_are_back_without_waiting_for_the_resync() {
    let remove = |netlink: &mut Netlink, _: &mut Changes| {
        let device = name("flannel.1");
        let neighbours = netlink.neighbours(&device).unwrap();
        let fdb = netlink.fdb(&device).unwrap();
        assert_eq!((neighbours.len(), fdb.len()), (2, 2));
        for neighbour in &neighbours {
            netlink.delete_neighbour(&neighbour.key).unwrap();
        }
        until(|| netlink.neighbours(&device).unwrap().len() == 2);
        for entry in &fdb {
            netlink.delete_fdb(&entry.key).unwrap();
        }
        until(|| netlink.fdb(&device).unwrap().len() == 2);
    };
    while_it_runs(remove, 4);
}

/// Waits until `condition` is so.
fn until(mut condition: impl FnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < limit, "not in time");
        std::thread::sleep(Duration::from_millis(10));
    }
}
