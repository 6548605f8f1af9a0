//! Puts the parts together and runs them until somebody asks to stop.

mod front;
mod leases;
mod listeners;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use desired::cluster::{Cluster, ThisNode};
use hostnet::Netlink;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::front::{Front, Inside};
use self::leases::{api_client, network};
use self::listeners::Listeners;
use crate::admin::{self, Admin, EventHub, Features, Release};
use crate::board::Board;
use crate::config::{Config, Datapath, NetConf};
use crate::datapath::{Ebpf, HostView, KernelView, OverlayView};
use crate::endpoint::{self, Endpoints, InForce, Registry};
use crate::findings::Findings;
use crate::health::{Health, health_router, metrics_router};
use crate::host;
use crate::lease::{Ages, Lease, StoreReport, Tenure};
use crate::metrics::Metrics;
use crate::notify::{self, Notifier};
use crate::reconcile::masquerade::{self, MasqueradeLoop, MasqueradeSettings};
use crate::reconcile::overlay::{self, OverlayLoop, OverlaySettings};
use crate::reconcile::{Gate, Panicked, Reconciler, nudges, policy, run, services};
use crate::store::Store;
use crate::subnet_file::SubnetFiles;
use crate::watch::Watches;

/// How long loops may take to end their passes once asked to stop.
const GRACE: Duration = Duration::from_secs(5);

/// What the parts share.
struct Shared {
    config: Arc<Config>,
    net: NetConf,
    store: Arc<Store>,
    metrics: Arc<Metrics>,
    board: Arc<Board>,
    leases: watch::Sender<StoreReport>,
    findings: watch::Sender<Findings>,
    tenure: watch::Sender<Tenure>,
    /// Before the overlay's tables.
    gate: Gate,
    stop: CancellationToken,
}

/// What there is before anything else.
struct Given {
    config: Arc<Config>,
    net: NetConf,
    metrics: Arc<Metrics>,
    findings: watch::Sender<Findings>,
    stop: CancellationToken,
}

/// What the API shows, beside what is shared.
struct Shown {
    lease: watch::Sender<Option<Lease>>,
    overlay: OverlayView,
    kernel: Arc<dyn KernelView>,
    events: Arc<EventHub>,
    endpoints: Arc<Endpoints>,
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
    let notifier = Notifier::from_env();
    stop_on_signals(&stop, &notifier)?;
    let listeners = Listeners::bind(&config).await?;
    let config = Arc::new(config);
    let findings = watch::Sender::default();
    let client = api_client(&config, &findings).await?;
    let metrics = Arc::new(Metrics::default());
    metrics.identify(&config.node_name);
    let mut tasks = Tasks::default();
    let front = Front::new(config.clone(), metrics.clone());
    front.serve(listeners, &mut tasks.others, &stop);
    let Some(net) = network(&config, &front, &notifier, &stop).await? else {
        return Ok(());
    };
    for key in &net.ignored {
        tracing::warn!(key, "a key of the network configuration means nothing here");
    }
    front.waits_for("the data path to be loaded");
    let given = Given {
        config,
        net,
        metrics,
        findings,
        stop,
    };
    let shared = Shared::new(given, client.is_some())?;
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

    let overlay = shared.start_overlay(&mut tasks, lease_in.clone())?;
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
    if let Some(client) = client.clone() {
        let watches = Watches {
            client,
            store: shared.store.clone(),
            metrics: shared.metrics.clone(),
            findings: shared.findings.clone(),
            keys: shared.config.annotations.clone(),
            stop: shared.stop.clone(),
        };
        watches.start(&mut tasks.others);
    }
    shared.start_leases(&mut tasks, client, lease)?;
    let shown = Shown {
        lease: lease_in,
        overlay,
        kernel,
        events,
        endpoints,
    };
    let health = shared.open(&mut tasks, &front, shown);
    let follow = notify::follow(notifier, health, shared.stop.clone());
    tasks.others.spawn(follow);
    shared.until_stopped(tasks).await
}

