//! The overlay's devices, their addresses and kernel parameters, as Targets.

use std::collections::BTreeMap;

use hostnet::{Error, ErrorKind, LinkDetails, LinkInfo, Netlink, Result, sysctl};
use ipnetwork::IpNetwork;
use netstate::{Address, IfName, Link, LinkKind, MacAddr, Mtu, Target, Vxlan};
use nix::errno::Errno;

/// An overlay device as it should be or is.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Vtep {
    /// What it is, which cannot be changed once it exists.
    pub kind: LinkKind,
    /// Its Ethernet address; WireGuard and IP-in-IP devices have none.
    pub mac: Option<MacAddr>,
    /// Its MTU.
    pub mtu: Option<Mtu>,
    /// Whether it is up.
    pub up: bool,
    /// Whether it has [`MARK`].
    pub marked: bool,
}

/// The alias of every device that is this daemon's, made or adopted by it. By it those of an earlier
/// configuration are known, and nobody else's are taken for one.
pub const MARK: &str = "towline overlay";

/// The one device called `name`.
#[derive(Debug)]
pub struct VtepTarget {
    netlink: Netlink,
    name: IfName,
    remade: bool,
}

/// Whether the one device called `name` leaves checksums to what is below it.
#[derive(Debug)]
pub struct ChecksumTarget {
    netlink: Netlink,
    name: IfName,
}

/// The addresses of the overlay device, of one family; link-local ones are the kernel's own.
#[derive(Debug)]
pub struct AddressTarget {
    netlink: Netlink,
    device: IfName,
    v4: bool,
}

/// Kernel parameters by name; only those asked for are looked at, and none is ever removed.
#[derive(Debug)]
pub struct SysctlTarget {
    names: Vec<String>,
}

// === impl VtepTarget ===

impl VtepTarget {
    /// Works on `netlink`'s namespace.
    #[must_use]
    pub const fn new(netlink: Netlink, name: IfName) -> Self {
        Self {
            netlink,
            name,
            remade: false,
        }
    }

    /// Whether it has been taken away and made anew since this was asked last, and with it everything
    /// that was on it.
    pub const fn take_remade(&mut self) -> bool {
        std::mem::replace(&mut self.remade, false)
    }

    /// The Ethernet address of the device that is there.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn mac(&mut self) -> Result<Option<MacAddr>> {
        Ok(self.netlink.link(&self.name)?.and_then(|link| link.mac))
    }

    fn create(&mut self, wanted: &Vtep) -> Result<()> {
        let mut link = Link::new(self.name.clone(), wanted.kind.clone()).up();
        link.mac = wanted.mac;
        link.mtu = wanted.mtu;
        self.netlink
            .create_link(&link)
            .map_err(|error| with_remedy(error, wanted))?;
        self.netlink.set_alias(&self.name, MARK)
    }

    /// Whether the kernel would make `wanted`, which it does not beside another VXLAN device with the
    /// same network and port.
    ///
    /// # Errors
    /// With that device's name.
    fn has_room(&mut self, wanted: &Vtep) -> Result<()> {
        let LinkKind::Vxlan(ours) = &wanted.kind else {
            return Ok(());
        };
        let is_v6 = |one: &Vxlan| one.local.is_some_and(|local| local.is_ipv6());
        let clashes = |one: &Vxlan| {
            (one.vni, one.port, one.gbp) == (ours.vni, ours.port, ours.gbp)
                && is_v6(one) == is_v6(ours)
        };
        let links = self.netlink.links()?;
        let others = links.iter().filter(|link| link.name != self.name);
        let Some(other) = others
            .into_iter()
            .find(|link| link.vxlan.as_ref().is_some_and(clashes))
        else {
            return Ok(());
        };
        Err(Error {
            operation: "create link",
            object: self.name.to_string(),
            kind: ErrorKind::Exists,
            reason: format!(
                "{} has VNI {} and port {} already; remove it, or set another VNI or Port on every node",
                other.name, ours.vni, ours.port
            ),
        })
    }

    fn kind(&mut self, link: &LinkInfo) -> Result<LinkKind> {
        if let Some(vxlan) = link.vxlan.clone() {
            let device = match link.vxlan_device.filter(|index| *index != 0) {
                Some(index) => self.netlink.link_by_index(index)?.map(|below| below.name),
                None => None,
            };
            return Ok(LinkKind::Vxlan(Vxlan { device, ..vxlan }));
        }
        Ok(match (link.kind.as_str(), link.details) {
            ("ipip", LinkDetails::Ipip(local)) => LinkKind::Ipip { local },
            ("wireguard", _) => LinkKind::Wireguard,
            (other, _) => LinkKind::Other(other.to_owned()),
        })
    }
}

