//! One row: a container goes through the chain and back, on the host with our plugins, on the one
//! with the reference's, and by bare kernel calls, in turn.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;

use crate::cni::Bins;
use crate::cni::figure::{Figure, Samples};
use crate::cni::floor::Floor;
use crate::cni::node::{Host, Pod};
use crate::cni::rows::{Plugin, RESERVED, Row};

/// Rounds before those that count: caches are warm then, indexes and shared tables made.
const WARM_UP: usize = 3;

/// A host and the container that comes and goes on it.
struct Side {
    host: Host,
    pod: Pod,
}

/// Measures `row` in `rounds` rounds; a figure for ADD and one for DEL.
///
/// # Errors
/// When a plugin or the kernel fails.
pub(crate) fn row(row: &Row, bins: &Bins, rounds: usize) -> anyhow::Result<[Figure; 2]> {
    let sides = [("Towline", &bins.ours), ("reference", &bins.reference)]
        .map(|(name, bin)| side(name, bin, row));
    let [ours, reference] = sides;
    let sides = [ours?, reference?];
    let mut floor = row.floor.map(Floor::new).transpose()?;
    let mut samples: [[Samples; 2]; 3] = Default::default();
    for round in 0..WARM_UP + rounds {
        let mut order = [0, 1, 2];
        if round % 2 == 1 {
            order.reverse();
        }
        for at in order {
            let times = match (at, &mut floor) {
                (1, _) if round >= WARM_UP && round % row.reference_every != 0 => continue,
                (0 | 1, _) => cycle(row, &sides[at])?,
                (_, Some(floor)) => [floor.add()?, floor.del()?],
                (_, None) => continue,
            };
            if round >= WARM_UP {
                for (samples, time) in samples[at].iter_mut().zip(times) {
                    samples.push(time);
                }
            }
        }
    }
    let [ours, reference, floor] = samples;
    let [add, del] = [0, 1].map(|at| Figure {
        name: format!("{} {}", row.name, ["ADD", "DEL"][at]),
        ours: ours[at].clone(),
        reference: reference[at].clone(),
        floor: floor[at].clone(),
        bars: [row.add, row.del][at].to_vec(),
    });
    Ok([add, del])
}

/// A host on which a container stays, so that what all containers share is there.
fn side(name: &str, bin: &Path, row: &Row) -> anyhow::Result<Side> {
    let host = Host::new(name, bin)?;
    let stays = host.pod("stays")?;
    let inside = host.enter()?;
    if row.filled {
        fill(host.state.path())?;
    } else {
        add(&host, row.chain, &stays, 0)?;
    }
    drop(inside);
    let pod = host.pod("comes")?;
    Ok(Side { host, pod })
}

/// Times of the measured plugin's ADD and DEL.
fn cycle(row: &Row, side: &Side) -> anyhow::Result<[Duration; 2]> {
    let _inside = side.host.enter()?;
    let (result, added) = add(&side.host, row.chain, &side.pod, 1)?;
    let deleted = del(&side.host, row.chain, &side.pod, 1, &result)?;
    let time = |times: &[Duration]| times.get(row.measured).copied().context("no such plugin");
    Ok([time(&added)?, time(&deleted)?])
}

/// Has each plugin of `chain` do ADD; returns the last result and the time each took.
pub(crate) fn add(
    host: &Host,
    chain: &[Plugin],
    pod: &Pod,
    number: u16,
) -> anyhow::Result<(Value, Vec<Duration>)> {
    let (mut result, mut times) = (Value::Null, Vec::new());
    for plugin in chain {
        let config = plugin.config(host.state.path(), number, &result);
        let answer = host.call("ADD", &config, pod)?;
        times.push(answer.took);
        result = answer.document;
    }
    Ok((result, times))
}

/// Has each plugin of `chain` do DEL, the last one first; returns the time each took, by its place
/// in the chain.
pub(crate) fn del(
    host: &Host,
    chain: &[Plugin],
    pod: &Pod,
    number: u16,
    result: &Value,
) -> anyhow::Result<Vec<Duration>> {
    let mut times = Vec::new();
    for plugin in chain.iter().rev() {
        let config = plugin.config(host.state.path(), number, result);
        times.push(host.call("DEL", &config, pod)?.took);
    }
    times.reverse();
    Ok(times)
}

/// Reserves addresses as the plugins do, in the format that both have.
pub(crate) fn fill(state: &Path) -> anyhow::Result<()> {
    let folder = state.join("bench");
    fs::create_dir_all(&folder)?;
    let first = u32::from(Ipv4Addr::new(10, 88, 0, 2));
    for number in 0..RESERVED {
        let ip = Ipv4Addr::from(first + number).to_string();
        fs::write(folder.join(&ip), format!("reserved{number}\r\neth0"))?;
        if number + 1 == RESERVED {
            fs::write(folder.join("last_reserved_ip.0"), ip)?;
        }
    }
    Ok(())
}
