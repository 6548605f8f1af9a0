//! A node that joins: from the start of the daemon until pods can be reached.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::ensure;
use leases::requests::{Requests, between};

use super::peers::Entries;
use super::towlined::{Memory, Towlined};
use super::world::{LIMIT, World};

/// What it took a node to join.
#[derive(Debug)]
pub(crate) struct Joined {
    /// From before the start of the process until the subnet file was there.
    pub(crate) file: Duration,
    /// Until every route, neighbour and forwarding entry had been seen in the kernel.
    pub(crate) whole: Duration,
    /// What etcd was asked.
    pub(crate) requests: Requests,
    /// What the process took then.
    pub(crate) memory: Memory,
}

/// Starts the daemon on node `at`, where there is none, and waits until it has joined.
///
/// # Errors
/// When it does not in time.
pub(crate) fn join(
    world: &mut World,
    at: usize,
    program: &Path,
    wanted: &Entries,
) -> anyhow::Result<(Towlined, Joined)> {
    let before = world.requests()?;
    let begun = Instant::now();
    let mut daemon = world.start(at, program)?;
    // The file comes last, so nothing is looked at before: looking costs the kernel's time, too.
    while !daemon.has_subnet() {
        daemon.runs()?;
        ensure!(begun.elapsed() < LIMIT, "no subnet: {}", daemon.said());
        std::thread::sleep(Duration::from_micros(500));
    }
    let file = begun.elapsed();
    let found = world.nodes[at].entries()?.include(wanted);
    let whole = begun.elapsed();
    ensure!(found, "the subnet file is there before all entries are");
    let joined = Joined {
        file,
        whole,
        requests: between(&before, &world.requests()?),
        memory: daemon.memory()?,
    };
    Ok((daemon, joined))
}
