//! The report: tables with bars.

use std::fmt::Write as _;
use std::time::Duration;

use leases::requests::Requests;

use super::Scale;
use super::figure::{Samples, Verdicts, millis, seconds};
use super::join::Joined;
use super::spread::Spread;
use crate::command::run;
use crate::machine;

/// Most requests of a node that joins, however many leases there are.
const REQUESTS: u64 = 6;
/// Up to so many leases, a node joins within this, does nothing dearer than this per cent of a CPU
/// when nothing happens, and takes no more memory than this, KiB.
const FEW: u32 = 1000;
const JOIN: Duration = Duration::from_millis(300);
const IDLE: f64 = 0.1;
const MEMORY_AT_FEW: u64 = 20 * 1024;
/// Beyond.
const MEMORY: u64 = 40 * 1024;
/// Longest until damage is repaired, and until 99 of 100 changes are everywhere.
const REPAIR: Duration = Duration::from_secs(10);
const CHANGE: Duration = Duration::from_secs(1);

/// The whole report.
///
/// # Errors
/// When the machine cannot be described.
pub(super) fn text(
    scales: &[Scale],
    followed: &Spread,
    verdicts: &mut Verdicts,
) -> anyhow::Result<String> {
    let mut text = heading(scales)?;
    let _ = write!(text, "\n{}", joins(scales, verdicts));
    for scale in scales.iter().filter(|scale| !scale.repairs.is_empty()) {
        let _ = write!(text, "\n{}", repairs(scale, verdicts));
    }
    let all: Vec<&Spread> = scales.iter().map(|scale| &scale.spread).collect();
    let _ = write!(text, "\n{}", changes(&all, followed, verdicts));
    Ok(text)
}

fn heading(scales: &[Scale]) -> anyhow::Result<String> {
    let etcd = run("etcd --version")?;
    let rounds = scales.first().map_or(0, |scale| scale.joins.len());
    Ok(format!(
        "## The overlay of a large cluster\n\n\
         Made by `make bench` (`bench overlay`). {} Towline {}, {}, {}, all on this machine.\n\n\
         `towlined` (VXLAN, leases in etcd) on a node that has never run it joins leases that are there.\n\
         Medians of {rounds} rounds (longest in parentheses), iproute2's on another host in between.\n",
        machine::shown()?,
        env!("CARGO_PKG_VERSION"),
        etcd.lines().next().unwrap_or_default(),
        run("ip -V")?.trim(),
    ))
}

fn joins(scales: &[Scale], verdicts: &mut Verdicts) -> String {
    let mut text = String::from("| a node joins |");
    for scale in scales {
        let _ = write!(text, " {} leases |", scale.leases);
    }
    text.push_str(" bar |\n|---|");
    text.push_str(&"---|".repeat(scales.len() + 1));
    text.push('\n');
    let mut row = |name: &str, cell: &dyn Fn(&Scale) -> String, bar: &str| {
        let _ = write!(text, "| {name} |");
        for scale in scales {
            let _ = write!(text, " {} |", cell(scale));
        }
        let _ = writeln!(text, " {bar} |");
    };
    let few = || scales.iter().filter(|scale| scale.leases <= FEW);

    let met = scales.iter().all(|scale| most(scale).1 <= REQUESTS);
    let bar = verdicts.judge("join: requests", &format!("≤ {REQUESTS}"), met);
    row("requests to etcd, most", &|scale| most(scale).0, &bar);
    row(
        "until the subnet file is there, ms",
        &|scale| shown(&times(scale, |joined| joined.file)),
        "",
    );
    let met = few().all(|scale| whole(scale).median() <= JOIN);
    let words = format!("≤ {} at {FEW}", JOIN.as_millis());
    let bar = verdicts.judge("join: time", &words, met);
    row(
        "until all routes, neighbours, FDB entries are seen in the kernel, ms",
        &|scale| shown(&whole(scale)),
        &bar,
    );
    row(
        "the same entries by `bridge -batch` and `ip -batch`, ms",
        &|scale| shown(&scale.floor),
        "",
    );
    row("join / iproute2", &|scale| ratio(scale), "");
    let met = scales.iter().all(|scale| peak(scale) <= allowed(scale));
    let words = format!("≤ {MEMORY_AT_FEW} at {FEW}, ≤ {MEMORY} beyond");
    let bar = verdicts.judge("memory", &words, met);
    row(
        "memory of the process, most, KiB",
        &|scale| peak(scale).to_string(),
        &bar,
    );
    row(
        "memory when idle, KiB",
        &|scale| scale.idle.memory.now.to_string(),
        "",
    );
    let met = few().all(|scale| scale.idle.percent() < IDLE);
    let bar = verdicts.judge("idle CPU", &format!("< {IDLE} at {FEW}"), met);
    let watched = scales
        .iter()
        .map(|scale| scale.idle.watched.as_secs())
        .max();
    row(
        &format!(
            "CPU when idle for {} s, its looks included, % of one",
            watched.unwrap_or_default()
        ),
        &|scale| format!("{:.3}", scale.idle.percent()),
        &bar,
    );
    text
}

