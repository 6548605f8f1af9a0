//! `bench`: CPU time per operation through Towline's data path against plain routed veth and
//! nftables Services, interleaved in one run, written as ratios.

mod cluster;
mod command;
mod cpu;
mod load;
mod plain;
mod report;
mod run;

use std::net::SocketAddr;
use std::path::PathBuf;

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
        /// File to write the report to, beside printing it
        #[arg(long)]
        write: Option<PathBuf>,
    },
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
            println!("{report}");
            if let Some(path) = write {
                std::fs::write(&path, &report)?;
            }
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
