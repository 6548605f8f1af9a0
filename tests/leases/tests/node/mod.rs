//! Nodes that hold leases in a real etcd: the daemon's lease task, without kernel and API server.
#![allow(dead_code, reason = "every test file uses some of it")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use agent::lease::etcd::{EtcdLeases, EtcdSettings, StoreReport, TTL};
use agent::lease::{Lease, Tenure};
use agent::store::Store;
use desired::cluster::{Announced, Backend, Cluster, Leases, ThisNode};
use desired::lease::attributes::VxlanData;
use desired::lease::{LeaseKey, Pool, Pools};
use desired::routes::Overlay;
use etcd_client::{Client, GetOptions};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use towline_leases::{Etcd, Proxy, Wire};

/// How long a condition may take to come true.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
pub(crate) const PREFIX: &str = "/coreos.com/network/subnets/";

/// A node; dropping it ends its task, as `kill -9` would.
pub(crate) struct Node {
    pub(crate) lease: watch::Sender<Option<Lease>>,
    pub(crate) store: Arc<Store>,
    pub(crate) report: watch::Receiver<StoreReport>,
    pub(crate) tenure: watch::Sender<Tenure>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// What a node is started with.
#[derive(Clone)]
pub(crate) struct Start {
    pub(crate) number: u8,
    pub(crate) mac: u8,
    pub(crate) pools: Pools,
    pub(crate) previous: Option<LeaseKey>,
    pub(crate) settings: EtcdSettings,
    pub(crate) ttl: i64,
    pub(crate) host_gw: bool,
}

impl Start {
    /// Node `number` of network 10.5.0.0/16.
    pub(crate) fn new(etcd: &Etcd, number: u8) -> Self {
        Self {
            number,
            mac: number,
            pools: pools("10.5.0.0/16"),
            previous: None,
            settings: settings(etcd),
            ttl: TTL,
            host_gw: false,
        }
    }

    /// With another MAC than the node of this number has.
    pub(crate) fn mac(mut self, mac: u8) -> Self {
        self.mac = mac;
        self
    }

    pub(crate) fn network(mut self, network: &str) -> Self {
        self.pools = pools(network);
        self
    }

    pub(crate) fn pools(mut self, v4: Pool, v6: Option<Pool>) -> Self {
        self.pools = Pools { v4, v6 };
        self
    }

    /// With leases that live `ttl` seconds after their node.
    pub(crate) fn ttl(mut self, ttl: i64) -> Self {
        self.ttl = ttl;
        self
    }

    pub(crate) fn through(mut self, proxy: &Proxy) -> Self {
        self.settings.endpoints = vec![proxy.endpoint()];
        self
    }

    pub(crate) fn on(mut self, wire: &Wire) -> Self {
        self.settings.endpoints = vec![wire.endpoint()];
        self
    }

    /// With a backend that has no MAC.
    pub(crate) fn host_gw(mut self) -> Self {
        self.host_gw = true;
        self
    }

    pub(crate) fn previous(mut self, key: &str) -> Self {
        self.previous = Some(key.parse().unwrap());
        self
    }

    pub(crate) fn run(self) -> Node {
        let this_node = ThisNode {
            name: format!("n{}", self.number).parse().unwrap(),
            addresses: BTreeSet::new(),
        };
        let store = Arc::new(Store::new(Cluster::new(this_node, Vec::new())));
        let mut announced = lease(self.number, self.mac);
        if self.host_gw {
            announced.announced.backend = Backend::HostGw;
        }
        let (lease, lease_out) = watch::channel(Some(announced));
        let tenure = watch::Sender::default();
        let (report_in, report) = watch::channel(StoreReport::default());
        let leases = EtcdLeases {
            settings: self.settings,
            pools: self.pools,
            ttl: self.ttl,
            previous: self.previous,
            node: format!("n{}", self.number),
            lease: lease_out,
            store: store.clone(),
            tenure: tenure.clone(),
            report: report_in,
        };
        let stop = CancellationToken::new();
        let task = tokio::spawn(leases.keep(stop.clone()));
        Node {
            lease,
            store,
            report,
            tenure,
            stop,
            task,
        }
    }
}

impl Node {
    /// Waits for a snapshot of which `what` is true.
    #[track_caller]
    pub(crate) fn until(
        &self,
        what: impl Fn(&Cluster) -> bool,
    ) -> impl Future<Output = Arc<Cluster>> {
        let mut snapshots = self.store.subscribe();
        let place = std::panic::Location::caller();
        async move {
            let found = tokio::time::timeout(LIMIT, snapshots.wait_for(|c| what(c))).await;
            let found = found.ok().map(|found| found.unwrap().clone());
            found.unwrap_or_else(|| panic!("{place}: not in time; {:?}", snapshots.borrow().leases))
        }
    }

