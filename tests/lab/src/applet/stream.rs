//! `stream`: long-lived connections with a steady ping-pong, to see whether anything disturbs them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt, stdin};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

/// Arguments. Prints `ready` when all connections stand, and a line of JSON at the end, which comes with
/// the end of the standard input. The exit code is 0 when no connection failed, else 1.
#[derive(Debug, Clone, clap::Args)]
pub struct Stream {
    /// Connections held at the same time.
    #[arg(long, default_value_t = 8)]
    pub connections: usize,
    /// Pause between two exchanges of one connection, in milliseconds.
    #[arg(long, default_value_t = 5)]
    pub interval_ms: u64,
    /// Longest wait for one answer before the connection counts as lost, in milliseconds.
    #[arg(long, default_value_t = 10_000)]
    pub patience_ms: u64,
    /// Address and port of an echo server.
    pub target: SocketAddr,
}

/// What became of the connections.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamReport {
    /// Connections opened.
    pub connections: usize,
    /// Exchanges completed over all of them.
    pub exchanges: u64,
    /// Longest time one exchange took, in milliseconds.
    pub longest_gap_ms: u64,
    /// Why connections were lost.
    pub failures: Vec<String>,
}

impl Stream {
    pub(super) async fn run(&self) -> Result<i32> {
        let (stop, stopped) = watch::channel(false);
        let mut tasks = Vec::new();
        for _ in 0..self.connections {
            let stream = TcpStream::connect(self.target)
                .await
                .with_context(|| format!("connect to {}", self.target))?;
            stream.set_nodelay(true).context("set TCP_NODELAY")?;
            tasks.push(tokio::spawn(self.clone().hold(stream, stopped.clone())));
        }
        println!("ready");
        let mut rest = Vec::new();
        stdin()
            .read_to_end(&mut rest)
            .await
            .context("wait for the standard input to end")?;
        let _ = stop.send(true);
        let mut report = StreamReport {
            connections: self.connections,
            ..Default::default()
        };
        for task in tasks {
            let (exchanges, longest, failure) = task.await.context("wait for a connection")?;
            report.exchanges += exchanges;
            report.longest_gap_ms = report.longest_gap_ms.max(longest);
            report.failures.extend(failure);
        }
        println!(
            "{}",
            serde_json::to_string(&report).context("encode the report")?
        );
        Ok(i32::from(!report.failures.is_empty()))
    }

    /// Keeps one connection busy; gives exchanges, the longest one in ms, and the failure if any.
    async fn hold(
        self,
        mut stream: TcpStream,
        mut stopped: watch::Receiver<bool>,
    ) -> (u64, u64, Option<String>) {
        let (mut exchanges, mut longest) = (0u64, 0u64);
        let patience = Duration::from_millis(self.patience_ms);
        loop {
            let start = Instant::now();
            let outcome = timeout(patience, exchange(&mut stream, exchanges)).await;
            longest = longest.max(u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX));
            match outcome {
                Ok(Ok(())) => exchanges += 1,
                Ok(Err(error)) => return (exchanges, longest, Some(error.to_string())),
                Err(_) => return (exchanges, longest, Some("no answer in time".to_owned())),
            }
            tokio::select! {
                _ = stopped.changed() => return (exchanges, longest, None),
                () = tokio::time::sleep(Duration::from_millis(self.interval_ms)) => {}
            }
        }
    }
}

async fn exchange(stream: &mut TcpStream, number: u64) -> std::io::Result<()> {
    let sent = number.to_be_bytes();
    stream.write_all(&sent).await?;
    let mut received = [0; 8];
    stream.read_exact(&mut received).await?;
    if sent != received {
        return Err(std::io::Error::other(format!(
            "sent {sent:?}, received {received:?}"
        )));
    }
    Ok(())
}
