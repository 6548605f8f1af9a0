//! Puts the parts together and runs them until somebody asks to stop.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use desired::cluster::{Cluster, ThisNode};
use hostnet::Netlink;
use jiff::Timestamp;
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::admin::{self, Admin, EventHub};
use crate::api_server;
use crate::board::Board;
use crate::config::{Config, Datapath, LeaseSource, NetConf};
use crate::datapath::{Ebpf, HostView, KernelView};
use crate::endpoint::{self, Endpoints, InForce, Registry};
use crate::health::{Health, health_router, metrics_router};
use crate::host;
use crate::lease::etcd::{self, EtcdLeases, StoreReport};
use crate::lease::kube::KubeLeases;
use crate::lease::{self, Lease};
use crate::metrics::Metrics;
use crate::reconcile::masquerade::{self, MasqueradeLoop, MasqueradeSettings};
use crate::reconcile::overlay::{self, OverlayLoop, OverlaySettings};
use crate::reconcile::{Panicked, Reconciler, nudges, policy, run, services};
use crate::server::{bind_socket, bind_tcp, serve_socket, serve_tcp};
use crate::store::Store;
use crate::subnet_file;
use crate::watch::Watches;

/// How long loops may take to end their passes once asked to stop.
const GRACE: Duration = Duration::from_secs(5);

/// Time between two questions for the network configuration, as flannel's.
const CONFIG_RETRY: Duration = Duration::from_secs(1);

/// The sockets, bound before anything is changed: a second daemon stops here.
struct Listeners {
    socket: UnixListener,
    health: Vec<TcpListener>,
    metrics: Option<TcpListener>,
}

/// What the parts share.
struct Shared {
    config: Arc<Config>,
    net: NetConf,
    store: Arc<Store>,
    metrics: Arc<Metrics>,
    board: Arc<Board>,
    leases: watch::Sender<StoreReport>,
    stop: CancellationToken,
}

/// The tasks: loops may fail, the others end when asked to.
#[derive(Default)]
struct Tasks {
    loops: JoinSet<Result<(), Panicked>>,
    others: JoinSet<()>,
}

/// Runs the daemon until SIGTERM or SIGINT. Nothing is torn down then: the kernel goes on.
///
/// # Errors
/// What keeps it from starting, in one line; or that a loop has ended in a panic.
pub async fn serve(config: Config) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    stop_on_signals(&stop)?;
    let listeners = Listeners::bind(&config).await?;
    let client = api_server::client(config.kubeconfig.as_deref()).await?;
    let Some(net) = network(&config, &stop).await? else {
        return Ok(());
    };
    for key in &net.ignored {
        tracing::warn!(key, "a key of the network configuration means nothing here");
    }
    let shared = Shared::new(config, net, stop)?;
    let registry = Registry::open(&shared.config.state_dir)
        .with_context(|| format!("state-dir {}", shared.config.state_dir.display()))?;
    let ebpf = shared.load_datapath()?;

    let (lease_in, lease) = watch::channel(None);
    let (in_force_in, in_force) = watch::channel(InForce::default());
    let endpoints = Arc::new(Endpoints::new(
        shared.store.clone(),
        registry,
        ebpf.as_ref().map(|_| in_force),
        host::ifindex,
        shared.metrics.clone(),
    ));
    let adopted = endpoints.adopt().context("endpoints of an earlier run")?;
    tracing::info!(
        node = shared.config.node_name,
        version = env!("CARGO_PKG_VERSION"),
        endpoints = adopted,
        "towlined starts"
    );

    let mut tasks = Tasks::default();
    shared.start_overlay(&mut tasks, lease_in)?;
    let events = Arc::new(EventHub::new(shared.metrics.clone()));
    let kernel: Arc<dyn KernelView> = match ebpf {
        Some(ebpf) => {
            let ebpf = Arc::new(ebpf);
            shared.start_datapath(&mut tasks, &ebpf, &endpoints, in_force_in)?;
            ebpf.start(&shared.store, &events, &shared.stop, &mut tasks.others)?;
            ebpf
        }
        None => Arc::new(HostView),
    };
    let annotations = shared.config.annotations.clone();
    let watches = Watches {
        client: client.clone(),
        store: shared.store.clone(),
        metrics: shared.metrics.clone(),
        keys: annotations.clone(),
        stop: shared.stop.clone(),
    };
    watches.start(&mut tasks.others);
    shared.start_leases(&mut tasks, client, lease.clone())?;
    shared.start_servers(&mut tasks, listeners, lease, kernel, events, endpoints);
    shared.until_stopped(tasks).await
}