impl Target for VtepTarget {
    type Key = IfName;
    type Value = Vtep;
    type Error = Error;

    fn observe(&mut self) -> Result<BTreeMap<IfName, Vtep>> {
        let Some(link) = self.netlink.link(&self.name)? else {
            return Ok(BTreeMap::new());
        };
        let vtep = Vtep {
            kind: self.kind(&link)?,
            mac: link.mac,
            mtu: link.mtu,
            up: link.up,
            marked: link.alias == MARK,
        };
        Ok(BTreeMap::from([(link.name, vtep)]))
    }

    /// Changes what can be changed; one of another kind or with other parameters is made anew.
    fn put(&mut self, name: &IfName, wanted: &Vtep) -> Result<()> {
        match self.observe()?.remove(name) {
            None => {
                self.has_room(wanted)?;
                self.create(wanted)
            }
            Some(found) if found.kind != wanted.kind => {
                // Before anything is taken away.
                self.has_room(wanted)?;
                tracing::info!(device = %name, ?found, ?wanted, "overlay device is made anew");
                self.netlink.delete_link(name)?;
                self.remade = true;
                self.create(wanted)
            }
            Some(found) => {
                if let Some(mac) = wanted.mac.filter(|mac| found.mac != Some(*mac)) {
                    self.netlink.set_mac(name, mac)?;
                }
                if let Some(mtu) = wanted.mtu.filter(|mtu| found.mtu != Some(*mtu)) {
                    self.netlink.set_mtu(name, mtu)?;
                }
                if wanted.marked && !found.marked {
                    self.netlink.set_alias(name, MARK)?;
                }
                self.netlink.set_up(name)
            }
        }
    }

    fn delete(&mut self, name: &IfName) -> Result<()> {
        self.netlink.delete_link(name)
    }
}

// === impl ChecksumTarget ===

impl ChecksumTarget {
    /// Works on `netlink`'s namespace.
    #[must_use]
    pub const fn new(netlink: Netlink, name: IfName) -> Self {
        Self { netlink, name }
    }
}

impl Target for ChecksumTarget {
    type Key = IfName;
    type Value = bool;
    type Error = Error;

    fn observe(&mut self) -> Result<BTreeMap<IfName, bool>> {
        let on = self.netlink.tx_checksum_offload(&self.name)?;
        Ok(BTreeMap::from([(self.name.clone(), on)]))
    }

    fn put(&mut self, name: &IfName, on: &bool) -> Result<()> {
        self.netlink.set_tx_checksum_offload(name, *on)
    }

    /// Nobody wants it otherwise.
    fn delete(&mut self, _: &IfName) -> Result<()> {
        Ok(())
    }
}

// === impl AddressTarget ===

impl AddressTarget {
    /// Works on the IPv4 (or else IPv6) addresses of `device` in `netlink`'s namespace.
    #[must_use]
    pub const fn new(netlink: Netlink, device: IfName, v4: bool) -> Self {
        Self {
            netlink,
            device,
            v4,
        }
    }
}