    /// Waits until it knows of so many leases.
    #[track_caller]
    pub(crate) fn sees(&self, count: usize) -> impl Future<Output = Arc<Cluster>> {
        self.until(move |cluster| known(cluster).len() == count)
    }

    /// Waits until it holds a lease or has said why not.
    pub(crate) async fn until_settled(&self) {
        tokio::select! {
            _ = self.held() => {}
            _ = self.reports(|report| report.obstacle.is_some()) => {}
        }
    }

    /// Waits until it holds a lease, and returns it.
    pub(crate) async fn held(&self) -> LeaseKey {
        let cluster = self.until(|cluster| own(cluster).is_some()).await;
        own(&cluster).unwrap()
    }

    /// Waits until the store says `what` is true of its report.
    #[track_caller]
    pub(crate) fn reports(
        &self,
        what: impl Fn(&StoreReport) -> bool,
    ) -> impl Future<Output = StoreReport> {
        let mut report = self.report.clone();
        let place = std::panic::Location::caller();
        async move {
            let found = tokio::time::timeout(LIMIT, report.wait_for(|r| what(r))).await;
            let found = found.ok().map(|found| found.unwrap().clone());
            found.unwrap_or_else(|| panic!("{place}: not in time; {:?}", *report.borrow()))
        }
    }

    /// Gives its lease back, as an administrator asks.
    pub(crate) async fn release(&self) {
        self.tenure.send_replace(Tenure::GivingBack);
        let mut tenure = self.tenure.subscribe();
        let given = tenure.wait_for(|tenure| *tenure == Tenure::GivenBack);
        let given = tokio::time::timeout(LIMIT, given).await;
        assert!(given.is_ok(), "not given back in time");
    }

    /// Whether its task still runs: nothing that etcd does ends it.
    pub(crate) fn runs(&self) -> bool {
        !self.task.is_finished()
    }

    /// Ends it as SIGTERM does.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        while !self.task.is_finished() {
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A condition of what etcd holds.
pub(crate) async fn until<T>(
    client: &mut Client,
    what: impl Fn(&[(String, String, bool)]) -> Option<T>,
) -> T {
    let begun = tokio::time::Instant::now();
    loop {
        let held = stored(client).await;
        if let Some(found) = what(&held) {
            return found;
        }
        assert!(begun.elapsed() < LIMIT, "not in time; {held:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) fn pool(network: &str, len: u8) -> Pool {
    Pool::new(network.parse().unwrap(), Some(len), None, None).unwrap()
}

pub(crate) fn pools(network: &str) -> Pools {
    Pools {
        v4: Pool::new(network.parse().unwrap(), None, None, None).unwrap(),
        v6: None,
    }
}

pub(crate) fn settings(etcd: &Etcd) -> EtcdSettings {
    EtcdSettings {
        endpoints: etcd.endpoints(),
        prefix: "/coreos.com/network".to_owned(),
        ..EtcdSettings::default()
    }
}

/// What a node with address 192.0.2.`ip` and MAC 02:00:00:00:00:`mac` has set up.
pub(crate) fn lease(ip: u8, mac: u8) -> Lease {
    let data = VxlanData {
        vni: 1.try_into().unwrap(),
        vtep_mac: format!("02:00:00:00:00:{mac:02x}").parse().unwrap(),
    };
    Lease {
        subnets: Vec::new(),
        announced: Announced {
            public_ip: format!("192.0.2.{ip}").parse().ok(),
            public_ipv6: None,
            backend: Backend::Vxlan {
                v4: Some(data),
                v6: None,
            },
        },
        overlay: Overlay::default(),
        mtu: 1450.try_into().unwrap(),
    }
}

/// The value that such a node writes.
pub(crate) fn value(ip: u8, mac: u8) -> String {
    format!(
        r#"{{"PublicIP":"192.0.2.{ip}","PublicIPv6":null,"BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"02:00:00:00:00:{mac:02x}"}}}}"#
    )
}

/// This node's lease.
pub(crate) fn own(cluster: &Cluster) -> Option<LeaseKey> {
    match &cluster.leases {
        Leases::InStore { own, .. } => *own,
        Leases::OnNodes => None,
    }
}

/// The names of all leases that a node knows.
pub(crate) fn known(cluster: &Cluster) -> Vec<String> {
    match &cluster.leases {
        Leases::InStore { held, .. } => held.keys().map(ToString::to_string).collect(),
        Leases::OnNodes => vec![],
    }
}

/// What etcd holds under the leases' prefix: name, value, whether it expires.
pub(crate) async fn stored(client: &mut Client) -> Vec<(String, String, bool)> {
    let options = GetOptions::new().with_prefix();
    let found = client.get(PREFIX, Some(options)).await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let pairs = found.kvs().iter();
    pairs
        .map(|pair| {
            let name = text(pair.key()).replace(PREFIX, "");
            (name, text(pair.value()), pair.lease() != 0)
        })
        .collect()
}
