//! The sockets on which the daemon is asked.

use anyhow::Context as _;
use tokio::net::{TcpListener, UnixListener};

use crate::config::Config;
use crate::server::{bind_socket, bind_tcp};

/// The sockets, bound before anything is changed: a second daemon stops here.
pub(super) struct Listeners {
    pub(super) socket: UnixListener,
    pub(super) health: Vec<TcpListener>,
    pub(super) metrics: Option<TcpListener>,
}

// === impl Listeners ===

impl Listeners {
    pub(super) async fn bind(config: &Config) -> anyhow::Result<Self> {
        let socket = bind_socket(&config.socket)
            .with_context(|| format!("settings: socket: {}", config.socket.display()))?;
        let mut health = Vec::new();
        for address in &config.healthz {
            let listener = bind_tcp(*address).await.with_context(|| {
                format!("settings: healthz-bind-address: {address}: choose a free one, or none")
            })?;
            health.push(listener);
        }
        let metrics = match config.metrics {
            None => None,
            Some(address) => Some(bind_tcp(address).await.with_context(|| {
                format!("settings: metrics-bind-address: {address}: choose a free one, or none")
            })?),
        };
        Ok(Self {
            socket,
            health,
            metrics,
        })
    }
}
