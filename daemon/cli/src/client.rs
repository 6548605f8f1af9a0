//! Requests to the daemon over its Unix socket.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

/// The daemon cannot be reached.
#[derive(Debug)]
pub(crate) struct Down {
    socket: PathBuf,
    error: io::Error,
}

/// The daemon on this node.
#[derive(Clone, Debug)]
pub(crate) struct Daemon {
    socket: PathBuf,
}

// === impl Down ===

impl fmt::Display for Down {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let socket = self.socket.display();
        match self.error.kind() {
            io::ErrorKind::NotFound => write!(
                f,
                "towlined is not running here: there is no socket {socket}; start it, or name its socket with --socket"
            ),
            io::ErrorKind::ConnectionRefused => write!(
                f,
                "towlined is not running: nobody answers on {socket}; see its log for why it ended"
            ),
            io::ErrorKind::PermissionDenied => {
                write!(f, "no permission for {socket}: run as root")
            }
            _ => write!(f, "{socket}: {}", self.error),
        }
    }
}

impl std::error::Error for Down {}

// === impl Daemon ===

impl Daemon {
    /// The daemon behind `socket`.
    pub(crate) fn at(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
        }
    }

    /// The JSON answer to `GET path`.
    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.ask(Method::GET, path).await
    }

    /// The JSON answer to `POST path`.
    pub(crate) async fn post(&self, path: &str) -> anyhow::Result<Value> {
        self.ask(Method::POST, path).await
    }

    async fn ask(&self, method: Method, path: &str) -> anyhow::Result<Value> {
        let body = self.open(method, path).await?.into_body();
        let bytes = body
            .collect()
            .await
            .context("towlined broke off its answer")?
            .to_bytes();
        serde_json::from_slice(&bytes).context("towlined's answer is not JSON")
    }

    /// Hands each line of the answer to `GET path` to `line`, for as long as they come.
    pub(crate) async fn follow(
        &self,
        path: &str,
        mut line: impl FnMut(&Value) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut body = self.open(Method::GET, path).await?.into_body();
        let mut rest = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.context("towlined broke off its answer")?;
            rest.extend_from_slice(frame.data_ref().map(Bytes::as_ref).unwrap_or_default());
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let text: Vec<u8> = rest.drain(..=end).collect();
                line(&serde_json::from_slice(&text).context("towlined's line is not JSON")?)?;
            }
        }
        Ok(())
    }

    async fn open(&self, method: Method, path: &str) -> anyhow::Result<Response<Incoming>> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|error| Down {
                socket: self.socket.clone(),
                error,
            })?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let named = format!("{method} {path}");
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "towlined")
            .body(Empty::<Bytes>::new())?;
        let response = sender
            .send_request(request)
            .await
            .context("request to towlined")?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let bytes = response.into_body().collect().await?.to_bytes();
        let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        match (body["msg"].as_str(), body["details"].as_str()) {
            (Some(msg), Some(details)) => bail!("{msg}: {details}"),
            _ => Err(anyhow!("towlined answers {status} to {named}")),
        }
    }
}
