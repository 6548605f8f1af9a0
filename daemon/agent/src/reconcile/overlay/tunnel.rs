//! One overlay device with everything that hangs on it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use desired::routes::RouteTables;
use hostnet::wireguard::Wireguard;
use hostnet::{FdbTarget, NeighbourTarget, Netlink, WireguardDeviceTarget, WireguardPeerTarget};
use ipnetwork::IpNetwork;
use netstate::wireguard::{Key, Peer, PeerKey};
use netstate::{FdbKey, IfName, Kept, MacAddr, NeighbourKey, Report, Stage, Wanted, reconcile};

use super::plan::Device;
use crate::config::{BackendConf, WireguardConf};
use crate::datapath::{Difference, differences};
use crate::reconcile::overlay_device::{
    AddressTarget, ChecksumTarget, SysctlTarget, VtepTarget, vtep_address,
};
use crate::reconcile::run::merge;

/// The tables of an overlay device.
pub(super) struct Tunnel {
    pub(super) name: IfName,
    pub(super) v4: bool,
    device: Kept<VtepTarget>,
    addresses: Kept<AddressTarget>,
    sysctls: Kept<SysctlTarget>,
    behind: Behind,
}

/// What tells a device where its peers are.
enum Behind {
    /// Neighbours and forwarding entries.
    Vxlan {
        neighbours: Kept<NeighbourTarget>,
        fdb: Kept<FdbTarget>,
        checksum: Kept<ChecksumTarget>,
    },
    /// Routes alone.
    Ipip,
    /// The device itself.
    Wireguard {
        device: Kept<WireguardDeviceTarget>,
        peers: Kept<WireguardPeerTarget>,
        preshared_key: Option<Key>,
        keepalive: u16,
    },
}

// === impl Behind ===

impl Behind {
    fn open(name: &IfName, backend: &BackendConf) -> hostnet::Result<Self> {
        let device = || name.clone();
        Ok(match backend {
            BackendConf::Wireguard(WireguardConf {
                preshared_key,
                keepalive,
                ..
            }) => Self::Wireguard {
                device: Kept::new(WireguardDeviceTarget::new(Wireguard::open()?, device())),
                peers: Kept::new(WireguardPeerTarget::new(Wireguard::open()?, device())),
                preshared_key: *preshared_key,
                keepalive: *keepalive,
            },
            BackendConf::Vxlan(_) => Self::Vxlan {
                neighbours: Kept::new(NeighbourTarget::new(Netlink::open()?, device())),
                fdb: Kept::new(FdbTarget::new(Netlink::open()?, device())),
                checksum: Kept::new(ChecksumTarget::new(Netlink::open()?, device())),
            },
            BackendConf::Ipip { .. } | BackendConf::HostGw | BackendConf::Alloc => Self::Ipip,
        })
    }
}

// === impl Tunnel ===

impl Tunnel {
    pub(super) fn open(name: IfName, v4: bool, backend: &BackendConf) -> hostnet::Result<Self> {
        let sysctls = SysctlTarget::for_overlay(&name).into_keys().collect();
        Ok(Self {
            v4,
            device: Kept::new(VtepTarget::new(Netlink::open()?, name.clone())),
            addresses: Kept::new(AddressTarget::new(Netlink::open()?, name.clone(), v4)),
            sysctls: Kept::new(SysctlTarget::new(sysctls)),
            behind: Behind::open(&name, backend)?,
            name,
        })
    }

    /// The MAC of the device that is there.
    pub(super) fn mac(&mut self) -> hostnet::Result<Option<MacAddr>> {
        self.device.inner().mac()
    }

    /// Whether the device was taken away and made anew by us. What was on it is nobody's change, then.
    pub(super) fn take_remade(&mut self) -> bool {
        let remade = self.device.inner().take_remade();
        if remade {
            self.addresses.forget();
            self.sysctls.forget();
            match &mut self.behind {
                Behind::Vxlan {
                    neighbours,
                    fdb,
                    checksum,
                } => {
                    neighbours.forget();
                    fdb.forget();
                    checksum.forget();
                }
                Behind::Wireguard { device, peers, .. } => {
                    device.forget();
                    peers.forget();
                }
                Behind::Ipip => {}
            }
        }
        remade
    }

    /// The device itself.
    pub(super) fn set_up(&mut self, wanted: &Device) -> Report {
        let vteps = BTreeMap::from([(self.name.clone(), wanted.vtep.clone())]);
        let mut device = Wanted::new("overlay-device", &mut self.device, &vteps);
        let mut report = reconcile(&mut [&mut device]);
        if !report.errors.is_empty() {
            return report;
        }
        match &mut self.behind {
            Behind::Vxlan { checksum, .. } => {
                if let Some(on) = wanted.tx_checksum {
                    let wanted = BTreeMap::from([(self.name.clone(), on)]);
                    let mut checksum = Wanted::new("tx-checksum", checksum, &wanted);
                    merge(&mut report, reconcile(&mut [&mut checksum]));
                }
            }
            Behind::Wireguard { device, .. } => {
                let own = wanted.wireguard.map(|own| (self.name.clone(), own));
                let own = own.into_iter().collect();
                let mut device = Wanted::new("wireguard-device", device, &own);
                merge(&mut report, reconcile(&mut [&mut device]));
            }
            Behind::Ipip => {}
        }
        report
    }

