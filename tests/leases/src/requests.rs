//! How many requests an etcd has got, from its own metrics.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Requests begun, by method such as `Range` or `LeaseGrant`; a stream counts once.
pub type Requests = BTreeMap<String, u64>;

/// What the etcd at `url` has counted since it started.
///
/// # Errors
/// When it does not answer.
pub async fn requests(url: &str) -> Result<Requests> {
    let host = url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(host).await.context("etcd's metrics")?;
    let ask = format!("GET /metrics HTTP/1.0\r\nHost: {host}\r\n\r\n");
    stream.write_all(ask.as_bytes()).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text.lines().filter_map(line).collect())
}

/// What has been asked between two counts.
#[must_use]
pub fn between(before: &Requests, after: &Requests) -> Requests {
    let more = after.iter().map(|(method, count)| {
        let known = before.get(method).copied().unwrap_or(0);
        (method.clone(), count - known)
    });
    more.filter(|(_, count)| *count > 0).collect()
}

fn line(text: &str) -> Option<(String, u64)> {
    let labels = text.strip_prefix("grpc_server_started_total{")?;
    let (labels, count) = labels.split_once("} ")?;
    let (_, method) = labels.split_once("grpc_method=\"")?;
    let (method, service) = method.split_once('"')?;
    // Others have methods of the same names.
    service.contains("\"etcdserverpb.").then_some(())?;
    // Counts are written like 7 or 1.234e+06.
    let count: f64 = count.trim().parse().ok()?;
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a count is a whole number, and below 2^53 for a test's etcd"
    )]
    let count = count as u64;
    Some((method.to_owned(), count))
}
