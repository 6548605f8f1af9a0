//! The overlay of a large cluster, kept by the daemon as it is installed: a node that joins, entries
//! that somebody removes, a change that all nodes must follow, and what all that costs.

mod ear;
mod figure;
mod floor;
mod join;
mod peers;
mod repair;
mod report;
mod spread;
mod towlined;
mod world;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::ensure;

use self::figure::{Samples, Verdicts};
use self::floor::Floor;
use self::join::{Joined, join};
use self::peers::{DEVICE, Entries, Peer};
use self::repair::Repair;
use self::spread::Spread;
use self::towlined::{Memory, Towlined};
use self::world::{World, apart};

/// How much is measured.
#[derive(Clone, Debug)]
pub(crate) struct Extent {
    /// The daemon.
    pub(crate) towlined: PathBuf,
    /// Numbers of leases that a node joins.
    pub(crate) leases: Vec<u32>,
    /// How often it joins.
    pub(crate) rounds: usize,
    /// How long it is watched when nothing happens.
    pub(crate) idle: Duration,
    /// How often each damage is done, where leases are most.
    pub(crate) repairs: usize,
    /// Nodes with a daemon that follow changes, and the leases that they know of.
    pub(crate) nodes: u16,
    pub(crate) among: u32,
    /// Changes that they follow.
    pub(crate) changes: u32,
}

/// What was measured among so many leases.
#[derive(Debug)]
pub(crate) struct Scale {
    leases: u32,
    joins: Vec<Joined>,
    floor: Samples,
    idle: Idle,
    repairs: Vec<Repair>,
    spread: Spread,
}

/// A daemon where nothing happens.
#[derive(Debug)]
pub(crate) struct Idle {
    watched: Duration,
    cpu: Duration,
    memory: Memory,
}

/// Rest of a daemon before it counts as idle: it has looked once more at what it did.
const SETTLE: Duration = Duration::from_secs(15);

/// Measures and returns the report, and the bars that are missed.
///
/// # Errors
/// When etcd or the daemon is missing or fails, or the kernel refuses. Needs root.
pub(crate) fn report(extent: &Extent) -> anyhow::Result<(String, Vec<String>)> {
    ensure!(
        extent.towlined.is_file(),
        "there is no {}; run `make build`",
        extent.towlined.display()
    );
    let most = extent.leases.iter().max();
    let mut scales = Vec::new();
    for leases in &extent.leases {
        let repairs = if most == Some(leases) {
            extent.repairs
        } else {
            0
        };
        scales.push(apart(|| scale(extent, *leases, repairs))?);
    }
    eprintln!("bench: {} nodes follow changes", extent.nodes);
    let followed = || spread::among(extent.nodes, extent.among, extent.changes, &extent.towlined);
    let followed = apart(followed)?;
    let mut verdicts = Verdicts::default();
    let text = report::text(&scales, &followed, &mut verdicts)?;
    Ok((text, verdicts.missed))
}

fn scale(extent: &Extent, leases: u32, repairs: usize) -> anyhow::Result<Scale> {
    eprintln!("bench: a node joins {leases} leases");
    let peers = Peer::all(leases);
    let wanted = Entries::of(&peers, &DEVICE.parse()?);
    let mut world = World::new(1)?;
    world.put(&peers)?;
    let floor = Floor::new(&peers)?;
    let mut floors = Samples::default();
    let mut joins = Vec::new();
    let mut running: Option<Towlined> = None;
    for round in 0..extent.rounds {
        if running.take().is_some() {
            world.nodes[0].wipe()?;
            world.forget(0)?;
        }
        if round % 2 == 0 {
            floors.push(floor.make()?);
        }
        let (daemon, joined) = join(&mut world, 0, &extent.towlined, &wanted)?;
        joins.push(joined);
        if round % 2 != 0 {
            // The one that runs has looked again by now, and rests.
            std::thread::sleep(Duration::from_secs(1));
            floors.push(floor.make()?);
        }
        running = Some(daemon);
    }
    let Some(mut daemon) = running else {
        anyhow::bail!("no rounds");
    };
    let idle = idle(&daemon, extent.idle)?;
    let repairs = if repairs > 0 {
        repair::measure(&mut world.nodes[0], &mut daemon, &wanted, repairs)?
    } else {
        Vec::new()
    };
    eprintln!("bench: it follows changes");
    let daemons = [daemon];
    let spread = spread::measure(&mut world, &daemons, extent.changes)?;
    Ok(Scale {
        leases,
        joins,
        floor: floors,
        idle,
        repairs,
        spread,
    })
}

fn idle(daemon: &Towlined, long: Duration) -> anyhow::Result<Idle> {
    if long > SETTLE {
        std::thread::sleep(SETTLE);
    }
    let (before, begun) = (daemon.cpu()?, Instant::now());
    std::thread::sleep(long);
    Ok(Idle {
        watched: begun.elapsed(),
        cpu: daemon.cpu()?.saturating_sub(before),
        memory: daemon.memory()?,
    })
}

// === impl Idle ===

impl Idle {
    /// Per cent of one CPU.
    fn percent(&self) -> f64 {
        100.0 * self.cpu.as_secs_f64() / self.watched.as_secs_f64().max(1e-9)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_cluster_is_measured_in_full() {
        let own = std::env::current_exe().unwrap();
        let built = own.parent().and_then(std::path::Path::parent).unwrap();
        let towlined = built.join("towlined");
        assert!(
            towlined.is_file(),
            "run `cargo build -p towline-agent` first"
        );
        let extent = Extent {
            towlined,
            leases: vec![20],
            rounds: 2,
            idle: Duration::from_millis(100),
            repairs: 1,
            nodes: 3,
            among: 10,
            changes: 6,
        };
        let (text, missed) = report(&extent).unwrap();
        // Times and memory of a build that is not optimised mean nothing.
        assert!(
            missed.iter().all(|bar| !bar.contains("request")),
            "{missed:?}\n{text}"
        );
        for row in [
            "| requests to etcd, most | 5: 1 LeaseGrant, 2 Range, 1 Txn, 1 Watch |",
            "\n| every route deleted | 20 |",
            "\n| every neighbour deleted | 20 |",
            "\n| every forwarding entry deleted | 20 |",
            "\n| 1 | 21 | 6 |",
            "\n| 3 | 10 | 6 |",
        ] {
            assert!(text.contains(row), "{row}\n{text}");
        }
    }
}
