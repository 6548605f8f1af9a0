//! How the daemon reaches the API server, and how it is seen that it does.

use std::path::Path;
use std::sync::Arc;
use std::task;

use anyhow::Context as _;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{Request, Response};
use kube::client::{Body, ClientBuilder};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tower::{Layer, Service};

/// What is told of the path of every request that was answered well.
pub type Answered = Arc<dyn Fn(&str) + Send + Sync>;

/// Tells of answers: a watch that is resumed after an outage has no event to say so.
#[derive(Clone)]
struct Listening(Answered);

/// A service whose answers are told of.
#[derive(Clone)]
struct Listened<S> {
    inner: S,
    answered: Answered,
}

/// Whether anything says how to reach one.
#[must_use]
pub fn is_named(kubeconfig: Option<&Path>) -> bool {
    kubeconfig.is_some() || std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
}

/// A client by `kubeconfig`, else by the pod's service account. Nothing is sent yet: the API
/// server may be away.
///
/// # Errors
/// When there is neither, or what it says cannot be used.
pub async fn client(kubeconfig: Option<&Path>, answered: Answered) -> anyhow::Result<Client> {
    let config = match kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path).with_context(|| {
                format!("settings: kubeconfig: {}: name a readable kubeconfig", path.display())
            })?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                .await
                .with_context(|| {
                    format!("settings: kubeconfig: {}: its current context must be complete", path.display())
                })?
        }
        None => Config::incluster().context(
            "settings: kubeconfig: (missing): name one with --kubeconfig, or run in a pod with a service account",
        )?,
    };
    let builder = ClientBuilder::try_from(config)
        .context("the API server's address or certificates cannot be used")?;
    Ok(builder.with_layer(&Listening(answered)).build())
}

// === impl Listening ===

impl<S> Layer<S> for Listening {
    type Service = Listened<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Listened {
            inner,
            answered: self.0.clone(),
        }
    }
}

// === impl Listened ===

impl<S, B> Service<Request<Body>> for Listened<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut task::Context<'_>) -> task::Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let path = request.uri().path().to_owned();
        let answered = self.answered.clone();
        let answer = self.inner.call(request);
        let told = answer.map(move |answer| {
            if let Ok(response) = &answer
                && response.status().is_success()
            {
                answered(&path);
            }
            answer
        });
        told.boxed()
    }
}