impl Target for AddressTarget {
    type Key = IpNetwork;
    type Value = ();
    type Error = Error;

    fn observe(&mut self) -> Result<BTreeMap<IpNetwork, ()>> {
        let found = self.netlink.addresses(&self.device)?;
        let own = found
            .into_iter()
            .map(|address| address.ip)
            .filter(|ip| match ip {
                IpNetwork::V4(_) => self.v4,
                IpNetwork::V6(v6) => !self.v4 && !v6.ip().is_unicast_link_local(),
            });
        Ok(own.map(|ip| (ip, ())).collect())
    }

    fn put(&mut self, ip: &IpNetwork, (): &()) -> Result<()> {
        let address = Address::new(*ip);
        match self.netlink.add_address(&self.device, &address) {
            // IPv6 has an address once, whatever its prefix.
            Err(error) if error.is_exists() => {
                for other in self
                    .observe()?
                    .into_keys()
                    .filter(|one| one.ip() == ip.ip())
                {
                    self.netlink.delete_address(&self.device, other)?;
                }
                self.netlink.add_address(&self.device, &address)
            }
            result => result,
        }
    }

    fn delete(&mut self, ip: &IpNetwork) -> Result<()> {
        self.netlink.delete_address(&self.device, *ip)
    }
}

// === impl SysctlTarget ===

impl SysctlTarget {
    /// The parameters `names`, with slashes: `net/ipv4/ip_forward`.
    #[must_use]
    pub const fn new(names: Vec<String>) -> Self {
        Self { names }
    }

    /// What must be so for packets of a family to pass between pods and uplink.
    #[must_use]
    pub fn for_forwarding(v4: bool) -> (String, String) {
        let name = if v4 {
            "net/ipv4/ip_forward"
        } else {
            "net/ipv6/conf/all/forwarding"
        };
        (name.to_owned(), "1".to_owned())
    }

    /// What must be so for packets to pass an overlay device.
    ///
    /// Replies may come in through the overlay for what left by another way (host ports, node
    /// addresses), so its reverse path filter is loose (RFC 3704).
    #[must_use]
    pub fn for_overlay(device: &IfName) -> BTreeMap<String, String> {
        let own = |family: &str, name: &str| format!("net/{family}/conf/{device}/{name}");
        BTreeMap::from([
            (own("ipv4", "rp_filter"), "2".to_owned()),
            (own("ipv6", "accept_ra"), "0".to_owned()),
        ])
    }
}

impl Target for SysctlTarget {
    type Key = String;
    type Value = String;
    type Error = Error;

    fn observe(&mut self) -> Result<BTreeMap<String, String>> {
        let mut found = BTreeMap::new();
        for name in &self.names {
            match sysctl::read(name) {
                Ok(value) => {
                    found.insert(name.clone(), value);
                }
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// A parameter that this kernel does not have (IPv6 switched off) needs no value.
    fn put(&mut self, name: &String, value: &String) -> Result<()> {
        match sysctl::write(name, value) {
            Err(error) if error.is_not_found() && name.starts_with("net/ipv6/") => Ok(()),
            result => result,
        }
    }

    fn delete(&mut self, _: &String) -> Result<()> {
        Ok(())
    }
}

/// `error` with what to do about a port that a program or a device of another kind has.
fn with_remedy(mut error: Error, wanted: &Vtep) -> Error {
    if let LinkKind::Vxlan(vxlan) = &wanted.kind
        && error.reason.starts_with(Errno::EADDRINUSE.desc())
    {
        let port = vxlan.port;
        error.reason += &format!(
            ": UDP port {port} is taken; end the program or remove the device that has it, or set another Port on every node"
        );
    }
    error
}

/// The address that identifies the overlay device: the subnet's first, alone.
#[must_use]
pub(super) fn vtep_address(subnet: IpNetwork) -> IpNetwork {
    IpNetwork::from(subnet.network())
}
