//! `towlined`: Towline's node daemon.

use std::path::PathBuf;
use std::process::ExitCode;

use agent::config::{Config, Settings};
use agent::install::{Install, install, preceding};
use agent::{daemon, logging, preflight};
use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

/// Node daemon: overlay network, Services and NetworkPolicy of this node.
#[derive(Debug, Parser)]
#[command(name = "towlined", version, max_term_width = 100)]
struct Arguments {
    /// Configuration file; every key in it is a flag here
    /// [default: /etc/towline/towlined.yaml, which may be absent]
    #[arg(long, env = "TOWLINED_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
    #[command(subcommand)]
    task: Option<Task>,
}

/// What else this program does.
#[derive(Debug, Subcommand)]
enum Task {
    /// Put the CNI plugins and their configuration where the container runtime looks, and end
    InstallCni(Install),
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
            ) =>
        {
            error.exit()
        }
        Err(error) => return fail(&one_line(&error.to_string())),
    };
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&ends(&format!("{error:#}"))),
    }
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    if let Some(Task::InstallCni(what)) = &arguments.task {
        for path in install(what)? {
            println!("{}", path.display());
        }
        for path in preceding(what)? {
            eprintln!(
                "towlined: {}: the container runtime uses this one, the first by name: remove it, or pods are not Towline's",
                path.display()
            );
        }
        return Ok(());
    }
    let config = Config::load(arguments.config.as_deref(), arguments.settings)?;
    logging::init(&config)?;
    preflight::check(&config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(daemon::serve(config));
    // A pass that still waits for the kernel must not hold up the end.
    runtime.shutdown_background();
    result
}

fn fail(message: &str) -> ExitCode {
    eprintln!("towlined: {message}");
    ExitCode::FAILURE
}

/// A message of one line as it is; of many lines (the kernel's verifier talks a lot) the first and
/// the last, which say what and why.
fn ends(message: &str) -> String {
    let lines: Vec<&str> = message
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    match lines.as_slice() {
        [first, .., last] if lines.len() > 2 => format!("{first} ... {last}"),
        lines => lines.join(" "),
    }
}

/// clap's message without its headings and hints, on one line.
fn one_line(message: &str) -> String {
    let lines = message.lines().map(str::trim);
    let told =
        lines.take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"));
    let told: Vec<&str> = told.filter(|line| !line.is_empty()).collect();
    let told = told.join("; ");
    let told = told.strip_prefix("error: ").unwrap_or(&told);
    format!("{told}; see towlined --help")
}
