//! `node-agent`: the lab's kubelet, and the small programs it runs in pods.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use towline_lab::applet::Applet;
use towline_lab::enter::Place;

/// The lab's kubelet.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
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
        Task::Applet { applet } => applet.run(),
        Task::Enter { place, program } => place.run(&program),
    }
}
