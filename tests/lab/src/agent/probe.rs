//! Startup, readiness and liveness probes, asked from the node as kubelet does.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::container::Run;
use crate::enter::Place;

/// What a container's probes have found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// The startup probe has passed, or there is none.
    Started,
    /// Readiness changed, with the reason when it was lost.
    Ready(bool, String),
    /// Startup or liveness failed: the container must end.
    Unhealthy(String),
}

/// What is probed.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The container's object.
    pub container: Container,
    /// Its newest run.
    pub run: Run,
    /// The pod's first address.
    pub address: IpAddr,
    /// The node-agent executable.
    pub agent: PathBuf,
}

/// Starts the probes of a container; findings go to `report`. Dropping the set ends them.
pub fn start<F>(
    subject: Subject,
    report: mpsc::UnboundedSender<F>,
    wrap: impl Fn(Finding) -> F + Send + Sync + 'static,
) -> JoinSet<()>
where
    F: Send + 'static,
{
    let mut set = JoinSet::new();
    set.spawn(async move {
        // The receiver is gone only when the pod is: then nothing is to be told.
        let tell = |finding| drop(report.send(wrap(finding)));
        if let Some(probe) = &subject.container.startup_probe
            && let Err(why) = until_passed(probe, &subject).await
        {
            tell(Finding::Unhealthy(format!("startup probe failed: {why:#}")));
            return;
        }
        tell(Finding::Started);
        tokio::join!(
            watch_readiness(&subject, &tell),
            watch_liveness(&subject, &tell)
        );
    });
    set
}

async fn until_passed(probe: &Probe, subject: &Subject) -> Result<()> {
    pause(probe.initial_delay_seconds, 0).await;
    let mut failures = 0;
    loop {
        match ask(probe, subject).await {
            Ok(()) => return Ok(()),
            Err(error) => {
                failures += 1;
                if failures >= probe.failure_threshold.unwrap_or(3) {
                    return Err(error);
                }
            }
        }
        pause(probe.period_seconds, 10).await;
    }
}

async fn watch_readiness(subject: &Subject, tell: &impl Fn(Finding)) {
    let Some(probe) = &subject.container.readiness_probe else {
        tell(Finding::Ready(true, String::new()));
        return;
    };
    pause(probe.initial_delay_seconds, 0).await;
    let (mut ready, mut successes, mut failures) = (false, 0, 0);
    loop {
        match ask(probe, subject).await {
            Ok(()) => {
                (successes, failures) = (successes + 1, 0);
                if !ready && successes >= probe.success_threshold.unwrap_or(1) {
                    ready = true;
                    tell(Finding::Ready(true, String::new()));
                }
            }
            Err(error) => {
                (successes, failures) = (0, failures + 1);
                tracing::debug!(container = %subject.container.name, "readiness: {error:#}");
                if ready && failures >= probe.failure_threshold.unwrap_or(3) {
                    ready = false;
                    tell(Finding::Ready(
                        false,
                        format!("readiness probe failed: {error:#}"),
                    ));
                }
            }
        }
        pause(probe.period_seconds, 10).await;
    }
}

async fn watch_liveness(subject: &Subject, tell: &impl Fn(Finding)) {
    let Some(probe) = &subject.container.liveness_probe else {
        return;
    };
    pause(probe.initial_delay_seconds, 0).await;
    let mut failures = 0;
    loop {
        match ask(probe, subject).await {
            Ok(()) => failures = 0,
            Err(error) => {
                failures += 1;
                if failures >= probe.failure_threshold.unwrap_or(3) {
                    tell(Finding::Unhealthy(format!(
                        "liveness probe failed: {error:#}"
                    )));
                    return;
                }
            }
        }
        pause(probe.period_seconds, 10).await;
    }
}

async fn pause(seconds: Option<i32>, default: u64) {
    let seconds = seconds
        .and_then(|s| u64::try_from(s).ok())
        .unwrap_or(default);
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

async fn ask(probe: &Probe, subject: &Subject) -> Result<()> {
    let limit = probe
        .timeout_seconds
        .and_then(|s| u64::try_from(s).ok())
        .unwrap_or(1)
        .max(1);
    let question = async {
        if let Some(get) = &probe.http_get {
            http(get, subject).await
        } else if let Some(tcp) = &probe.tcp_socket {
            let to = target(tcp.host.as_deref(), &tcp.port, subject)?;
            TcpStream::connect(to)
                .await
                .map(drop)
                .with_context(|| format!("connect to {to}"))
        } else if let Some(exec) = &probe.exec {
            run(exec.command.as_deref().unwrap_or_default(), subject).await
        } else {
            bail!("the probe has none of httpGet, tcpSocket and exec")
        }
    };
    tokio::time::timeout(Duration::from_secs(limit), question)
        .await
        .with_context(|| format!("no answer within {limit} s"))?
}

async fn http(get: &HTTPGetAction, subject: &Subject) -> Result<()> {
    let to = target(get.host.as_deref(), &get.port, subject)?;
    let mut stream = TcpStream::connect(to)
        .await
        .with_context(|| format!("connect to {to}"))?;
    let path = get.path.as_deref().unwrap_or("/");
    let mut request = format!("GET {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n");
    for header in get.http_headers.iter().flatten() {
        request += &format!("{}: {}\r\n", header.name, header.value);
    }
    request += "\r\n";
    stream
        .write_all(request.as_bytes())
        .await
        .context("send the request")?;
    let mut head = [0; 12];
    stream
        .read_exact(&mut head)
        .await
        .context("read the status line")?;
    match status_code(&head) {
        Some(200..=399) => Ok(()),
        _ => bail!("GET {path}: {}", String::from_utf8_lossy(&head)),
    }
}

fn status_code(head: &[u8]) -> Option<u16> {
    std::str::from_utf8(head)
        .ok()?
        .strip_prefix("HTTP/1.")?
        .get(2..5)?
        .parse()
        .ok()
}

fn target(host: Option<&str>, port: &IntOrString, subject: &Subject) -> Result<SocketAddr> {
    let ip = match host {
        Some(host) => host
            .parse()
            .with_context(|| format!("probe host {host:?}: not an address"))?,
        None => subject.address,
    };
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => subject
            .container
            .ports
            .iter()
            .flatten()
            .find(|port| port.name.as_ref() == Some(name))
            .map(|port| port.container_port),
    };
    let number = number.with_context(|| format!("probe port {port:?}: no such port"))?;
    Ok(SocketAddr::new(
        ip,
        u16::try_from(number).context("probe port out of range")?,
    ))
}

async fn run(argv: &[String], subject: &Subject) -> Result<()> {
    let process = subject
        .run
        .process()?
        .context("the container has not started")?;
    let place = Place {
        cgroup: Some(subject.run.cgroup.path().to_owned()),
        die_with_parent: true,
        ..Place::of_process(process.pid)
    };
    let output = Command::from(place.command(&subject.agent))
        .args(argv)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("run the probe's command")?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        bail!("{argv:?}: {} {text}", output.status);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_lines_are_read() {
        assert_eq!(status_code(b"HTTP/1.1 204"), Some(204));
        assert_eq!(status_code(b"HTTP/1.0 500"), Some(500));
        assert_eq!(status_code(b"garbage....."), None);
    }
}
