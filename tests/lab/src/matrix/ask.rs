//! Attempts made and judged.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::world::World;
use super::{Ask, Expect, Source};
use crate::applet::{Protocol, Report};
use crate::wait::eventually;

/// How long something just applied may take to be in force.
const SETTLE: Duration = Duration::from_secs(15);
/// Time for an attempt that should be answered, and for one that should not, in milliseconds.
const PATIENT_MS: u64 = 3000;
const IMPATIENT_MS: u64 = 500;

/// Waits until the attempts turn out as expected once, then makes them again: now every one must.
///
/// # Errors
/// What turned out otherwise.
pub(super) async fn check(world: &World, ask: &Ask, expect: &Expect) -> Result<String> {
    let source = match expect {
        Expect::Answered(_, Source::Caller) => Some(world.address_of(ask.from).await?),
        Expect::Answered(_, Source::Node) => {
            Some(IpAddr::V4(world.node_of(ask.from).await?.address()))
        }
        _ => None,
    };
    let target = world.target(ask.to).await?;
    eventually("precondition", SETTLE, || async {
        let report = attempt(world, ask, target, expect).await?;
        Ok(judge(&report, ask.count, expect, source).map(drop))
    })
    .await?;
    let report = attempt(world, ask, target, expect).await?;
    match judge(&report, ask.count, expect, source) {
        Ok(detail) => Ok(detail),
        Err(why) => bail!("{why}"),
    }
}

async fn attempt(world: &World, ask: &Ask, target: SocketAddr, expect: &Expect) -> Result<Report> {
    let patience = if *expect == Expect::Denied {
        IMPATIENT_MS
    } else {
        PATIENT_MS
    };
    let protocol = match ask.protocol {
        Protocol::Http => "http",
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    let mut args = vec![
        "connect".to_owned(),
        format!("--protocol={protocol}"),
        format!("--count={}", ask.count),
        format!("--timeout-ms={patience}"),
        target.to_string(),
    ];
    if matches!(expect, Expect::Answered(..)) {
        args.push("--fail-fast".to_owned());
    }
    let output = world
        .applet(ask.from, &args)
        .await?
        .output()
        .await
        .context("run the applet")?;
    serde_json::from_slice(&output.stdout).with_context(|| {
        format!(
            "connect {target}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )
    })
}

/// Judges a report; gives a short detail, or what is wrong. `source` is the address that servers must
/// have seen.
fn judge(
    report: &Report,
    count: u32,
    expect: &Expect,
    source: Option<IpAddr>,
) -> Result<String, String> {
    match expect {
        Expect::Denied => match report.failures.get("timeout") {
            Some(denied) if *denied == count => Ok("no answer".to_owned()),
            _ => Err(format!("expected no answer: {}", describe(report))),
        },
        Expect::Refused => match report.failures.get("refused") {
            Some(refused) if *refused == count => Ok("refused".to_owned()),
            _ => Err(format!("expected refusal: {}", describe(report))),
        },
        Expect::Answered(by, _) => {
            let seen = report
                .hostnames
                .keys()
                .map(String::as_str)
                .collect::<BTreeSet<_>>();
            let wanted = by.iter().copied().collect::<BTreeSet<_>>();
            if report.answered != count {
                return Err(format!("expected {count} answers: {}", describe(report)));
            }
            if !wanted.is_empty() && seen != wanted {
                return Err(format!(
                    "expected answers by {wanted:?}: {}",
                    describe(report)
                ));
            }
            let strangers = report
                .clients
                .keys()
                .filter(|client| source.is_some_and(|s| s != **client));
            if let Some(stranger) = strangers.into_iter().next() {
                return Err(format!("source {stranger}, expected {source:?}"));
            }
            let from = source
                .map(|source| format!(" from {source}"))
                .unwrap_or_default();
            Ok(format!("{count} answers{from}"))
        }
    }
}

fn describe(report: &Report) -> String {
    format!(
        "answered {} by {:?}, failures {:?}",
        report.answered, report.hostnames, report.failures
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(answered: u32, host: &str, client: &str, failures: &[(&str, u32)]) -> Report {
        Report {
            answered,
            hostnames: [(host.to_owned(), answered)]
                .into_iter()
                .filter(|h| h.1 > 0)
                .collect(),
            clients: [(client.parse().unwrap(), answered)]
                .into_iter()
                .filter(|c| c.1 > 0)
                .collect(),
            failures: failures
                .iter()
                .map(|(kind, count)| ((*kind).to_owned(), *count))
                .collect(),
        }
    }

    #[test]
    fn one_wrong_attempt_fails_a_check() {
        let own: Option<IpAddr> = Some("10.1.0.5".parse().unwrap());
        let by_a = Expect::Answered(vec!["a"], Source::Caller);
        let good = report(2, "a", "10.1.0.5", &[]);
        assert!(judge(&good, 2, &by_a, own).is_ok());
        assert!(judge(&good, 3, &by_a, own).is_err(), "one missing");
        assert!(
            judge(&report(2, "b", "10.1.0.5", &[]), 2, &by_a, own).is_err(),
            "other server"
        );
        assert!(
            judge(&report(2, "a", "10.1.0.6", &[]), 2, &by_a, own).is_err(),
            "other source"
        );
        assert!(
            judge(
                &report(0, "", "::", &[("timeout", 2)]),
                2,
                &Expect::Denied,
                None
            )
            .is_ok()
        );
        assert!(
            judge(
                &report(0, "", "::", &[("refused", 2)]),
                2,
                &Expect::Denied,
                None
            )
            .is_err()
        );
        assert!(
            judge(
                &report(1, "a", "::", &[("timeout", 1)]),
                2,
                &Expect::Denied,
                None
            )
            .is_err()
        );
        assert!(
            judge(
                &report(0, "", "::", &[("refused", 2)]),
                2,
                &Expect::Refused,
                None
            )
            .is_ok()
        );
    }
}
