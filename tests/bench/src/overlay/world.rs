//! Nodes in network namespaces of their own, on one bridge with a real etcd. Nobody else has a handle
//! on any of it: it is gone when this is, however the benchmark ends.

use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, ensure};
use etcd_client::{Client, DeleteOptions, GetOptions, PutOptions, Txn, TxnOp};
use hostnet::{FdbTarget, NeighbourTarget, Netlink, Netns, RouteTarget};
use ipnetwork::{IpNetwork, Ipv4Network};
use leases::requests::{Requests, requests};
use leases::{Etcd, Settings};
use netstate::{Address, IfName, Link, LinkKind, Target as _, VethPeer};
use nix::sched::{CloneFlags, unshare};
use tokio::runtime::Runtime;

use super::peers::{CONFIG, DEVICE, Entries, PREFIX, Peer};
use super::towlined::Towlined;
use crate::command::run;

/// Longest that anything may take at all.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
/// Where etcd listens, on the bridge.
const UNDERLAY: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 1);
/// Operations of one transaction, of which etcd takes 128.
const AT_ONCE: usize = 100;

/// The underlay with its etcd, and the nodes.
pub(crate) struct World {
    runtime: Runtime,
    etcd: Etcd,
    client: Client,
    pub(crate) nodes: Vec<Node>,
}

/// A node, on which a daemon may run.
pub(crate) struct Node {
    name: String,
    address: Ipv4Addr,
    pub(crate) netns: Netns,
    netlink: Netlink,
    routes: RouteTarget,
    neighbours: NeighbourTarget,
    fdb: FdbTarget,
    folder: tempfile::TempDir,
}

/// Runs `work` on a thread with a namespace of its own for an underlay.
///
/// # Errors
/// When the kernel refuses (root is needed), or `work` fails.
pub(crate) fn apart<T: Send>(work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
    let within = || {
        unshare(CloneFlags::CLONE_NEWNET).context("make a network namespace; it needs root")?;
        work()
    };
    let ended = std::thread::scope(|scope| scope.spawn(within).join());
    ended.unwrap_or_else(|_| Err(anyhow!("the benchmark panicked")))
}

/// A namespace that lives as long as the value.
pub(crate) fn new_namespace() -> anyhow::Result<Netns> {
    apart(|| Ok(Netns::current()?))
}

// === impl World ===

impl World {
    /// A bridge with an etcd and `count` nodes, in the calling thread's namespace.
    ///
    /// # Errors
    /// When etcd is not installed, or the kernel refuses.
    pub(crate) fn new(count: u16) -> anyhow::Result<Self> {
        let mut netlink = Netlink::open()?;
        netlink.set_up(&"lo".parse()?)?;
        let bridge: IfName = "underlay".parse()?;
        netlink.create_link(&Link::new(bridge.clone(), LinkKind::Bridge).up())?;
        netlink.add_address(&bridge, &Address::new(within(UNDERLAY)?))?;
        let nodes = (1..=count).map(|number| Node::new(&mut netlink, &bridge, number));
        let nodes = nodes.collect::<anyhow::Result<Vec<Node>>>()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let settings = Settings {
            address: Some(UNDERLAY),
            ..Settings::default()
        };
        let (etcd, client) = runtime.block_on(async {
            let etcd = Etcd::start_with(1, settings).await?;
            let mut client = etcd.client(0).await?;
            client
                .put("/coreos.com/network/config", CONFIG, None)
                .await?;
            anyhow::Ok((etcd, client))
        })?;
        Ok(Self {
            runtime,
            etcd,
            client,
            nodes,
        })
    }

    /// Where etcd is.
    pub(crate) fn url(&self) -> String {
        self.etcd.endpoints().swap_remove(0)
    }

    /// What etcd has been asked so far.
    ///
    /// # Errors
    /// When it does not say.
    pub(crate) fn requests(&self) -> anyhow::Result<Requests> {
        self.runtime.block_on(requests(&self.url()))
    }

    /// Writes the keys of `peers`.
    ///
    /// # Errors
    /// When etcd refuses.
    pub(crate) fn put(&mut self, peers: &[Peer]) -> anyhow::Result<()> {
        for some in peers.chunks(AT_ONCE) {
            let puts = some
                .iter()
                .map(|peer| TxnOp::put(peer.key(), peer.value(), None::<PutOptions>));
            let txn = Txn::new().and_then(puts.collect::<Vec<_>>());
            self.runtime.block_on(self.client.txn(txn))?;
        }
        Ok(())
    }

    /// Writes one peer's key, as its node does.
    ///
    /// # Errors
    /// When etcd refuses.
    pub(crate) fn put_one(&mut self, peer: Peer) -> anyhow::Result<()> {
        let put = self.client.put(peer.key(), peer.value(), None);
        self.runtime.block_on(put)?;
        Ok(())
    }

