//! A way to etcd that knows the requests which go through it: it loses answers, lets some wait, and
//! keeps a watch for its client while etcd is another one meanwhile, as gRPC proxies do.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::http::request::Parts;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::etcd::unused_address;

type Body = BoxBody<Bytes, anyhow::Error>;

/// How much of a stream may be under way: little, so that etcd notices soon who does not read.
const WINDOW: u32 = 65_535;
/// Time between two attempts to reach etcd again.
const AGAIN: Duration = Duration::from_millis(50);

/// Forwards requests to one address.
pub struct Wire {
    listen: SocketAddr,
    faults: watch::Sender<Faults>,
    seen: watch::Receiver<BTreeMap<String, usize>>,
    task: tokio::task::JoinHandle<()>,
}

/// What is wrong with it, by the methods of requests.
#[derive(Clone, Default)]
struct Faults {
    /// These are done, and whoever asked is told that nobody knows.
    lost: BTreeSet<String>,
    /// These wait; of a watch the answers do.
    held: BTreeSet<String>,
    /// Whether signs of life are answered as for an etcd lease that there is not.
    expired: bool,
}

#[derive(Clone)]
struct Line {
    target: SocketAddr,
    faults: watch::Receiver<Faults>,
    seen: watch::Sender<BTreeMap<String, usize>>,
}

// === impl Wire ===