/// The network configuration. etcd is asked until it has one; `None` when asked to stop before.
async fn network(config: &Config, stop: &CancellationToken) -> anyhow::Result<Option<NetConf>> {
    let settings = match &config.leases {
        LeaseSource::Kube(net) => return Ok(Some(net.clone())),
        LeaseSource::Etcd(settings) => settings,
    };
    let mut said = String::new();
    loop {
        let asked = tokio::select! {
            () = stop.cancelled() => return Ok(None),
            asked = etcd::network_config(settings) => asked,
        };
        let error = match asked {
            Ok(net) => return Ok(Some(net)),
            Err(error) => format!("{error:#}"),
        };
        if error != said {
            tracing::warn!(error, "no network configuration yet; trying again");
            said = error;
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(None),
            () = tokio::time::sleep(CONFIG_RETRY) => {}
        }
    }
}

fn stop_on_signals(stop: &CancellationToken) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("asked to stop; what is in the kernel stays");
        stop.cancel();
    });
    Ok(())
}

// === impl Listeners ===

impl Listeners {
    async fn bind(config: &Config) -> anyhow::Result<Self> {
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

// === impl Shared ===

impl Shared {
    fn new(config: Config, net: NetConf, stop: CancellationToken) -> anyhow::Result<Self> {
        let mut netlink = Netlink::open().context("netlink (CONFIG_NET)")?;
        let this_node = ThisNode {
            name: config.node_name.parse()?,
            addresses: host::addresses(&mut netlink).unwrap_or_else(|_| BTreeSet::new()),
        };
        let cluster = Cluster::new(this_node, net.networks().collect());
        let metrics = Arc::new(Metrics::default());
        metrics.identify(&config.node_name);
        let mut expected = vec![overlay::NAME, masquerade::NAME];
        if config.datapath == Datapath::Ebpf {
            expected.push(policy::NAME);
            if config.services {
                expected.push(services::NAME);
            }
        }
        Ok(Self {
            board: Arc::new(Board::new(expected, metrics.clone())),
            config: Arc::new(config),
            net,
            store: Arc::new(Store::new(cluster)),
            metrics,
            leases: watch::Sender::default(),
            stop,
        })
    }

    fn load_datapath(&self) -> anyhow::Result<Option<Ebpf>> {
        match self.config.datapath {
            Datapath::None => Ok(None),
            Datapath::Ebpf => {
                let ebpf = tokio::task::block_in_place(|| Ebpf::load(&self.config, &self.net));
                ebpf.context("eBPF data path").map(Some)
            }
        }
    }

    fn start_loop(
        &self,
        tasks: &mut Tasks,
        reconciler: impl Reconciler,
        nudges: Option<watch::Receiver<()>>,
    ) {
        tasks.loops.spawn(run(
            reconciler,
            self.store.subscribe(),
            self.config.resync,
            self.board.clone(),
            self.stop.clone(),
            nudges,
        ));
    }

    fn start_overlay(
        &self,
        tasks: &mut Tasks,
        lease: watch::Sender<Option<Lease>>,
    ) -> anyhow::Result<()> {
        let config = &self.config;
        let settings = OverlaySettings::of(config, self.net.clone());
        let nudges = nudges().context("netlink (CONFIG_NET)")?;
        self.start_loop(tasks, OverlayLoop::open(settings, lease)?, Some(nudges));
        let settings = MasqueradeSettings::of(config);
        let masquerade = MasqueradeLoop::open(&settings)
            .context("nftables (CONFIG_NF_TABLES): load the module nf_tables")?;
        self.start_loop(tasks, masquerade, None);
        Ok(())
    }

    /// Keeps this node's lease true, and in etcd follows those of others.
    fn start_leases(
        &self,
        tasks: &mut Tasks,
        client: kube::Client,
        lease: watch::Receiver<Option<Lease>>,
    ) -> anyhow::Result<()> {
        let config = &self.config;
        match &config.leases {
            LeaseSource::Kube(_) => {
                let leases = KubeLeases::new(
                    client,
                    &config.node_name,
                    config.annotations.clone(),
                    config.set_network_unavailable,
                );
                let snapshots = self.store.subscribe();
                let keep = lease::keep(leases, lease, snapshots, self.stop.clone());
                tasks.others.spawn(keep);
            }
            LeaseSource::Etcd(settings) => {
                let leases = EtcdLeases {
                    settings: settings.clone(),
                    pools: self.net.pools()?,
                    ttl: etcd::TTL,
                    previous: subnet_file::lease_in(&config.subnet_files),
                    node: config.node_name.clone(),
                    lease,
                    store: self.store.clone(),
                    report: self.leases.clone(),
                };
                // Until there is one, no Node object says which subnet this node has.
                self.store.set_leases(BTreeMap::new(), None);
                tasks.others.spawn(leases.keep(self.stop.clone()));
            }
        }
        Ok(())
    }

    fn start_datapath(
        &self,
        tasks: &mut Tasks,
        ebpf: &Ebpf,
        endpoints: &Arc<Endpoints>,
        in_force: watch::Sender<InForce>,
    ) -> anyhow::Result<()> {
        let observer = host::HostObserver::open(self.store.clone(), endpoints.clone())?;
        let policy = policy::PolicyLoop::new(
            ebpf.policy_maps()?,
            Box::new(observer),
            self.config.policy,
            ebpf.policy_tables.clone(),
            in_force,
        );
        self.start_loop(tasks, policy, None);
        if self.config.services {
            let tables = ebpf.service_tables.clone();
            let services = services::ServicesLoop::new(ebpf.service_maps()?, tables);
            self.start_loop(tasks, services, None);
        }
        Ok(())
    }

    fn start_servers(
        &self,
        tasks: &mut Tasks,
        listeners: Listeners,
        lease: watch::Receiver<Option<Lease>>,
        kernel: Arc<dyn KernelView>,
        events: Arc<EventHub>,
        endpoints: Arc<Endpoints>,
    ) {
        let (shown, metrics) = (kernel.clone(), self.metrics.clone());
        let health = Arc::new(Health {
            store: self.store.clone(),
            board: self.board.clone(),
            lease: lease.clone(),
            leases: self.leases.subscribe(),
            metrics: self.metrics.clone(),
            resync: self.config.resync,
            refresh: Box::new(move || shown.refresh(&metrics)),
        });
        let admin = Arc::new(Admin {
            config: self.config.clone(),
            health: health.clone(),
            lease,
            kernel,
            events,
            started: Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default(),
        });
        let routes = admin::router(admin).merge(endpoint::router(endpoints));
        tasks
            .others
            .spawn(serve_socket(listeners.socket, routes, self.stop.clone()));
        for listener in listeners.health {
            let routes = health_router(health.clone());
            tasks
                .others
                .spawn(serve_tcp(listener, routes, self.stop.clone()));
        }
        if let Some(listener) = listeners.metrics {
            tasks.others.spawn(serve_tcp(
                listener,
                metrics_router(health),
                self.stop.clone(),
            ));
        }
    }

    /// Waits for the stop, or for a loop that ends before it.
    async fn until_stopped(&self, mut tasks: Tasks) -> anyhow::Result<()> {
        while let Some(ended) = tasks.loops.join_next().await {
            ended.context("a loop was aborted")??;
            if !self.stop.is_cancelled() {
                anyhow::bail!("a loop ended without being asked to");
            }
        }
        let others = async { while tasks.others.join_next().await.is_some() {} };
        if tokio::time::timeout(GRACE, others).await.is_err() {
            tracing::debug!("some connections were still open");
        }
        Ok(())
    }
}
