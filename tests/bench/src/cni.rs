//! The CNI plugins against the reference's: every call executed as a runtime does, both sides and
//! the kernel's bare calls interleaved in one run.

mod crowd;
mod figure;
mod floor;
mod measure;
mod memory;
mod node;
mod rows;

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::ensure;

use crate::cni::figure::Figure;
use crate::cni::node::Host;
use crate::cni::rows::{CROWDS, ROWS};
use crate::command::run;
use crate::machine;

/// Folders of plugins.
pub(crate) struct Bins {
    /// Towline's.
    pub(crate) ours: PathBuf,
    /// The reference's.
    pub(crate) reference: PathBuf,
}

/// How much is measured.
pub(crate) struct Extent {
    /// Rounds of the rows of single calls.
    pub(crate) rounds: usize,
    /// Rounds of the rows of parallel chains.
    pub(crate) crowds: usize,
    /// Only rows whose name holds this.
    pub(crate) only: String,
}

/// Measures and returns the report, and the bars that are missed.
///
/// # Errors
/// When a plugin is missing or fails, or the kernel refuses. Needs root.
pub(crate) fn report(bins: &Bins, extent: &Extent) -> anyhow::Result<(String, Vec<String>)> {
    let wanted = |name: &str| name.contains(&extent.only);
    node::go_private()?;
    complete(bins, &wanted)?;
    let mut text = heading(extent)?;
    let mut figures: Vec<Figure> = Vec::new();
    for row in ROWS.iter().filter(|row| wanted(row.name)) {
        eprintln!("bench: {}", row.name);
        figures.extend(measure::row(row, bins, extent.rounds)?);
    }
    for row in CROWDS.iter().filter(|row| wanted(row.name)) {
        eprintln!("bench: {}", row.name);
        figures.extend(crowd::row(row, bins, extent.crowds)?);
    }
    let _ = write!(text, "\n{}", figure::table(&figures));
    let mut missed: Vec<String> = figures.iter().flat_map(Figure::missed).collect();
    if wanted("memory") {
        eprintln!("bench: memory");
        let (table, over) = memory::table(bins)?;
        let _ = write!(text, "\n{table}");
        missed.extend(over);
    }
    Ok((text, missed))
}

/// Whether every plugin that is called is there, before anything is measured.
fn complete(bins: &Bins, wanted: &dyn Fn(&str) -> bool) -> anyhow::Result<()> {
    for (name, bin) in [("Towline", &bins.ours), ("reference", &bins.reference)] {
        let host = Host::new(name, bin)?;
        let rows = ROWS.iter().chain(CROWDS).filter(|row| wanted(row.name));
        let called = rows.flat_map(|row| row.chain);
        let mut missing: Vec<&str> = called
            .map(|plugin| plugin.name())
            .filter(|plugin| !host.has(plugin))
            .collect();
        missing.sort_unstable();
        missing.dedup();
        ensure!(
            missing.is_empty(),
            "{} lacks {}; run `make build`, or `make setup` for the reference plugins",
            bin.display(),
            missing.join(", ")
        );
    }
    Ok(())
}

fn heading(extent: &Extent) -> anyhow::Result<String> {
    let version = run("dpkg-query -W -f=${Version} containernetworking-plugins")
        .unwrap_or_else(|_| "of unknown version".to_owned());
    Ok(format!(
        "## CNI plugins\n\nMade by `make bench` (`bench cni`). {} Towline {}, reference plugins {}, {}.\n\n\
         Each time is median / 90th percentile, in milliseconds. Single calls: {} rounds; parallel chains:\n\
         {} rounds of 50 containers, the time until the last is through.\n",
        machine::shown()?,
        env!("CARGO_PKG_VERSION"),
        version.trim(),
        run("iptables --version")?.trim(),
        extent.rounds,
        extent.crowds,
    ))
}
