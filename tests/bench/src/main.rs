//! `bench`: Towline against its peers, interleaved in one run, as ratios: CPU time per operation
//! through the data path, and the time that CNI plugins take. Leases in etcd, and the overlay of a
//! large cluster, are measured against fixed bars.

mod cluster;
mod cni;
mod command;
mod cpu;
mod leases;
mod load;
mod machine;
mod overlay;
mod plain;
mod report;
mod run;
mod section;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::ensure;
use clap::{Parser, Subcommand};

/// Towline's benchmarks
#[derive(Parser)]
#[command(name = "bench", version)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// The data path: pod to pod and through Services, against peers
    Datapath {
        /// Folder of the built binaries
        #[arg(long, env = "TOWLINE_OUT", default_value = "out")]
        out: PathBuf,
        /// kubectl to apply the workloads with
        #[arg(long, env = "TOWLINE_KUBECTL", default_value = "kubectl")]
        kubectl: PathBuf,
        /// Rounds; each measures every path once, in alternating order
        #[arg(long, default_value_t = 9)]
        rounds: usize,
        /// Page whose section on this is replaced, beside printing it
        #[arg(long)]
        write: Option<PathBuf>,
    },
    /// The CNI plugins, against the reference plugins and the bare kernel calls
    Cni {
        /// Folder of the built binaries
        #[arg(long, env = "TOWLINE_OUT", default_value = "out")]
        out: PathBuf,
        /// Folder of the reference plugins
        #[arg(long, default_value = "/usr/lib/cni")]
        reference: PathBuf,
        /// Rounds of single calls
        #[arg(long, default_value_t = 100)]
        rounds: usize,
        /// Rounds of 50 parallel chains
        #[arg(long, default_value_t = 5)]
        crowds: usize,
        /// Only rows whose name holds this text
        #[arg(long, default_value = "")]
        only: String,
        /// Page whose section on this is replaced, beside printing it
        #[arg(long)]
        write: Option<PathBuf>,
    },
    /// Leases in etcd: a race of many nodes, and one that joins many
    Leases {
        /// Nodes that race for 1,023 subnets; then leases that one more joins
        #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(1..=1023))]
        nodes: u16,
        /// How often one more joins
        #[arg(long, default_value_t = 9)]
        rounds: u16,
        /// Page whose section on this is replaced, beside printing it
        #[arg(long)]
        write: Option<PathBuf>,
    },
    /// The overlay of a large cluster, kept by towlined: joins, repairs, changes, and their costs
    Overlay {
        /// Folder of the built binaries
        #[arg(long, env = "TOWLINE_OUT", default_value = "out")]
        out: PathBuf,
        /// Leases that a node joins; repairs are measured among the most
        #[arg(long, value_delimiter = ',', default_values_t = [1000, 5000])]
        leases: Vec<u32>,
        /// How often a node joins
        #[arg(long, default_value_t = 9)]
        rounds: usize,
        /// Seconds for which a daemon is watched when nothing happens
        #[arg(long, default_value_t = 60)]
        idle: u64,
        /// How often each damage is done and repaired
        #[arg(long, default_value_t = 3)]
        repairs: usize,
        /// Nodes that follow changes
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=250))]
        nodes: u16,
        /// Leases that they know of, their own included
        #[arg(long, default_value_t = 1000)]
        among: u32,
        /// Changes that they follow
        #[arg(long, default_value_t = 150)]
        changes: u32,
        /// Page whose section on this is replaced, beside printing it
        #[arg(long)]
        write: Option<PathBuf>,
    },
    /// (used by the benchmark itself) join as one node, and report as JSON what it took
    #[command(hide = true)]
    Join { endpoint: String, count: usize },
    /// (used by the benchmark itself) serve the load protocol
    #[command(hide = true)]
    Serve { listen: SocketAddr },
    /// (used by the benchmark itself) make operations and report their cost as JSON
    #[command(hide = true)]
    Load {
        mode: load::Mode,
        target: SocketAddr,
        operations: u64,
    },
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().what {
        What::Datapath {
            out,
            kubectl,
            rounds,
            write,
        } => {
            let report = run::datapath(&out, &kubectl, rounds)?;
            publish(&report, "datapath", write.as_deref())
        }
        What::Cni {
            out,
            reference,
            rounds,
            crowds,
            only,
            write,
        } => {
            let bins = cni::Bins {
                ours: std::path::absolute(out.join("cni/bin"))?,
                reference,
            };
            let extent = cni::Extent {
                rounds,
                crowds,
                only,
            };
            let (report, missed) = cni::report(&bins, &extent)?;
            publish(&report, "cni", write.as_deref())?;
            ensure!(missed.is_empty(), "missed: {}", missed.join("; "));
            Ok(())
        }
        What::Leases {
            nodes,
            rounds,
            write,
        } => {
            let (report, missed) = leases::report(nodes, rounds)?;
            publish(&report, "leases", write.as_deref())?;
            ensure!(missed.is_empty(), "missed: {}", missed.join("; "));
            Ok(())
        }
        What::Overlay {
            out,
            leases,
            rounds,
            idle,
            repairs,
            nodes,
            among,
            changes,
            write,
        } => {
            let extent = overlay::Extent {
                towlined: std::path::absolute(out.join("bin/towlined"))?,
                leases,
                rounds,
                idle: Duration::from_secs(idle),
                repairs,
                nodes,
                among,
                changes,
            };
            let (report, missed) = overlay::report(&extent)?;
            publish(&report, "overlay", write.as_deref())?;
            ensure!(missed.is_empty(), "missed: {}", missed.join("; "));
            Ok(())
        }
        What::Join { endpoint, count } => {
            let joined = leases::join(&endpoint, count)?;
            println!("{}", serde_json::to_string(&joined)?);
            Ok(())
        }
        What::Serve { listen } => load::serve(listen),
        What::Load {
            mode,
            target,
            operations,
        } => {
            let measured = load::run(target, mode, operations)?;
            println!("{}", serde_json::to_string(&measured)?);
            Ok(())
        }
    }
}

fn publish(report: &str, section: &str, page: Option<&Path>) -> anyhow::Result<()> {
    println!("{report}");
    match page {
        Some(page) => section::write(page, section, report),
        None => Ok(()),
    }
}