    /// Where it differs from `wanted`, and what hangs on it from what the subnet and the peers ask
    /// for, without changing anything.
    pub(super) fn differences(
        &mut self,
        wanted: &Device,
        filled: Option<(IpNetwork, &RouteTables)>,
    ) -> anyhow::Result<Vec<Difference>> {
        let name = self.name.clone();
        let vteps = BTreeMap::from([(name.clone(), wanted.vtep.clone())]);
        let mut all = differences("overlay-device", self.device.inner(), &vteps)?;
        let Some((subnet, tables)) = filled.filter(|_| all.is_empty()) else {
            return Ok(all);
        };
        let addresses = BTreeMap::from([(vtep_address(subnet), ())]);
        let found = differences("overlay-address", self.addresses.inner(), &addresses)?;
        all.extend(found);
        let sysctls = SysctlTarget::for_overlay(&name);
        all.extend(differences("sysctl", self.sysctls.inner(), &sysctls)?);
        match &mut self.behind {
            Behind::Vxlan {
                neighbours,
                fdb,
                checksum,
            } => {
                let (wanted_neighbours, wanted_fdb) = peers_of(&name, tables);
                all.extend(differences(
                    "neighbours",
                    neighbours.inner(),
                    &wanted_neighbours,
                )?);
                all.extend(differences("fdb", fdb.inner(), &wanted_fdb)?);
                if let Some(on) = wanted.tx_checksum {
                    let wanted = BTreeMap::from([(name, on)]);
                    all.extend(differences("tx-checksum", checksum.inner(), &wanted)?);
                }
            }
            Behind::Wireguard {
                device,
                peers,
                preshared_key,
                keepalive,
            } => {
                let own = wanted.wireguard.map(|own| (name.clone(), own));
                let own = own.into_iter().collect();
                all.extend(differences("wireguard-device", device.inner(), &own)?);
                let wanted = wireguard_peers(&name, tables, *preshared_key, *keepalive);
                all.extend(differences("wireguard-peers", peers.inner(), &wanted)?);
            }
            Behind::Ipip => {}
        }
        Ok(all)
    }

    /// What it must hold: its address and kernel parameters, and the peers behind it.
    pub(super) fn content(&self, subnet: IpNetwork, tables: &RouteTables) -> Content {
        let (neighbours, fdb) = match self.behind {
            Behind::Vxlan { .. } => peers_of(&self.name, tables),
            Behind::Wireguard { .. } | Behind::Ipip => Peers::default(),
        };
        let wireguard = match &self.behind {
            Behind::Wireguard {
                preshared_key,
                keepalive,
                ..
            } => wireguard_peers(&self.name, tables, *preshared_key, *keepalive),
            Behind::Vxlan { .. } | Behind::Ipip => BTreeMap::new(),
        };
        Content {
            addresses: BTreeMap::from([(vtep_address(subnet), ())]),
            sysctls: SysctlTarget::for_overlay(&self.name),
            neighbours,
            fdb,
            wireguard,
        }
    }

    /// The tables that shall hold `content`, in an order in which nothing leads to what is not there:
    /// a MAC has a remote before a neighbour has that MAC.
    pub(super) fn stages<'a>(&'a mut self, content: &'a Content) -> Vec<Box<dyn Stage + 'a>> {
        let addresses = Wanted::new("overlay-address", &mut self.addresses, &content.addresses);
        let sysctls = Wanted::new("sysctl", &mut self.sysctls, &content.sysctls);
        let mut stages: Vec<Box<dyn Stage + 'a>> = vec![Box::new(addresses), Box::new(sysctls)];
        match &mut self.behind {
            Behind::Vxlan {
                neighbours, fdb, ..
            } => {
                stages.push(Box::new(Wanted::new("fdb", fdb, &content.fdb)));
                let neighbours = Wanted::new("neighbours", neighbours, &content.neighbours);
                stages.push(Box::new(neighbours));
            }
            Behind::Wireguard { peers, .. } => {
                let peers = Wanted::new("wireguard-peers", peers, &content.wireguard);
                stages.push(Box::new(peers));
            }
            Behind::Ipip => {}
        }
        stages
    }
}

/// What a tunnel's tables must hold.
pub(super) struct Content {
    addresses: BTreeMap<IpNetwork, ()>,
    sysctls: BTreeMap<String, String>,
    neighbours: BTreeMap<NeighbourKey, MacAddr>,
    fdb: BTreeMap<FdbKey, IpAddr>,
    wireguard: BTreeMap<PeerKey, Peer>,
}

/// Neighbours and forwarding entries of a device, as the Targets take them.
pub(crate) type Peers = (BTreeMap<NeighbourKey, MacAddr>, BTreeMap<FdbKey, IpAddr>);

/// What `device` must hold of `tables`.
pub(crate) fn peers_of(device: &IfName, tables: &RouteTables) -> Peers {
    let neighbours = tables.neighbours.values();
    let neighbours = neighbours.filter(|one| one.key.device == *device);
    let fdb = tables.fdb.values().filter(|one| one.key.device == *device);
    (
        neighbours.map(|one| (one.key.clone(), one.mac)).collect(),
        fdb.map(|one| (one.key.clone(), one.remote)).collect(),
    )
}

/// The peers that a WireGuard device must have, with what all of them have in common.
fn wireguard_peers(
    device: &IfName,
    tables: &RouteTables,
    preshared_key: Option<Key>,
    keepalive: u16,
) -> BTreeMap<PeerKey, Peer> {
    let of_device = tables
        .wireguard
        .iter()
        .filter(|(key, _)| key.device == *device);
    let peers = of_device.map(|(key, peer)| {
        let peer = Peer {
            endpoint: peer.endpoint,
            allowed: peer.allowed.clone(),
            preshared_key,
            keepalive,
        };
        (key.clone(), peer)
    });
    peers.collect()
}
