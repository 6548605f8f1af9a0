//! How long it takes until every node's kernel has what one node's lease says anew.

use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use leases::requests::{Requests, between};

use super::ear::{Ear, Heard, News};
use super::figure::Samples;
use super::join::join;
use super::peers::{DEVICE, Entries, Peer, SPARE};
use super::towlined::Towlined;
use super::world::{LIMIT, World};

/// Rest between two changes, in which nodes look once more at what they have done.
const REST: Duration = Duration::from_millis(100);

/// What changes have come to.
#[derive(Debug)]
pub(crate) struct Spread {
    pub(crate) nodes: usize,
    pub(crate) leases: usize,
    pub(crate) changes: u32,
    /// From before a change was put until a node's kernel had it: for each change and node.
    pub(crate) each: Samples,
    /// The same for each change and its last node.
    pub(crate) last: Samples,
    /// CPU time of a node's daemon for each change.
    pub(crate) cpu: Duration,
    /// What the nodes asked of etcd meanwhile.
    pub(crate) requests: Requests,
}

/// `count` nodes with a daemon, which know of `leases` leases in all, and `changes` to one lease.
///
/// # Errors
/// When a node does not join, or does not follow.
pub(crate) fn among(
    count: u16,
    leases: u32,
    changes: u32,
    program: &Path,
) -> anyhow::Result<Spread> {
    let mut world = World::new(count)?;
    let peers = Peer::all(leases.saturating_sub(u32::from(count)));
    world.put(&peers)?;
    let device = DEVICE.parse()?;
    let wanted = Entries::of(&peers, &device);
    let mut daemons = Vec::new();
    for at in 0..usize::from(count) {
        daemons.push(join(&mut world, at, program, &wanted)?.0);
    }
    settled(&mut world, &peers, &mut daemons)?;
    measure(&mut world, &daemons, changes)
}

/// Waits until every node has a route to every other one, too.
fn settled(world: &mut World, peers: &[Peer], daemons: &mut [Towlined]) -> anyhow::Result<()> {
    let others = daemons.len() - 1;
    let begun = Instant::now();
    for (node, daemon) in world.nodes.iter_mut().zip(daemons) {
        loop {
            let routes = node.entries()?.routes.len();
            if routes == peers.len() + others {
                break;
            }
            daemon.runs()?;
            ensure!(
                begun.elapsed() < LIMIT,
                "{routes} routes: {}",
                daemon.said()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    Ok(())
}

/// Makes `changes` to one spare lease: it comes, its MAC changes, it goes.
///
/// # Errors
/// When a node does not follow.
pub(crate) fn measure(
    world: &mut World,
    daemons: &[Towlined],
    changes: u32,
) -> anyhow::Result<Spread> {
    let leases = world.leases()?;
    let (tell, told) = channel();
    let ears = world.nodes.iter().take(daemons.len()).enumerate();
    let ears = ears.map(|(at, node)| Ear::on(&node.netns, at, tell.clone()));
    let _ears = ears.collect::<anyhow::Result<Vec<Ear>>>()?;
    let (mut each, mut last) = (Samples::default(), Samples::default());
    let before = world.requests()?;
    let worked = cpu(daemons)?;
    for change in 0..changes {
        let peer = Peer::new(SPARE + change / 3);
        let news = match change % 3 {
            0 => News::Route(peer.gateway(), true),
            1 => News::Neighbour(peer.gateway(), peer.with_another_mac().mac()),
            _ => News::Route(peer.gateway(), false),
        };
        let begun = Instant::now();
        match change % 3 {
            0 => world.put_one(peer)?,
            1 => world.put_one(peer.with_another_mac())?,
            _ => world.delete_one(peer)?,
        }
        let times = all_hear(&told, news, daemons.len(), begun)?;
        last.extend(times.iter().max().copied());
        each.extend(times);
        std::thread::sleep(REST);
    }
    let cpu = cpu(daemons)?.saturating_sub(worked);
    let mut requests = between(&before, &world.requests()?);
    // The changes themselves.
    requests.retain(|method, _| method != "Put" && method != "DeleteRange");
    let works = changes.max(1) * u32::try_from(daemons.len())?;
    Ok(Spread {
        nodes: daemons.len(),
        leases,
        changes,
        each,
        last,
        cpu: cpu / works,
        requests,
    })
}

fn cpu(daemons: &[Towlined]) -> anyhow::Result<Duration> {
    daemons.iter().map(Towlined::cpu).sum()
}

/// The time since `begun` at which each of `count` nodes has told of `news`.
fn all_hear(
    told: &Receiver<Heard>,
    news: News,
    count: usize,
    begun: Instant,
) -> anyhow::Result<Vec<Duration>> {
    let mut times = vec![None; count];
    while times.contains(&None) {
        let missing = times.iter().filter(|time| time.is_none()).count();
        let heard = told.recv_timeout(LIMIT.saturating_sub(begun.elapsed()));
        let heard = heard.with_context(|| format!("{missing} nodes have not got {news:?}"))?;
        if heard.news == news {
            times[heard.node].get_or_insert(heard.at.saturating_duration_since(begun));
        }
    }
    Ok(times.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_everywhere_when_the_last_node_has_told_of_it() {
        let (tell, told) = channel();
        let begun = Instant::now();
        let gateway = "10.64.1.0".parse().unwrap();
        let hear = |node, millis, there| {
            let heard = Heard {
                node,
                at: begun + Duration::from_millis(millis),
                news: News::Route(gateway, there),
            };
            tell.send(heard).unwrap();
        };
        // An older change, and one told of twice, as a repair does.
        hear(0, 1, true);
        hear(1, 5, false);
        hear(1, 6, false);
        hear(0, 9, false);
        let times = all_hear(&told, News::Route(gateway, false), 2, begun).unwrap();
        assert_eq!(times, [9, 5].map(Duration::from_millis));
    }
}
