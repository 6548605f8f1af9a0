//! The run: every path is up at once, and each round measures all of them, in turn forwards and
//! backwards, so that the machine's drift falls on all alike.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::cluster::Cluster;
use crate::command::{output, run};
use crate::load::{Measured, Mode};
use crate::machine;
use crate::plain::{self, Routed};
use crate::report::{self, Row};

const OPERATIONS: [(Mode, u64); 3] = [(Mode::Crr, 3000), (Mode::Rr, 10_000), (Mode::Bulk, 512)];
const BASELINE: &str = "plain routed veth";

/// A way for a connection to take.
struct Route {
    name: String,
    client: Vec<String>,
    target: String,
}

/// A server that ends with this value.
struct Server(Child);

impl Server {
    /// Starts the server in `place` and waits until it listens.
    fn start(place: &[String], port: u16) -> anyhow::Result<Self> {
        let own = std::env::current_exe()?;
        let (program, words) = place.split_first().context("an empty place")?;
        let child = Command::new(program)
            .args(words)
            .arg(own)
            .args(["serve", &format!("0.0.0.0:{port}")])
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting the server by `{}`", place.join(" ")))?;
        let mut server = Self(child);
        let stdout = server
            .0
            .stdout
            .take()
            .context("the server has no standard output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        ensure!(
            !line.is_empty(),
            "the server on port {port} ended before it listened"
        );
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Measures the data path and returns the report.
///
/// # Errors
/// When a path cannot be built or a connection fails.
pub(crate) fn datapath(out: &Path, kubectl: &Path, rounds: usize) -> anyhow::Result<String> {
    let mut text = heading(rounds)?;
    let bare = Routed::new("bare", 0)?;
    let _bare_server = Server::start(&bare.server(), 7000)?;
    let cluster = Cluster::new(out, kubectl)?;
    let _direct = Server::start(&cluster.inside("server"), 7000)?;
    let _behind = Server::start(&cluster.inside("server"), 7001)?;
    let _far = Server::start(&cluster.inside("far"), 7000)?;
    let (near, far) = (cluster.address("server")?, cluster.address("far")?);
    for services in [1, 1000] {
        let peer = Routed::new("nft", services)?;
        let _peer_server = Server::start(&peer.server(), 7001)?;
        let vip = cluster.services(services)?;
        let pod = cluster.inside("client");
        let route = |name: &str, client: Vec<String>, target: String| Route {
            name: name.to_owned(),
            client,
            target,
        };
        let routes = [
            route(BASELINE, bare.client(), format!("{}:7000", plain::SERVER)),
            route(
                "nftables Service",
                peer.client(),
                format!("{}:80", plain::VIP),
            ),
            route(
                "Towline pod to pod, one node",
                pod.clone(),
                format!("{near}:7000"),
            ),
            route(
                "Towline Service (ClusterIP)",
                pod.clone(),
                format!("{vip}:80"),
            ),
            route(
                "Towline pod to pod, across nodes (VXLAN)",
                pod,
                format!("{far}:7000"),
            ),
        ];
        for route in &routes {
            wait_until_open(route)?;
        }
        let rows = measure(&routes, rounds)?;
        let _ = write!(
            text,
            "\n### With {services} Service(s)\n\n{}",
            report::table(&rows, BASELINE)
        );
    }
    Ok(text)
}

/// Programming follows the API within a moment; a path that never opens is an error.
fn wait_until_open(route: &Route) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match once(route, Mode::Rr, 1) {
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => {}
            Ok(_) => return Ok(()),
        }
    }
}

fn measure(routes: &[Route], rounds: usize) -> anyhow::Result<Vec<(String, Row)>> {
    let mut rows: Vec<(String, Row)> = routes
        .iter()
        .map(|route| (route.name.clone(), Row::default()))
        .collect();
    // The first round warms caches and neighbours and does not count.
    for round in 0..=rounds {
        let mut order: Vec<usize> = (0..routes.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for index in order {
            for (mode, operations) in OPERATIONS {
                let measured = once(&routes[index], mode, operations)?;
                if round > 0 {
                    rows[index].1.add(mode, measured);
                }
            }
        }
        eprintln!("bench: round {round} of {rounds}");
    }
    Ok(rows)
}

fn once(route: &Route, mode: Mode, operations: u64) -> anyhow::Result<Measured> {
    let own = std::env::current_exe()?;
    let (own, operations) = (own.to_string_lossy(), operations.to_string());
    let mode = match mode {
        Mode::Crr => "crr",
        Mode::Rr => "rr",
        Mode::Bulk => "bulk",
    };
    let mut words: Vec<&str> = route.client.iter().map(String::as_str).collect();
    words.extend([own.as_ref(), "load", mode, &route.target, &operations]);
    let line = output(&words, None).with_context(|| format!("measuring {}", route.name))?;
    serde_json::from_str(&line).with_context(|| format!("reading the client's report {line:?}"))
}

fn heading(rounds: usize) -> anyhow::Result<String> {
    Ok(format!(
        "## Data path\n\nMade by `make bench` (`bench datapath`). {} Towline {}, nft: {}.\n\n\
         Figures are medians of {rounds} rounds, all paths interleaved in one run. CPU time is that of\n\
         client and server together, both on one CPU (the kernel's work on veth runs inline in the\n\
         sender); the ratio is to {BASELINE} in the same table. Wall-clock rates stand beside it but\n\
         scatter on a shared machine; compare the ratios.\n",
        machine::shown()?,
        env!("CARGO_PKG_VERSION"),
        run("nft --version")?.trim(),
    ))
}
