//! `netexec`: an HTTP server, a UDP server and a TCP echo server in one.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context, Result};
use axum::extract::{ConnectInfo, Query, State};
use axum::routing::get;
use axum::{Json, Router};
use tokio::io::copy;
use tokio::net::{TcpListener, UdpSocket};

use super::{WhoAmI, hostname};

/// Ports of the servers; 0 turns one off.
#[derive(Debug, Clone, clap::Args)]
pub struct NetExec {
    /// HTTP: /hostname, /clientip, /whoami (JSON), /echo?msg=, /healthz.
    #[arg(long, default_value_t = 8080)]
    pub http_port: u16,
    /// UDP: answers the datagrams `hostname`, `clientip`, `whoami` and `echo TEXT`.
    #[arg(long, default_value_t = 8081)]
    pub udp_port: u16,
    /// TCP: sends back whatever arrives.
    #[arg(long, default_value_t = 8082)]
    pub echo_port: u16,
}

type Peer = ConnectInfo<SocketAddr>;

impl NetExec {
    pub(super) fn serve_hostname() -> Self {
        Self {
            http_port: 9376,
            udp_port: 9376,
            echo_port: 0,
        }
    }

    pub(super) async fn serve(&self) -> Result<()> {
        let name = hostname()?;
        tokio::try_join!(
            async {
                match self.http_port {
                    0 => Ok(()),
                    port => http(port, name.clone()).await,
                }
            },
            async {
                match self.udp_port {
                    0 => Ok(()),
                    port => udp(port, name.clone()).await,
                }
            },
            async {
                match self.echo_port {
                    0 => Ok(()),
                    port => echo(port).await,
                }
            },
        )?;
        Ok(())
    }
}

/// Listens on both families where the kernel has IPv6, else on IPv4.
async fn listen(port: u16) -> Result<TcpListener> {
    let listener = match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Ok(listener) => Ok(listener),
        Err(_) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await,
    };
    listener.with_context(|| format!("listen on TCP port {port}"))
}

async fn http(port: u16, name: String) -> Result<()> {
    let app = Router::new()
        .route("/", get(|State(name): State<String>| async move { name }))
        .route(
            "/hostname",
            get(|State(name): State<String>| async move { name }),
        )
        .route("/healthz", get(|| async { "ok" }))
        .route(
            "/clientip",
            get(|peer: Peer| async move { peer.0.to_string() }),
        )
        .route(
            "/whoami",
            get(|State(name): State<String>, peer: Peer| async move {
                Json(WhoAmI {
                    hostname: name,
                    client: peer.0.ip().to_canonical(),
                })
            }),
        )
        .route(
            "/echo",
            get(|Query(query): Query<BTreeMap<String, String>>| async move {
                query.get("msg").cloned().unwrap_or_default()
            }),
        )
        .with_state(name);
    let listener = listen(port).await?;
    axum::serve(
        listener,
        app.into_make_service_with_connect_info::<SocketAddr>(),
    )
    .await
    .context("serve HTTP")
}

async fn udp(port: u16, name: String) -> Result<()> {
    let socket = match UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Ok(socket) => socket,
        Err(_) => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))
            .await
            .with_context(|| format!("listen on UDP port {port}"))?,
    };
    let mut buffer = vec![0; 65_536];
    loop {
        let (length, peer) = socket
            .recv_from(&mut buffer)
            .await
            .context("receive a datagram")?;
        let reply = answer(&buffer[..length], &name, peer);
        // The peer may be gone by now; that is no reason for a server to stop.
        let _ = socket.send_to(&reply, peer).await;
    }
}

fn answer(request: &[u8], name: &str, peer: SocketAddr) -> Vec<u8> {
    match request.trim_ascii() {
        b"hostname" => name.as_bytes().to_vec(),
        b"clientip" => peer.to_string().into_bytes(),
        b"whoami" => {
            let whoami = WhoAmI {
                hostname: name.to_owned(),
                client: peer.ip().to_canonical(),
            };
            serde_json::to_vec(&whoami).unwrap_or_default()
        }
        other => other.strip_prefix(b"echo ").unwrap_or(other).to_vec(),
    }
}

async fn echo(port: u16) -> Result<()> {
    let listener = listen(port).await?;
    loop {
        let (mut stream, _) = listener.accept().await.context("accept a connection")?;
        tokio::spawn(async move {
            let (mut reader, mut writer) = stream.split();
            // A connection that breaks is the client's to notice.
            let _ = copy(&mut reader, &mut writer).await;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_are_answered_by_command() {
        let peer: SocketAddr = "10.0.0.1:99".parse().unwrap();
        assert_eq!(answer(b"hostname\n", "a", peer), b"a");
        assert_eq!(answer(b"clientip", "a", peer), b"10.0.0.1:99");
        assert_eq!(
            answer(b"whoami", "a", peer),
            br#"{"hostname":"a","client":"10.0.0.1"}"#
        );
        assert_eq!(answer(b"echo hi there", "a", peer), b"hi there");
        assert_eq!(answer(b"anything", "a", peer), b"anything");
    }
}
