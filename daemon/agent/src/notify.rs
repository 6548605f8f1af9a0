//! What a service manager is told (sd_notify(3)): `READY=1` once this node carries pods, `STATUS=`
//! whenever what it waits for changes, `STOPPING=1` at the end. Without one, nothing happens.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::health::Health;

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
    let mut passes = health.board.subscribe();
    let mut snapshots = health.store.subscribe();
    let (mut said, mut was_ready) = (None, false);
    loop {
        lease.mark_unchanged();
        leases.mark_unchanged();
        passes.mark_unchanged();
        snapshots.mark_unchanged();
        let waiting_for = health.unready().waiting_for;
        if said.as_ref() != Some(&waiting_for) {
            match waiting_for.is_empty() {
                true if was_ready => notifier.send("STATUS=ready"),
                true => notifier.send("READY=1\nSTATUS=ready"),
                false => notifier.waits_for(&waiting_for.join("; ")),
            }
            was_ready |= waiting_for.is_empty();
            said = Some(waiting_for);
        }
        let changed = tokio::select! {
            () = stop.cancelled() => false,
            changed = lease.changed() => changed.is_ok(),
            changed = leases.changed() => changed.is_ok(),
            changed = passes.changed() => changed.is_ok(),
            changed = snapshots.changed() => changed.is_ok(),
        };
        if !changed {
            return;
        }
    }
}
