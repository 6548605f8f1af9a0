//! `towline`: see, explain and diagnose this node's networking.

mod adopt;
mod args;
mod client;
mod cni;
mod drops;
mod kernel;
mod node;
mod show;
mod table;
#[cfg(test)]
mod tests;
mod why;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};
use serde_json::{Value, json};

use self::args::{Cli, Command, Format, Options};
use self::client::{Daemon, Down};
use self::show::View;
use self::why::encoded;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(run(&cli)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("towline: {error:#}");
            if error.is::<Down>() {
                kernel::tell(&cli.options);
            }
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: &Cli) -> anyhow::Result<()> {
    let daemon = Daemon::at(&cli.options.socket);
    let (view, path) = match &cli.command {
        Command::Status => (View::Status, "/v1/status".to_owned()),
        Command::Nodes => (View::Nodes, "/v1/nodes".to_owned()),
        Command::Leases => (View::Leases, "/v1/leases".to_owned()),
        Command::Routes => (View::Routes, "/v1/routes".to_owned()),
        Command::Services { name: None } => (View::Services, "/v1/services".to_owned()),
        Command::Services { name: Some(name) } => (View::Service, named("/v1/services", name)),
        Command::Pods { name: None } => (View::Pods, "/v1/pods".to_owned()),
        Command::Pods { name: Some(name) } => (View::Pods, named("/v1/pods", name)),
        Command::Endpoints => (View::Endpoints, "/v1/endpoints".to_owned()),
        Command::Policies => (View::Policies, "/v1/policies".to_owned()),
        Command::Flows { all: true } => (View::Flows, "/v1/flows?closed=true".to_owned()),
        Command::Flows { all: false } => (View::Flows, "/v1/flows".to_owned()),
        Command::Why {
            source,
            destination,
        } => (View::Why, why::path(source, destination)?),
        Command::Diff => (View::Diff, "/v1/drift".to_owned()),
        Command::Counters => (View::Counters, "/v1/counters".to_owned()),
        Command::Maps => (View::Maps, "/v1/maps".to_owned()),
        Command::Drops { follow } => return show_drops(&daemon, *follow, &cli.options).await,
        Command::Node { command } => return node::run(command, &daemon, &cli.options).await,
        Command::Cni { command } => return cni::run(command),
        Command::Version => return show_version(&daemon, &cli.options).await,
        Command::Completion { shell } => {
            // Into memory first: it panics where it cannot write, and `| head` is no failure.
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "towline", &mut script);
            return Ok(io::stdout().write_all(&script)?);
        }
    };
    let answer = match daemon.get(&path).await {
        Err(error) if error.is::<Down>() => match kernel::answer(view, &cli.options.bpf_root) {
            Some(answer) => {
                eprintln!("{error}; this is what the kernel holds:");
                answer?
            }
            None => return Err(error),
        },
        answer => answer?,
    };
    print(&cli.options, &answer, || show::text(view, &answer))
}

fn named(path: &str, name: &str) -> String {
    format!("{path}?name={}", encoded(name))
}

async fn show_drops(daemon: &Daemon, follow: bool, options: &Options) -> anyhow::Result<()> {
    let path = if follow {
        "/v1/events?kind=drop"
    } else {
        "/v1/events?kind=drop&follow=false"
    };
    daemon
        .follow(path, |event| {
            print(options, event, || drops::line(event) + "\n")
        })
        .await
}

async fn show_version(daemon: &Daemon, options: &Options) -> anyhow::Result<()> {
    let answer = daemon.get("/v1/status").await;
    let running = answer
        .as_ref()
        .map_or(Value::Null, |status| status["version"].clone());
    let versions = json!({ "towline": env!("CARGO_PKG_VERSION"), "towlined": running });
    print(options, &versions, || {
        let towlined = versions["towlined"].as_str().unwrap_or("not running");
        format!(
            "towline {}\ntowlined {towlined}\n",
            env!("CARGO_PKG_VERSION")
        )
    })
}

/// Prints `answer` in the format asked for.
fn print(options: &Options, answer: &Value, table: impl FnOnce() -> String) -> anyhow::Result<()> {
    let text = match options.output {
        Format::Table => table(),
        Format::Json => serde_json::to_string_pretty(answer)? + "\n",
        Format::Yaml => serde_yaml_ng::to_string(answer)?,
    };
    io::stdout().write_all(text.as_bytes())?;
    io::stdout().flush()?;
    Ok(())
}

/// `towline flows | head` is no failure.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<io::Error>();
    io.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
