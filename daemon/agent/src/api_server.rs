//! How the daemon reaches the API server.

use std::path::Path;

use anyhow::Context as _;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

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
pub async fn client(kubeconfig: Option<&Path>) -> anyhow::Result<Client> {
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
    Client::try_from(config).context("the API server's address or certificates cannot be used")
}
