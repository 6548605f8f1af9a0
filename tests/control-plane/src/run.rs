//! The whole control plane in one process: API server, controllers, scheduler.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::client::Client;
use crate::config::ClusterConfig;
use crate::rest::Api;
use crate::serve::{Listener, NetnsListen, Server};
use crate::tls::{Authority, Identity};
use crate::{controllers, scheduler, store};

/// How a control plane is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directory of the store and of the certificate authority.
    pub data_dir: PathBuf,
    /// Whether each commit is made durable before it is answered.
    pub sync: bool,
    /// Addresses to listen on; port 0 lets the kernel choose.
    pub listen: Vec<SocketAddr>,
    /// Addresses to listen on inside other network namespaces.
    pub listen_netns: Vec<NetnsListen>,
    /// The address nodes and pods reach the API server by; the first one listened on when absent.
    pub advertise: Option<SocketAddr>,
    /// Addresses of pods.
    pub cluster_cidr: ipnetwork::IpNetwork,
    /// Addresses of Services.
    pub service_cidr: ipnetwork::IpNetwork,
    /// Prefix length of a node's block.
    pub node_cidr_mask: u8,
    /// Whether controllers and scheduler run.
    pub controllers: bool,
}

/// A control plane that runs until it is shut down or dropped.
#[derive(Debug)]
pub struct ControlPlane {
    addresses: Vec<SocketAddr>,
    authority: Authority,
    admin: Identity,
    api: Arc<Api>,
    client: Client,
    shutdown: CancellationToken,
    tasks: JoinSet<anyhow::Result<()>>,
}

impl ControlPlane {
    /// Opens the store, listens, and starts all parts. When this returns requests are answered.
    ///
    /// # Errors
    /// For a contradictory configuration, a store or certificates that cannot be used, or an
    /// address that cannot be had.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        anyhow::ensure!(
            !(options.listen.is_empty() && options.listen_netns.is_empty()),
            "--listen: give at least one address to listen on"
        );
        // Everything that can be refused is refused before anything is touched.
        let mut config = ClusterConfig {
            cluster_cidr: options.cluster_cidr,
            service_cidr: options.service_cidr,
            node_cidr_mask: options.node_cidr_mask,
            advertise: options
                .advertise
                .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0))),
        };
        config.check()?;
        let listeners = open_listeners(&options)?;
        let addresses: Vec<SocketAddr> = listeners.iter().map(|l| l.address).collect();
        config.advertise = options.advertise.unwrap_or(addresses[0]);
        let authority = Authority::open(&options.data_dir.join("pki"))?;
        let admin = authority.client("kubernetes-admin", "system:masters")?;
        let tls = authority.server_config(&authority.server(&server_ips(&config, &addresses))?)?;
        let mut store = store::Options::new(options.data_dir.join("store"));
        store.sync = options.sync;
        let opened = config.clone();
        let api = tokio::task::spawn_blocking(move || Api::open(&store, &opened)).await??;
        let api = Arc::new(api);
        api.bootstrap()
            .await
            .context("create the standard namespaces")?;
        let client = Client::new(api.clone());
        let shutdown = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let server = Arc::new(Server::new(api.clone(), &config.advertise.to_string()));
        let serving = crate::serve::serve(server, tls, listeners, shutdown.clone());
        tasks.spawn(async move { serving.await.context("serve") });
        if options.controllers {
            let (own, token) = (client.clone(), shutdown.clone());
            let root = Some(authority.certificate().to_owned());
            tasks.spawn(async move {
                controllers::run(own, config, root, token)
                    .await
                    .context("controllers")
            });
            let (own, token) = (client.clone(), shutdown.clone());
            tasks.spawn(async move { scheduler::run(own, token).await.context("scheduler") });
        }
        Ok(Self {
            addresses,
            authority,
            admin,
            api,
            client,
            shutdown,
            tasks,
        })
    }

    /// Addresses listened on: those of `listen`, then those of `listen_netns`.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The API itself.
    pub fn api(&self) -> &Arc<Api> {
        &self.api
    }

    /// The API as controllers use it.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// A kubeconfig of an administrator for the server at `address`.
    pub fn kubeconfig(&self, address: SocketAddr) -> String {
        self.authority.kubeconfig(address, &self.admin)
    }

    /// The certificate authority, to issue further client certificates.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Asks all parts to end.
    pub fn shutdown(&self) {
        self.shutdown.cancel();
    }

    /// Waits until all parts have ended. When one fails the others are ended too.
    ///
    /// # Errors
    /// The first failure of a part.
    pub async fn wait(&mut self) -> anyhow::Result<()> {
        let mut result = Ok(());
        while let Some(ended) = self.tasks.join_next().await {
            let ended = ended.context("a part panicked").and_then(|ended| ended);
            if let Err(error) = ended {
                self.shutdown.cancel();
                result = result.and(Err(error));
            }
        }
        result
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

fn open_listeners(options: &Options) -> anyhow::Result<Vec<Listener>> {
    let here = options
        .listen
        .iter()
        .map(|address| Listener::open(*address));
    let elsewhere = options.listen_netns.iter().map(Listener::open_in);
    Ok(here.chain(elsewhere).collect::<Result<_, _>>()?)
}

/// Addresses the server's certificate is for: those listened on and advertised, loopback, and the
/// first of the Service range (the `kubernetes` Service).
fn server_ips(config: &ClusterConfig, addresses: &[SocketAddr]) -> Vec<IpAddr> {
    let mut ips: Vec<IpAddr> = addresses.iter().map(SocketAddr::ip).collect();
    ips.push(config.advertise.ip());
    ips.push(IpAddr::from([127, 0, 0, 1]));
    ips.extend(config.service_cidr.iter().nth(1));
    ips.sort_unstable();
    ips.dedup();
    ips
}
