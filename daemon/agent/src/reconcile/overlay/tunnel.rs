//! One overlay device with everything that hangs on it.

use std::collections::BTreeMap;

use desired::routes::RouteTables;
use hostnet::{FdbTarget, NeighbourTarget, Netlink};
use ipnetwork::IpNetwork;
use netstate::{IfName, MacAddr, Report, Wanted, reconcile};

use super::plan::Device;
use crate::reconcile::overlay_device::{AddressTarget, SysctlTarget, VtepTarget, vtep_address};
use crate::reconcile::run::merge;

/// The tables of a VXLAN device.
pub(super) struct Tunnel {
    pub(super) name: IfName,
    pub(super) v4: bool,
    device: VtepTarget,
    addresses: AddressTarget,
    sysctls: SysctlTarget,
    neighbours: NeighbourTarget,
    fdb: FdbTarget,
}

// === impl Tunnel ===

impl Tunnel {
    pub(super) fn open(name: IfName, v4: bool) -> hostnet::Result<Self> {
        let sysctls = SysctlTarget::for_overlay(&name, v4).into_keys().collect();
        Ok(Self {
            v4,
            device: VtepTarget::new(Netlink::open()?, name.clone()),
            addresses: AddressTarget::new(Netlink::open()?, name.clone(), v4),
            sysctls: SysctlTarget::new(sysctls),
            neighbours: NeighbourTarget::new(Netlink::open()?, name.clone()),
            fdb: FdbTarget::new(Netlink::open()?, name.clone()),
            name,
        })
    }

    /// The MAC of the device that is there.
    pub(super) fn mac(&mut self) -> hostnet::Result<Option<MacAddr>> {
        self.device.mac()
    }

    /// The device itself.
    pub(super) fn set_up(&mut self, wanted: &Device) -> Report {
        let wanted = BTreeMap::from([(self.name.clone(), wanted.vtep.clone())]);
        let mut device = Wanted::new("overlay-device", &mut self.device, &wanted);
        reconcile(&mut [&mut device])
    }

    /// Its address and kernel parameters, and the peers behind it.
    pub(super) fn fill(&mut self, subnet: IpNetwork, tables: &RouteTables) -> Report {
        let wanted_addresses = BTreeMap::from([(vtep_address(subnet), ())]);
        let wanted_sysctls = SysctlTarget::for_overlay(&self.name, self.v4);
        let mut addresses = Wanted::new("overlay-address", &mut self.addresses, &wanted_addresses);
        let mut sysctls = Wanted::new("sysctl", &mut self.sysctls, &wanted_sysctls);
        let mut report = reconcile(&mut [&mut addresses, &mut sysctls]);
        let (wanted_neighbours, wanted_fdb) = peers_of(&self.name, tables);
        let mut neighbours = Wanted::new("neighbours", &mut self.neighbours, &wanted_neighbours);
        let mut fdb = Wanted::new("fdb", &mut self.fdb, &wanted_fdb);
        merge(&mut report, reconcile(&mut [&mut neighbours, &mut fdb]));
        report
    }
}

/// Neighbours and forwarding entries of a device, as the Targets take them.
pub(crate) type Peers = (
    BTreeMap<netstate::NeighbourKey, MacAddr>,
    BTreeMap<netstate::FdbKey, std::net::IpAddr>,
);

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