impl Wire {
    /// A way to `target` without faults.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn to(target: Ipv4Addr) -> Result<Self> {
        let listen = SocketAddr::from((unused_address(), 2379));
        let listener = TcpListener::bind(listen).await.context("wire")?;
        let (faults, faults_out) = watch::channel(Faults::default());
        let (seen_in, seen) = watch::channel(BTreeMap::new());
        let line = Line {
            target: SocketAddr::from((target, 2379)),
            faults: faults_out,
            seen: seen_in,
        };
        let task = tokio::spawn(line.serve(listener));
        Ok(Self {
            listen,
            faults,
            seen,
            task,
        })
    }

    /// Where clients connect.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.listen)
    }

    /// From now on requests of `method`, such as `Txn`, are done but not answered.
    pub fn lose(&self, method: &str) {
        self.faults.send_modify(|faults| {
            faults.lost.insert(method.to_owned());
        });
    }

    /// From now on requests of `method` wait, and the answers of `Watch`.
    pub fn hold(&self, method: &str) {
        self.faults.send_modify(|faults| {
            faults.held.insert(method.to_owned());
        });
    }

    /// From now on etcd seems to know of no etcd lease that is to be kept.
    pub fn expire(&self) {
        self.faults.send_modify(|faults| faults.expired = true);
    }

    /// Ends all faults.
    pub fn mend(&self) {
        self.faults.send_replace(Faults::default());
    }

    /// Waits until so many requests of `method` have come.
    ///
    /// # Errors
    /// When they do not within `limit`.
    pub async fn seen(&self, method: &str, count: usize, limit: Duration) -> Result<()> {
        let mut seen = self.seen.clone();
        let enough =
            seen.wait_for(|seen| seen.get(method).is_some_and(|so_many| *so_many >= count));
        let found = tokio::time::timeout(limit, enough).await;
        found.with_context(|| format!("no {count} {method}"))??;
        Ok(())
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

// === impl Line ===

impl Line {
    async fn serve(self, listener: TcpListener) {
        let mut connections = JoinSet::new();
        while let Ok((client, _)) = listener.accept().await {
            let line = self.clone();
            connections.spawn(async move {
                let answer = service_fn(|request| line.clone().answer(request));
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                // Clients go when they want to.
                let _ = server.serve_connection(TokioIo::new(client), answer).await;
            });
        }
    }

    async fn answer(mut self, request: Request<Incoming>) -> Result<Response<Body>> {
        let path = request.uri().path();
        let method = path.rsplit('/').next().unwrap_or_default().to_owned();
        self.seen
            .send_modify(|seen| *seen.entry(method.clone()).or_default() += 1);
        if method == "Watch" {
            return Ok(self.follow(request));
        }
        let faults = self.open(&method).await?;
        if faults.expired && method == "LeaseKeepAlive" {
            // An answer in which everything is zero, as the time that is left.
            return Ok(grpc(Full::new(Bytes::from_static(&[0; 5]))));
        }
        let answer = self.ask(request.map(boxed)).await;
        let Ok(answer) = answer.map(|answer| answer.map(boxed)) else {
            return Ok(unavailable());
        };
        if !faults.lost.contains(&method) {
            return Ok(answer);
        }
        // It is done once it was answered.
        answer.into_body().collect().await?;
        Ok(unavailable())
    }

    /// Waits until requests of `method` need not wait.
    async fn open(&mut self, method: &str) -> Result<Faults> {
        let open = self.faults.wait_for(|faults| !faults.held.contains(method));
        Ok(open.await?.clone())
    }

    async fn ask(&self, request: Request<Body>) -> Result<Response<Incoming>> {
        let server = TcpStream::connect(self.target).await?;
        let mut client = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        client.initial_stream_window_size(WINDOW);
        client.initial_connection_window_size(WINDOW);
        let (mut sender, connection) = client.handshake(TokioIo::new(server)).await?;
        tokio::spawn(connection);
        Ok(sender.send_request(request).await?)
    }

    /// A watch that goes on whatever becomes of etcd.
    fn follow(self, request: Request<Incoming>) -> Response<Body> {
        let (answers_in, answers) = mpsc::channel(1);
        let (head, asks) = request.into_parts();
        tokio::spawn(async move {
            // It ends when its client does.
            let _ = self.carry(&head, asks, &answers_in).await;
        });
        grpc(StreamBody::new(frames(answers)))
    }

    async fn carry(
        mut self,
        head: &Parts,
        mut asks: Incoming,
        answers: &mpsc::Sender<Frame<Bytes>>,
    ) -> Result<()> {
        // What asks for the watch.
        let first = asks.frame().await.context("no request")??;
        let first = first.into_data().ok().context("no request")?;
        let mut is_again = false;
        loop {
            let (asks_in, asks_out) = mpsc::channel(16);
            asks_in.send(Frame::data(first.clone())).await?;
            let body = StreamBody::new(frames(asks_out)).boxed();
            let request = Request::from_parts(head.clone(), body);
            let Ok(answer) = self.ask(request).await else {
                tokio::time::sleep(AGAIN).await;
                continue;
            };
            let mut answer = answer.into_body();
            if std::mem::replace(&mut is_again, true) {
                // The client has been told that there is a watch.
                let _ = answer.frame().await;
            }
            loop {
                tokio::select! {
                    ask = asks.frame() => asks_in.send(ask.context("gone")??).await?,
                    frame = answer.frame() => match frame {
                        Some(Ok(frame)) if frame.is_data() => {
                            self.open("Watch").await?;
                            answers.send(frame).await?;
                        }
                        _ => break,
                    },
                }
            }
        }
    }
}

fn frames(
    channel: mpsc::Receiver<Frame<Bytes>>,
) -> impl futures::Stream<Item = Result<Frame<Bytes>>> {
    stream::unfold(channel, async |mut channel| {
        let frame = channel.recv().await?;
        Some((Ok(frame), channel))
    })
}

fn boxed(body: Incoming) -> Body {
    body.map_err(anyhow::Error::from).boxed()
}

fn grpc<B>(body: B) -> Response<Body>
where
    B: hyper::body::Body<Data = Bytes> + Send + Sync + 'static,
    B::Error: Into<anyhow::Error>,
{
    let mut answer = Response::new(body.map_err(Into::into).boxed());
    let kind = hyper::header::HeaderValue::from_static("application/grpc");
    answer
        .headers_mut()
        .insert(hyper::header::CONTENT_TYPE, kind);
    answer
}

/// What a proxy says that does not know whether the request was done.
fn unavailable() -> Response<Body> {
    let mut answer = grpc(Full::new(Bytes::new()));
    let unavailable = hyper::header::HeaderValue::from_static("14");
    answer.headers_mut().insert("grpc-status", unavailable);
    answer
}
