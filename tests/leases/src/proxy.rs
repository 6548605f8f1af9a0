//! A way to etcd that a test can cut.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, Result};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::etcd::unused_address;

/// Forwards connections to one address while it is open.
pub struct Proxy {
    listen: SocketAddr,
    open: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

// === impl Proxy ===

impl Proxy {
    /// An open way to `target`.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn to(target: Ipv4Addr) -> Result<Self> {
        let target = SocketAddr::from((target, 2379));
        let listen = SocketAddr::from((unused_address(), 2379));
        let listener = TcpListener::bind(listen).await.context("proxy")?;
        let (open, is_open) = watch::channel(true);
        let task = tokio::spawn(serve(listener, target, is_open));
        Ok(Self { listen, open, task })
    }

    /// Where clients connect.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.listen)
    }

    /// Ends all connections, and new ones as soon as they are made.
    pub fn cut(&self) {
        self.open.send_replace(false);
    }

    /// Lets connections through again.
    pub fn mend(&self) {
        self.open.send_replace(true);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, target: SocketAddr, mut open: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { return };
                if *open.borrow() {
                    connections.spawn(forward(client, target));
                }
            }
            changed = open.changed() => {
                if changed.is_err() { return }
                if !*open.borrow_and_update() {
                    connections.abort_all();
                }
            }
        }
    }
}

async fn forward(mut client: TcpStream, target: SocketAddr) {
    if let Ok(mut server) = TcpStream::connect(target).await {
        // Either side may end it at any time; that is what a test does.
        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
    }
}
