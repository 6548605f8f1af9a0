//! The programs that the node agent runs in pods, after the commands of Kubernetes' own agnhost image.

mod connect;
mod netexec;
mod stream;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};

pub use connect::{Connect, Protocol, Report};
pub use netexec::NetExec;
pub use stream::{Stream, StreamReport};

/// One applet and its arguments.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Applet {
    /// Serve HTTP, UDP and a TCP echo.
    #[command(name = "netexec")]
    NetExec(NetExec),
    /// Serve the host name over HTTP on port 9376 (and UDP on the same port).
    ServeHostname,
    /// Connect once or often and report what answered.
    Connect(Connect),
    /// Hold connections open with a steady ping-pong until the standard input ends.
    Stream(Stream),
    /// Do nothing until told to stop.
    Pause,
}

impl Applet {
    /// Runs it to its end; gives the process's exit code.
    ///
    /// # Errors
    /// When a socket cannot be opened.
    pub fn run(&self) -> Result<i32> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("start the runtime")?;
        runtime.block_on(async {
            match self {
                Applet::NetExec(server) => until_told(server.serve()).await,
                Applet::ServeHostname => until_told(NetExec::serve_hostname().serve()).await,
                Applet::Connect(client) => client.run().await,
                Applet::Stream(client) => client.run().await,
                Applet::Pause => until_told(std::future::pending()).await,
            }
        })
    }
}

/// What a server says about itself and its peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhoAmI {
    /// The server's host name, which is the pod's name.
    pub hostname: String,
    /// The peer's address as the server sees it, without port.
    pub client: std::net::IpAddr,
}

/// Runs `work` until SIGTERM or SIGINT. Handlers are needed: pid 1 of a pid namespace ignores both.
async fn until_told(work: impl Future<Output = Result<()>>) -> Result<i32> {
    let mut terminate = signal(SignalKind::terminate()).context("handle SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("handle SIGINT")?;
    tokio::select! {
        done = work => done.map(|()| 0),
        _ = terminate.recv() => Ok(0),
        _ = interrupt.recv() => Ok(0),
    }
}

fn hostname() -> Result<String> {
    let text =
        std::fs::read_to_string("/proc/sys/kernel/hostname").context("read the host name")?;
    Ok(text.trim().to_owned())
}
