//! Leases in a real etcd: many nodes that race for nearly as many subnets, and one that joins many.
//! Real flanneld is not packaged; what it needs is known from its documentation and runs of it.

use std::fmt::Write as _;
use std::process::Command;
use std::time::{Duration, Instant};

use agent::lease::etcd::network_config;
use anyhow::{Context as _, ensure};
use leases::Etcd;
use leases::crowd::{self, Member, Race};
use leases::requests::{Requests, between, requests};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

use crate::command::run;
use crate::machine;

/// The network: subnets /26 in a /16, of which the first is not used.
const CONFIG: &str = r#"{"Network":"10.5.0.0/16","SubnetLen":26,"Backend":{"Type":"vxlan"}}"#;
const SUBNETS: u32 = 1023;
/// Longest that a node may take at all.
const LIMIT: Duration = Duration::from_secs(300);

/// Most requests of a node that joins.
const MOST_REQUESTS: u64 = 6;
/// Longest that one takes, and most memory that it has then.
const LONGEST: Duration = Duration::from_millis(300);
const MOST_MEMORY: u64 = 20 * 1024;

/// What it took a node to join.
#[derive(Deserialize, Serialize)]
pub(crate) struct Joined {
    /// Until it had its lease and knew all others, from before its first connection.
    micros: u64,
    /// Memory of its process then, KiB: the lease task alone.
    resident: u64,
}

/// Measures and returns the report, and the bars that are missed.
///
/// # Errors
/// When etcd is not installed, or a node gets no lease.
pub(crate) fn report(nodes: u16, rounds: u16) -> anyhow::Result<(String, Vec<String>)> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).context("raise the limit of open files")?;
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let etcd = Etcd::start(1).await?;
        let mut client = etcd.client(0).await?;
        let settings = crowd::settings(etcd.endpoints());
        client.put(settings.config_key(), CONFIG, None).await?;
        let pools = network_config(&settings).await?.pools()?;
        eprintln!("bench: {nodes} nodes race");
        let race = crowd::race(&etcd, pools, nodes, LIMIT).await?;
        eprintln!("bench: one joins");
        let mut joins = Vec::new();
        for _ in 0..rounds {
            let before = requests(&etcd.endpoints()[0]).await?;
            let joined = joining(&etcd.endpoints()[0], usize::from(nodes) + 1)?;
            let asked = between(&before, &requests(&etcd.endpoints()[0]).await?);
            joins.push((joined, asked));
            remove_joined(&mut client, &settings.leases_prefix()).await?;
        }
        let mut missed = Vec::new();
        let text = [
            heading(nodes)?,
            raced(&race)?,
            joined(&mut joins, &mut missed)?,
        ];
        Ok((text.join("\n"), missed))
    })
}

/// Joins as one node: what the benchmark's child does.
///
/// # Errors
/// When it gets no lease.
pub(crate) fn join(endpoint: &str, count: usize) -> anyhow::Result<Joined> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let begun = Instant::now();
        let settings = crowd::settings(vec![endpoint.to_owned()]);
        let pools = network_config(&settings).await?.pools()?;
        let member = Member::start(settings, pools, JOINING)?;
        member.holds(count, LIMIT).await?;
        let took = begun.elapsed();
        Ok(Joined {
            micros: u64::try_from(took.as_micros())?,
            resident: resident()?,
        })
    })
}

/// The number of the node that joins.
const JOINING: u16 = 5000;

fn joining(endpoint: &str, count: usize) -> anyhow::Result<Joined> {
    let output = Command::new(std::env::current_exe()?)
        .args(["join", endpoint, &count.to_string()])
        .output()
        .context("run this program again")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "join: {}", said.trim());
    serde_json::from_slice(&output.stdout).context("what a join printed")
}

