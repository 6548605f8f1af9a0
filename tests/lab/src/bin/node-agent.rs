//! `node-agent`: the lab's kubelet, and the small programs it runs in pods.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use towline_lab::agent::{self, Options};
use towline_lab::applet::Applet;
use towline_lab::enter::Place;
use tracing_subscriber::EnvFilter;

/// The lab's kubelet.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Register a node and run its pods.
    Run {
        #[command(flatten)]
        options: Options,
    },
    /// Keep a container: its log and its exit code (used by `run`).
    #[command(hide = true)]
    Shim {
        /// Folder of the run's records.
        dir: PathBuf,
    },
    /// Become a container's program (used by `shim`).
    #[command(hide = true)]
    Init {
        /// The container's spec.
        spec: PathBuf,
    },
    /// Run a program that pods use.
    Applet {
        #[command(subcommand)]
        applet: Applet,
    },
    /// Join namespaces and a cgroup, then become a program.
    Enter {
        #[command(flatten)]
        place: Place,
        /// The program and its arguments.
        #[arg(last = true, required = true)]
        program: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(255)),
        Err(error) => {
            eprintln!("node-agent: {error:#}");
            ExitCode::from(125)
        }
    }
}

fn run(args: Args) -> Result<i32> {
    match args.command {
        Task::Run { options } => serve(options),
        Task::Shim { dir } => agent::shim::shim(&dir),
        Task::Init { spec } => agent::shim::init(&spec),
        Task::Applet { applet } => applet.run(),
        Task::Enter { place, program } => place.run(&program),
    }
}

fn serve(options: Options) -> Result<i32> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(agent::run(options))?;
    Ok(0)
}
