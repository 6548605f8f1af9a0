//! `lab`: a Kubernetes cluster out of network namespaces on this machine.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use towline_lab::cluster::Options;
use towline_lab::layout::ClusterName;

/// A Kubernetes cluster out of network namespaces on this machine.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, clap::Args)]
struct Which {
    /// Name of the cluster.
    #[arg(long, default_value = "lab")]
    name: ClusterName,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Bring a cluster up and leave it running.
    Up {
        #[command(flatten)]
        options: Options,
    },
    /// Bring a cluster up, run the connectivity checks, remove it.
    Demo {
        #[command(flatten)]
        options: Options,
        /// Leave the cluster running.
        #[arg(long)]
        keep: bool,
    },
    /// Run the connectivity checks on a cluster that is up.
    Test {
        #[command(flatten)]
        which: Which,
    },
    /// Remove a cluster and everything it left.
    Down {
        #[command(flatten)]
        which: Which,
    },
    /// Run a command on a node (`node1`), in a pod (`default/web`) or on the `outside` host.
    Exec {
        #[command(flatten)]
        which: Which,
        /// NODE, NAMESPACE/POD or `outside`.
        place: String,
        /// The command and its arguments.
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// Print the path of the kubeconfig.
    Kubeconfig {
        #[command(flatten)]
        which: Which,
    },
    /// Show nodes and daemons.
    Status {
        #[command(flatten)]
        which: Which,
    },
    /// Print the logs of a node (`node1`) or of the `control-plane`.
    Logs {
        #[command(flatten)]
        which: Which,
        /// Whose logs.
        owner: String,
    },
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> Result<ExitCode> {
    match args.command {
        Task::Up { options } => towline_lab::command::up(&options),
        Task::Demo { options, keep } => towline_lab::command::demo(&options, keep),
        Task::Test { which } => towline_lab::command::test(&which.name),
        Task::Down { which } => towline_lab::command::down(&which.name),
        Task::Exec {
            which,
            place,
            command,
        } => towline_lab::command::exec(&which.name, &place, &command),
        Task::Kubeconfig { which } => towline_lab::command::kubeconfig(&which.name),
        Task::Status { which } => towline_lab::command::status(&which.name),
        Task::Logs { which, owner } => towline_lab::command::logs(&which.name, &owner),
    }
}