/// The next one finds what this one did.
async fn remove_joined(client: &mut etcd_client::Client, prefix: &str) -> anyhow::Result<()> {
    let [high, low] = JOINING.to_be_bytes();
    let mine = format!("\"198.18.{high}.{low}\"");
    let options = etcd_client::GetOptions::new().with_prefix();
    let found = client.get(prefix, Some(options)).await?;
    let own = found.kvs().iter();
    let own = own.filter(|pair| String::from_utf8_lossy(pair.value()).contains(&mine));
    for pair in own {
        client.delete(pair.key(), None).await?;
    }
    Ok(())
}

fn resident() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let words = line.context("no VmRSS")?.split_whitespace().next();
    Ok(words.context("no VmRSS")?.parse()?)
}

fn heading(nodes: u16) -> anyhow::Result<String> {
    let etcd = run("etcd --version")?;
    let etcd = etcd.lines().next().unwrap_or_default();
    Ok(format!(
        "## Leases in etcd\n\nMade by `make bench` (`bench leases`). {} Towline {}, {etcd}, one member, all on this machine.\n\n\
         {nodes} nodes start at once, each with a connection of its own, and race for {SUBNETS} subnets.\n\
         Then one more joins them: a process with nothing but the lease task.\n",
        machine::shown()?,
        env!("CARGO_PKG_VERSION"),
    ))
}

fn raced(race: &Race) -> anyhow::Result<String> {
    let mut distinct: Vec<_> = race.keys.iter().map(|key| key.v4).collect();
    distinct.sort_unstable();
    distinct.dedup();
    ensure!(
        distinct.len() == race.keys.len(),
        "two nodes have one subnet"
    );
    let at = |part: usize| {
        let place = (race.times.len() * part / 100).min(race.times.len() - 1);
        race.times[place].as_secs_f64()
    };
    let all: u64 = race.requests.values().sum();
    let mut text = String::from("| race | result |\n|---|---|\n");
    let _ = writeln!(
        text,
        "| nodes with a lease, no two the same | {} |",
        race.keys.len()
    );
    let _ = writeln!(
        text,
        "| time until half, 90 %, all have theirs, s | {:.2} / {:.2} / {:.2} |",
        at(50),
        at(90),
        at(100)
    );
    let _ = writeln!(
        text,
        "| requests to etcd | {all}: {} |",
        shown(&race.requests)
    );
    Ok(text)
}

fn joined(joins: &mut [(Joined, Requests)], missed: &mut Vec<String>) -> anyhow::Result<String> {
    joins.sort_by_key(|(joined, _)| joined.micros);
    let median = Duration::from_micros(joins[joins.len() / 2].0.micros);
    let resident = joins.iter().map(|(joined, _)| joined.resident).max();
    let resident = resident.context("no rounds")?;
    let most = joins
        .iter()
        .max_by_key(|(_, asked)| asked.values().sum::<u64>());
    let asked = &most.context("no rounds")?.1;
    let count: u64 = asked.values().sum();
    let mut judge = |met: bool, name: &str| {
        if met {
            "met"
        } else {
            missed.push(format!("join: {name}"));
            "missed"
        }
    };
    let mut text = String::from("| join | result | bar |\n|---|---|---|\n");
    let _ = writeln!(
        text,
        "| requests to etcd, most | {count}: {} | ≤ {MOST_REQUESTS}: {} |",
        shown(asked),
        judge(count <= MOST_REQUESTS, "requests")
    );
    let _ = writeln!(
        text,
        "| time until it has its lease and knows all others, median, ms | {:.0} | ≤ {}: {} |",
        median.as_secs_f64() * 1000.0,
        LONGEST.as_millis(),
        judge(median <= LONGEST, "time")
    );
    let _ = writeln!(
        text,
        "| memory then, most, KiB | {resident} | ≤ {MOST_MEMORY}: {} |",
        judge(resident <= MOST_MEMORY, "memory")
    );
    Ok(text)
}

fn shown(requests: &Requests) -> String {
    let all = requests.iter();
    let all: Vec<String> = all
        .map(|(method, count)| format!("{count} {method}"))
        .collect();
    all.join(", ")
}
