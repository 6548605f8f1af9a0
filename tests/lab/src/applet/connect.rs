//! `connect`: asks a server who it is, and says clearly what happened.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::WhoAmI;

/// How to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// A new TCP connection, GET /whoami.
    Http,
    /// A new TCP connection, nothing sent.
    Tcp,
    /// A new UDP socket, the datagram `whoami`.
    Udp,
}

/// Arguments. The exit code is 0 when every attempt was answered, else by the first failure: 2 refused,
/// 3 timed out, 4 unreachable, 5 anything else.
#[derive(Debug, Clone, clap::Args)]
pub struct Connect {
    /// How to ask.
    #[arg(long, value_enum, default_value = "http")]
    pub protocol: Protocol,
    /// Attempts, one after the other.
    #[arg(long, default_value_t = 1)]
    pub count: u32,
    /// Time for one attempt, in milliseconds.
    #[arg(long, default_value_t = 1000)]
    pub timeout_ms: u64,
    /// End at the first failure.
    #[arg(long)]
    pub fail_fast: bool,
    /// Address and port.
    pub target: SocketAddr,
}

/// What came of the attempts, printed as one line of JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Attempts that were answered.
    pub answered: u32,
    /// Answers by the server's host name.
    pub hostnames: BTreeMap<String, u32>,
    /// Answers by our address as the server saw it.
    pub clients: BTreeMap<IpAddr, u32>,
    /// Failures by kind: `refused`, `timeout`, `unreachable`, `other: …`.
    pub failures: BTreeMap<String, u32>,
}

impl Connect {
    pub(super) async fn run(&self) -> Result<i32> {
        let mut report = Report::default();
        let mut first_failure = None;
        for _ in 0..self.count {
            match self.attempt().await {
                Ok(whoami) => {
                    report.answered += 1;
                    if let Some(whoami) = whoami {
                        *report.hostnames.entry(whoami.hostname).or_default() += 1;
                        *report.clients.entry(whoami.client).or_default() += 1;
                    }
                }
                Err(error) => {
                    let (kind, code) = classify(&error);
                    first_failure.get_or_insert(code);
                    *report.failures.entry(kind).or_default() += 1;
                    if self.fail_fast {
                        break;
                    }
                }
            }
        }
        println!(
            "{}",
            serde_json::to_string(&report).context("encode the report")?
        );
        Ok(first_failure.unwrap_or(0))
    }

    async fn attempt(&self) -> std::io::Result<Option<WhoAmI>> {
        let limit = Duration::from_millis(self.timeout_ms);
        let exchange = async {
            match self.protocol {
                Protocol::Http => http(self.target).await.map(Some),
                Protocol::Udp => udp(self.target).await.map(Some),
                Protocol::Tcp => TcpStream::connect(self.target).await.map(|_| None),
            }
        };
        match timeout(limit, exchange).await {
            Ok(outcome) => outcome,
            Err(_) => Err(ErrorKind::TimedOut.into()),
        }
    }
}

async fn http(target: SocketAddr) -> std::io::Result<WhoAmI> {
    let mut stream = TcpStream::connect(target).await?;
    let request = format!("GET /whoami HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut response = String::new();
    stream.read_to_string(&mut response).await?;
    let body = response.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok(serde_json::from_str(body)?)
}

async fn udp(target: SocketAddr) -> std::io::Result<WhoAmI> {
    let any: SocketAddr = if target.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    }
    .parse()
    .map_err(std::io::Error::other)?;
    let socket = UdpSocket::bind(any).await?;
    // Connected, so that a refusal arrives as an error.
    socket.connect(target).await?;
    socket.send(b"whoami").await?;
    let mut buffer = [0; 2048];
    let length = socket.recv(&mut buffer).await?;
    Ok(serde_json::from_slice(&buffer[..length])?)
}

fn classify(error: &std::io::Error) -> (String, i32) {
    match error.kind() {
        ErrorKind::ConnectionRefused => ("refused".to_owned(), 2),
        ErrorKind::TimedOut => ("timeout".to_owned(), 3),
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => ("unreachable".to_owned(), 4),
        _ => (format!("other: {error}"), 5),
    }
}
