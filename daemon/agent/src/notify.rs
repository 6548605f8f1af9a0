//! What a service manager is told (sd_notify(3)): `READY=1` once this node carries pods, `STATUS=`
//! whenever what it waits for changes, `STOPPING=1` at the end. Without one, nothing happens.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::health::{Health, Readiness};

/// The service manager, if there is one.
#[derive(Clone, Debug, Default)]
pub struct Notifier(Option<Arc<(UnixDatagram, SocketAddr)>>);

// === impl Notifier ===

impl Notifier {
    /// Whoever `$NOTIFY_SOCKET` names; nobody if it is not set or names no socket.
    #[must_use]
    pub fn from_env() -> Self {
        let named = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty());
        let opened = named.map(|name| (open(&name), name));
        Self(opened.and_then(|(opened, name)| match opened {
            Ok(opened) => Some(Arc::new(opened)),
            Err(error) => {
                tracing::warn!(?name, %error, "NOTIFY_SOCKET is no socket");
                None
            }
        }))
    }

    /// Tells `state`: lines of `KEY=VALUE`.
    pub fn send(&self, state: &str) {
        let Some((socket, manager)) = self.0.as_deref() else {
            return;
        };
        if let Err(error) = socket.send_to_addr(state.as_bytes(), manager) {
            tracing::warn!(%error, "the service manager cannot be told");
        }
    }

    /// What this node waits for, in one line.
    pub fn waits_for(&self, what: &str) {
        self.send(&format!("STATUS=waits for {}", what.replace('\n', " ")));
    }
}

/// A path, or a name in the abstract namespace after an `@`.
fn open(name: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let manager = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(name)?,
    };
    Ok((UnixDatagram::unbound()?, manager))
}

/// Tells of readiness and obstacles until asked to stop.
pub async fn follow(notifier: Notifier, health: Arc<Health>, stop: CancellationToken) {
    let mut lease = health.lease.clone();
    let mut leases = health.leases.clone();
    let mut findings = health.findings.clone();
    let mut tenure = health.tenure.clone();
    let mut passes = health.board.subscribe();
    let mut snapshots = health.store.subscribe();
    let (mut said, mut was_ready) = (None, false);
    loop {
        lease.mark_unchanged();
        leases.mark_unchanged();
        findings.mark_unchanged();
        tenure.mark_unchanged();
        passes.mark_unchanged();
        snapshots.mark_unchanged();
        let readiness = health.own_readiness();
        if said.as_ref() != Some(&readiness) {
            notifier.send(&state(&readiness, was_ready));
            was_ready |= readiness.waiting_for.is_empty();
            said = Some(readiness);
        }
        let changed = tokio::select! {
            () = stop.cancelled() => false,
            changed = lease.changed() => changed.is_ok(),
            changed = leases.changed() => changed.is_ok(),
            changed = findings.changed() => changed.is_ok(),
            changed = tenure.changed() => changed.is_ok(),
            changed = passes.changed() => changed.is_ok(),
            changed = snapshots.changed() => changed.is_ok(),
        };
        if !changed {
            return;
        }
    }
}

/// What there is to be told. `READY=1` is told once: there is no way to take it back, but the line
/// that people see always says how it is now.
fn state(readiness: &Readiness, was_ready: bool) -> String {
    let Readiness { waiting_for, notes } = readiness;
    let (ready, status) = match waiting_for.as_slice() {
        [] if notes.is_empty() => (true, "ready".to_owned()),
        [] => (true, format!("ready; {}", notes.join("; "))),
        waiting_for => (false, format!("waits for {}", waiting_for.join("; "))),
    };
    let first = if ready && !was_ready { "READY=1\n" } else { "" };
    format!("{first}STATUS={}", status.replace('\n', " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_said_once_and_the_line_is_always_true() {
        let readiness = |waiting_for: &[&str], notes: &[&str]| Readiness {
            waiting_for: waiting_for.iter().map(ToString::to_string).collect(),
            notes: notes.iter().map(ToString::to_string).collect(),
        };
        let waits = readiness(&["a lease", "the\noverlay"], &["etcd is away"]);
        assert_eq!(
            state(&waits, false),
            "STATUS=waits for a lease; the overlay"
        );
        assert_eq!(state(&waits, true), "STATUS=waits for a lease; the overlay");
        assert_eq!(state(&readiness(&[], &[]), false), "READY=1\nSTATUS=ready");
        let noted = readiness(&[], &["etcd is away"]);
        assert_eq!(state(&noted, true), "STATUS=ready; etcd is away");
    }
}