    /// Deletes one peer's key.
    ///
    /// # Errors
    /// When etcd refuses.
    pub(crate) fn delete_one(&mut self, peer: Peer) -> anyhow::Result<()> {
        let delete = self.client.delete(peer.key(), None::<DeleteOptions>);
        self.runtime.block_on(delete)?;
        Ok(())
    }

    /// How many leases there are.
    ///
    /// # Errors
    /// When etcd refuses.
    pub(crate) fn leases(&mut self) -> anyhow::Result<usize> {
        let options = GetOptions::new().with_prefix().with_count_only();
        let found = self.client.get(PREFIX, Some(options));
        Ok(usize::try_from(self.runtime.block_on(found)?.count())?)
    }

    /// Deletes the leases of node `at`, of which there is one once it has joined.
    ///
    /// # Errors
    /// When etcd refuses, or there is none.
    pub(crate) fn forget(&mut self, at: usize) -> anyhow::Result<()> {
        let mine = format!("\"{}\"", self.nodes[at].address);
        let options = GetOptions::new().with_prefix();
        let client = &mut self.client;
        let deleted = self.runtime.block_on(async {
            let found = client.get(PREFIX, Some(options)).await?;
            let own = found.kvs().iter();
            let own = own.filter(|pair| String::from_utf8_lossy(pair.value()).contains(&mine));
            let mut deleted = 0;
            for pair in own {
                client.delete(pair.key(), None).await?;
                deleted += 1;
            }
            anyhow::Ok(deleted)
        })?;
        ensure!(deleted == 1, "{deleted} leases of {mine}");
        Ok(())
    }

    /// Starts the daemon on node `at`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn start(&self, at: usize, program: &Path) -> anyhow::Result<Towlined> {
        let node = &self.nodes[at];
        let folder = node.folder();
        Towlined::start(program, &node.netns, &node.name, &folder, &self.url())
    }
}

// === impl Node ===

impl Node {
    fn new(underlay: &mut Netlink, bridge: &IfName, number: u16) -> anyhow::Result<Self> {
        let netns = new_namespace()?;
        let [high, low] = (number + 1).to_be_bytes();
        let address = Ipv4Addr::new(172, 30, high, low);
        let uplink: IfName = "eth0".parse()?;
        let open = netns.as_fd().as_raw_fd();
        let peer = VethPeer {
            name: uplink.clone(),
            netns: Some(format!("/proc/self/fd/{open}").parse()?),
            mac: None,
        };
        let mut port = Link::new(format!("n{number}").parse()?, LinkKind::Veth(peer)).up();
        port.master = Some(bridge.clone());
        underlay.create_link(&port)?;
        let mut netlink = Netlink::open_in(&netns)?;
        netlink.set_up(&"lo".parse()?)?;
        netlink.set_up(&uplink)?;
        netlink.add_address(&uplink, &Address::new(within(address)?))?;
        let device: IfName = DEVICE.parse()?;
        Ok(Self {
            name: format!("n{number}"),
            address,
            routes: RouteTarget::new(Netlink::open_in(&netns)?),
            neighbours: NeighbourTarget::new(Netlink::open_in(&netns)?, device.clone()),
            fdb: FdbTarget::new(Netlink::open_in(&netns)?, device),
            netlink,
            netns,
            folder: tempfile::tempdir()?,
        })
    }

    fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// Everything that the kernel has for peers.
    ///
    /// # Errors
    /// When it does not tell.
    pub(crate) fn entries(&mut self) -> anyhow::Result<Entries> {
        Ok(Entries {
            routes: self.routes.observe()?,
            neighbours: self.neighbours.observe()?,
            fdb: self.fdb.observe()?,
        })
    }

    /// Waits until the kernel has exactly `wanted`; the time since `begun` when that was certain.
    ///
    /// # Errors
    /// When it has not in time, or the daemon has ended.
    pub(crate) fn becomes(
        &mut self,
        wanted: &Entries,
        begun: Instant,
        daemon: &mut Towlined,
    ) -> anyhow::Result<Duration> {
        loop {
            let found = self.entries()?;
            let took = begun.elapsed();
            if found == *wanted {
                return Ok(took);
            }
            daemon.runs()?;
            let (has, of) = (found.len(), wanted.len());
            ensure!(took < LIMIT, "{has} of {of} entries: {}", daemon.said());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Runs a line of words on this node.
    ///
    /// # Errors
    /// As [`run`].
    pub(crate) fn run(&self, line: &str) -> anyhow::Result<String> {
        self.netns.run_in(|| run(line))?
    }

    /// Makes it a node that has never run a daemon, once that has ended.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn wipe(&mut self) -> anyhow::Result<()> {
        self.netlink.delete_link(&DEVICE.parse()?)?;
        self.folder = tempfile::tempdir()?;
        self.run("nft flush ruleset")?;
        Ok(())
    }
}

/// `address` on the underlay.
fn within(address: Ipv4Addr) -> anyhow::Result<IpNetwork> {
    Ok(IpNetwork::V4(Ipv4Network::new(address, 16)?))
}