fn repairs(scale: &Scale, verdicts: &mut Verdicts) -> String {
    let mut text = format!(
        "Among {} leases somebody else does damage, each {} times, right after a repair: the next look of\n\
         the daemon's own is as far away as can be. Times are from before the damage until the kernel has\n\
         everything again.\n\n\
         | damage | entries put right | until all is back, s, median / longest | bar |\n|---|---|---|---|\n",
        scale.leases,
        scale.repairs.first().map_or(0, |repair| repair.times.len()),
    );
    for repair in &scale.repairs {
        let longest = repair.times.longest();
        let words = format!("≤ {} s", REPAIR.as_secs());
        let bar = verdicts.judge(repair.damage, &words, longest <= REPAIR);
        let _ = writeln!(
            text,
            "| {} | {} | {} / {} | {bar} |",
            repair.damage,
            repair.entries,
            seconds(repair.times.median()),
            seconds(longest),
        );
    }
    text
}

fn changes(alone: &[&Spread], followed: &Spread, verdicts: &mut Verdicts) -> String {
    let mut text = String::from(
        "One lease comes, changes its MAC, goes, and again. Each node has a daemon; all of them, etcd and\n\
         the benchmark share this machine. Times are from before the key is written until the kernel of a\n\
         node, or of the last one, says that it has the change.\n\n\
         | nodes | leases | changes | on a node, ms, p50 / p99 / longest | on all nodes, ms, p50 / p99 / longest | CPU of a daemon for a change, ms | requests of nodes to etcd | bar |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for spread in alone.iter().copied().chain([followed]) {
        let what = format!("{} nodes follow changes", spread.nodes);
        let seen = spread.last.quantile(0.99) <= CHANGE;
        let seen = verdicts.judge(&what, &format!("p99 ≤ {} s", CHANGE.as_secs()), seen);
        let quiet = verdicts.judge(&what, "no request", spread.requests.is_empty());
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {seen}; {quiet} |",
            spread.nodes,
            spread.leases,
            spread.changes,
            spectrum(&spread.each),
            spectrum(&spread.last),
            millis(spread.cpu),
            counted(&spread.requests),
        );
    }
    text
}

/// The requests of the join with the most.
fn most(scale: &Scale) -> (String, u64) {
    let sum = |joined: &Joined| joined.requests.values().sum::<u64>();
    let most = scale.joins.iter().max_by_key(|joined| sum(joined));
    most.map_or((String::new(), 0), |joined| {
        let count = sum(joined);
        (format!("{count}: {}", counted(&joined.requests)), count)
    })
}

fn counted(requests: &Requests) -> String {
    let all = requests.iter();
    let all: Vec<String> = all
        .map(|(method, count)| format!("{count} {method}"))
        .collect();
    if all.is_empty() {
        return "0".to_owned();
    }
    all.join(", ")
}

fn times(scale: &Scale, of: impl Fn(&Joined) -> Duration) -> Samples {
    let mut samples = Samples::default();
    samples.extend(scale.joins.iter().map(of));
    samples
}

fn whole(scale: &Scale) -> Samples {
    times(scale, |joined| joined.whole)
}

fn ratio(scale: &Scale) -> String {
    let floor = scale.floor.median().as_secs_f64();
    format!("{:.2}", whole(scale).median().as_secs_f64() / floor)
}

/// Most that the process ever took, in any round and while it was idle.
fn peak(scale: &Scale) -> u64 {
    let joins = scale.joins.iter().map(|joined| joined.memory.peak);
    joins.chain([scale.idle.memory.peak]).max().unwrap_or(0)
}

const fn allowed(scale: &Scale) -> u64 {
    if scale.leases <= FEW {
        MEMORY_AT_FEW
    } else {
        MEMORY
    }
}