fn stop_on_signals(stop: &CancellationToken, notifier: &Notifier) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (stop, notifier) = (stop.clone(), notifier.clone());
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("asked to stop; what is in the kernel stays");
        notifier.send("STOPPING=1\nSTATUS=stopping; what is in the kernel stays");
        stop.cancel();
    });
    Ok(())
}

// === impl Shared ===

impl Shared {
    fn new(given: Given, has_api: bool) -> anyhow::Result<Self> {
        let Given {
            config,
            net,
            metrics,
            findings,
            stop,
        } = given;
        let mut netlink = Netlink::open().context("netlink (CONFIG_NET)")?;
        let this_node = ThisNode {
            name: config.node_name.parse()?,
            addresses: host::addresses(&mut netlink).unwrap_or_else(|_| BTreeSet::new()),
        };
        let cluster = Cluster::new(this_node, net.networks().collect());
        let mut expected = vec![overlay::NAME, masquerade::NAME];
        if config.datapath == Datapath::Ebpf {
            expected.push(policy::NAME);
            if config.services {
                expected.push(services::NAME);
            }
        }
        Ok(Self {
            board: Arc::new(Board::new(expected, metrics.clone())),
            store: Arc::new(leases::store(&config, cluster, has_api)),
            config,
            net,
            metrics,
            findings,
            leases: watch::Sender::default(),
            tenure: watch::Sender::default(),
            gate: Gate::default(),
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
    ) -> anyhow::Result<OverlayView> {
        let settings = OverlaySettings::of(&self.config, self.net.clone());
        let overlay = OverlayLoop::open(settings, lease)?;
        let changes = overlay.changes().context("netlink (CONFIG_NET)")?;
        let overlay = self.gate.before(overlay);
        let settings = MasqueradeSettings::of(&self.config);
        let masquerade = MasqueradeLoop::open(&settings)
            .context("nftables (CONFIG_NF_TABLES): load the module nf_tables")?;
        let masquerade = self.gate.before(masquerade);
        let view = OverlayView {
            overlay: overlay.inner(),
            masquerade: masquerade.inner(),
        };
        let nudges = nudges(changes).context("a thread for netlink")?;
        self.start_loop(tasks, overlay, Some(nudges));
        self.start_loop(tasks, masquerade, None);
        Ok(view)
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

    /// Lets everything be asked that there is to be shown.
    fn open(&self, tasks: &mut Tasks, front: &Front, shown: Shown) -> Arc<Health> {
        let Shown {
            lease: overlay,
            overlay: view,
            kernel,
            events,
            endpoints,
        } = shown;
        let lease = overlay.subscribe();
        let (shown, metrics) = (kernel.clone(), self.metrics.clone());
        let health = Arc::new(Health {
            store: self.store.clone(),
            board: self.board.clone(),
            lease: lease.clone(),
            leases: self.leases.subscribe(),
            findings: self.findings.subscribe(),
            tenure: self.tenure.subscribe(),
            services: Features::of(&self.config).services,
            metrics: self.metrics.clone(),
            resync: self.config.resync,
            refresh: Box::new(move || shown.refresh(&metrics)),
        });
        let admin = Arc::new(Admin {
            config: self.config.clone(),
            health: health.clone(),
            lease,
            kernel,
            release: Release {
                tenure: self.tenure.clone(),
                gate: self.gate.clone(),
                net: self.net.clone(),
                subnet_files: SubnetFiles::new(self.config.subnet_files.clone()),
                rules: Some(view.masquerade.clone()),
                overlay,
            },
            overlay: Some(view),
            ages: self.start_ages(tasks),
            events,
            started: front.started,
        });
        front.open(Inside {
            socket: admin::router(admin).merge(endpoint::router(endpoints)),
            health: health_router(health.clone()),
            metrics: metrics_router(health.clone()),
        });
        health
    }

    /// Notes from now on when leases came.
    fn start_ages(&self, tasks: &mut Tasks) -> Arc<Ages> {
        let ages = Arc::new(Ages::default());
        let follow = ages
            .clone()
            .follow(self.store.subscribe(), self.stop.clone());
        tasks.others.spawn(follow);
        ages
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
