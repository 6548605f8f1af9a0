//! Connections: TLS, HTTP/1.1 and HTTP/2.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::auth::User;
use super::handler::Server;
use super::listen::Listener;

/// Time a client has for the TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Time between pings by which a client that vanished is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Time connections have to end after shutdown was asked for.
const GRACE: Duration = Duration::from_secs(5);

/// Pause after a failure to accept that is not the client's (no more file descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `shutdown`, then ends connections.
///
/// # Errors
/// When a listener cannot be handed to the runtime.
pub async fn serve(
    server: Arc<Server>,
    tls: Arc<rustls::ServerConfig>,
    listeners: Vec<Listener>,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let tasks = TaskTracker::new();
    let acceptor = TlsAcceptor::from(tls);
    for listener in listeners {
        let socket = tokio::net::TcpListener::from_std(listener.socket)?;
        let (server, acceptor) = (server.clone(), acceptor.clone());
        let (tracker, shutdown) = (tasks.clone(), shutdown.clone());
        tasks.spawn(async move {
            loop {
                let accepted = tokio::select! {
                    () = shutdown.cancelled() => return,
                    accepted = socket.accept() => accepted,
                };
                match accepted {
                    Ok((stream, _)) => {
                        let (server, acceptor) = (server.clone(), acceptor.clone());
                        let shutdown = shutdown.clone();
                        tracker.spawn(connection(server, acceptor, stream, shutdown));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a connection was not accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        });
    }
    tasks.close();
    shutdown.cancelled().await;
    if tokio::time::timeout(GRACE, tasks.wait()).await.is_err() {
        tracing::warn!(connections = tasks.len(), "connections cut at shutdown");
    }
    Ok(())
}

async fn connection(
    server: Arc<Server>,
    acceptor: TlsAcceptor,
    stream: TcpStream,
    shutdown: CancellationToken,
) {
    let nodelay = stream.set_nodelay(true);
    let stream = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%error, ?nodelay, "TLS handshake failed");
            return;
        }
        Err(_) => return,
    };
    let certificates = stream.get_ref().1.peer_certificates();
    let user = certificates.and_then(|chain| User::from_certificate(chain.first()?));
    let user = user.map(Arc::new);
    let ending = shutdown.clone();
    let service = service_fn(move |request: http::Request<Incoming>| {
        let (server, user, ending) = (server.clone(), user.clone(), ending.clone());
        async move { Ok::<_, std::convert::Infallible>(server.handle(request, user, ending).await) }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(1000)
        .keep_alive_interval(Some(KEEP_ALIVE));
    let serving = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(serving);
    let result = tokio::select! {
        result = serving.as_mut() => result,
        () = shutdown.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "connection ended");
    }
}