fn shown(samples: &Samples) -> String {
    format!(
        "{} ({})",
        millis(samples.median()),
        millis(samples.longest())
    )
}

fn spectrum(samples: &Samples) -> String {
    let at = |part| millis(samples.quantile(part));
    format!("{} / {} / {}", at(0.5), at(0.99), at(1.0))
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;

    use super::super::Idle;
    use super::super::repair::Repair;
    use super::super::towlined::Memory;
    use super::*;

    fn samples(millis: &[u64]) -> Samples {
        let mut samples = Samples::default();
        samples.extend(millis.iter().copied().map(Duration::from_millis));
        samples
    }

    fn scale(leases: u32, join: u64, peak: u64) -> Scale {
        let joined = |more| Joined {
            file: Duration::from_millis(join - 10),
            whole: Duration::from_millis(join + more),
            requests: Requests::from([("Range".to_owned(), 2), ("Txn".to_owned(), 1)]),
            memory: Memory { peak, now: 9000 },
        };
        Scale {
            leases,
            joins: vec![joined(0), joined(1), joined(2)],
            floor: samples(&[50]),
            idle: Idle {
                watched: Duration::from_secs(60),
                cpu: Duration::from_millis(30),
                memory: Memory { peak, now: 8000 },
            },
            repairs: Vec::new(),
            spread: spread(1, leases, 20),
        }
    }

    fn spread(nodes: usize, leases: u32, last: u64) -> Spread {
        Spread {
            nodes,
            leases: usize::try_from(leases).unwrap(),
            changes: 3,
            each: samples(&[10, last]),
            last: samples(&[last]),
            cpu: Duration::from_micros(1500),
            requests: Requests::new(),
        }
    }

    #[test]
    fn figures_and_bars_are_shown_side_by_side() {
        let mut verdicts = Verdicts::default();
        let scales = [scale(1000, 99, 12_000), scale(5000, 400, 41_000)];
        assert_eq!(
            joins(&scales, &mut verdicts),
            "| a node joins | 1000 leases | 5000 leases | bar |\n\
             |---|---|---|---|\n\
             | requests to etcd, most | 3: 2 Range, 1 Txn | 3: 2 Range, 1 Txn | ≤ 6: met |\n\
             | until the subnet file is there, ms | 89.0 (89.0) | 390 (390) |  |\n\
             | until all routes, neighbours, FDB entries are seen in the kernel, ms | 100 (101) | 401 (402) | ≤ 300 at 1000: met |\n\
             | the same entries by `bridge -batch` and `ip -batch`, ms | 50.0 (50.0) | 50.0 (50.0) |  |\n\
             | join / iproute2 | 2.00 | 8.02 |  |\n\
             | memory of the process, most, KiB | 12000 | 41000 | ≤ 20480 at 1000, ≤ 40960 beyond: missed |\n\
             | memory when idle, KiB | 8000 | 8000 |  |\n\
             | CPU when idle for 60 s, its looks included, % of one | 0.050 | 0.050 | < 0.1 at 1000: met |\n"
        );
        let mut repaired = scale(5000, 400, 1);
        repaired.repairs.push(Repair {
            damage: "device deleted",
            times: samples(&[900, 10_001]),
            entries: 15_001,
        });
        let text = repairs(&repaired, &mut verdicts);
        let row = "| device deleted | 15001 | 0.90 / 10.00 | ≤ 10 s: missed |\n";
        assert!(text.ends_with(row), "{text}");
        let text = changes(
            &[&spread(1, 5000, 40)],
            &spread(50, 1000, 1001),
            &mut verdicts,
        );
        let rows: Vec<&str> = text.lines().rev().take(2).collect();
        assert_eq!(
            rows,
            [
                "| 50 | 1000 | 3 | 10.0 / 1001 / 1001 | 1001 / 1001 / 1001 | 1.50 | 0 | p99 ≤ 1 s: missed; no request: met |",
                "| 1 | 5000 | 3 | 10.0 / 40.0 / 40.0 | 40.0 / 40.0 / 40.0 | 1.50 | 0 | p99 ≤ 1 s: met; no request: met |",
            ]
        );
        let missed = [
            "memory: ≤ 20480 at 1000, ≤ 40960 beyond",
            "device deleted: ≤ 10 s",
            "50 nodes follow changes: p99 ≤ 1 s",
        ];
        assert_eq!(verdicts.missed, missed);
        assert!((scales[0].idle.percent() - 0.05).abs() < 1e-9);
    }
}
