//! A node whose entries somebody else has removed: how long until all are back.

use std::time::{Duration, Instant};

use anyhow::ensure;

use super::figure::Samples;
use super::peers::Entries;
use super::towlined::Towlined;
use super::world::{LIMIT, Node};

/// What is done, and how it is called.
type Damage = (&'static str, &'static [&'static str]);

const DAMAGES: &[Damage] = &[
    ("every route deleted", &["ip route flush proto 84"]),
    (
        "every neighbour deleted",
        &["ip neigh flush dev flannel.1 nud permanent"],
    ),
    (
        "every forwarding entry deleted",
        &["bridge fdb flush dev flannel.1 self"],
    ),
    (
        "device set down and up",
        &["ip link set flannel.1 down", "ip link set flannel.1 up"],
    ),
    ("device deleted", &["ip link delete flannel.1"]),
];

/// What repairs of one damage have come to.
#[derive(Debug)]
pub(crate) struct Repair {
    pub(crate) damage: &'static str,
    /// From before the damage began until the kernel was seen to have everything again.
    pub(crate) times: Samples,
    /// Fewest entries that the daemon put right at a time.
    pub(crate) entries: u64,
}

/// Does each damage to `node` `rounds` times.
///
/// # Errors
/// When it is not repaired, or does no damage.
pub(crate) fn measure(
    node: &mut Node,
    daemon: &mut Towlined,
    wanted: &Entries,
    rounds: usize,
) -> anyhow::Result<Vec<Repair>> {
    let mut repairs = Vec::new();
    for (damage, lines) in DAMAGES {
        eprintln!("bench: {damage}");
        let mut repair = Repair {
            damage,
            times: Samples::default(),
            entries: u64::MAX,
        };
        for _ in 0..rounds {
            let before = daemon.repaired()?;
            let begun = Instant::now();
            for line in *lines {
                node.run(line)?;
            }
            repair.times.push(node.becomes(wanted, begun, daemon)?);
            let entries = counted(daemon, before)? - before;
            repair.entries = repair.entries.min(entries);
        }
        repairs.push(repair);
    }
    Ok(repairs)
}

/// What the daemon says it has put right, once that is more than `before`: it says so at the end of
/// its pass, when the kernel has everything already.
fn counted(daemon: &mut Towlined, before: u64) -> anyhow::Result<u64> {
    let begun = Instant::now();
    let mut last = before;
    loop {
        let now = daemon.repaired()?;
        // What was repaired in several passes is told in as many parts.
        if now > before && now == last {
            return Ok(now);
        }
        last = now;
        daemon.runs()?;
        ensure!(begun.elapsed() < LIMIT, "no damage was noticed");
        std::thread::sleep(Duration::from_millis(50));
    }
}
