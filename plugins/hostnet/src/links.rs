//! Network interfaces: observe, create, change, delete.

mod change;
mod create;
mod kinds;
mod vlans;

use std::net::IpAddr;

use netstate::{IfName, MacAddr, Mtu, Vni, Vxlan};
use nix::errno::Errno;

use crate::error::{Error, Result, absent_is_fine};
use crate::socket::Netlink;
use crate::wire::message::{Message, Reply, attrs, find, read_ip, read_text, read_u16, read_u32};
use crate::wire::rt::{
    IFF_ALLMULTI, IFF_PROMISC, IFF_UP, IFLA_ADDRESS, IFLA_BRPORT_ISOLATED, IFLA_BRPORT_MODE,
    IFLA_EXT_MASK, IFLA_IFALIAS, IFLA_IFNAME, IFLA_INFO_DATA, IFLA_INFO_KIND, IFLA_INFO_SLAVE_DATA,
    IFLA_INFO_SLAVE_KIND, IFLA_LINK, IFLA_LINK_NETNSID, IFLA_LINKINFO, IFLA_MASTER, IFLA_MTU,
    IFLA_OPERSTATE, IFLA_PROMISCUITY, IFLA_TXQLEN, IFLA_VXLAN_GBP, IFLA_VXLAN_ID,
    IFLA_VXLAN_LEARNING, IFLA_VXLAN_LINK, IFLA_VXLAN_LOCAL, IFLA_VXLAN_LOCAL6, IFLA_VXLAN_PORT,
    RTEXT_FILTER_SKIP_STATS, RTM_DELLINK, RTM_GETLINK,
};

pub use change::PortFlag;
pub(crate) use create::wished_netns;
pub use kinds::LinkDetails;

/// Length of `struct ifinfomsg`.
pub(crate) const IFINFO: usize = 16;
const OPERSTATE_UP: u8 = 6;

/// What a bridge port has beyond other interfaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortInfo {
    /// Frames may go back out of the port they came by.
    pub hairpin: bool,
    /// Frames go only to ports that are not isolated.
    pub isolated: bool,
}

/// An interface as the kernel shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkInfo {
    /// Its number in this namespace.
    pub index: u32,
    /// Its name.
    pub name: IfName,
    /// The kernel's name for its kind (`veth`, `bridge`, `vxlan`, …); empty for hardware and `lo`.
    pub kind: String,
    /// Its Ethernet address, if it has one.
    pub mac: Option<MacAddr>,
    /// Its MTU in bytes; `None` when beyond the range of [`Mtu`].
    pub mtu: Option<Mtu>,
    /// Number of the bridge (or other device) it is a port of.
    pub master: Option<u32>,
    /// What it has as the port of a bridge.
    pub port: Option<PortInfo>,
    /// For a veth the number of its peer, in the peer's namespace; for others of the device below.
    pub peer: Option<u32>,
    /// Whether it is administratively up.
    pub up: bool,
    /// Whether it is operational: up, with carrier, for a bridge with a working port.
    pub running: bool,
    /// Whether what is below it ([`LinkInfo::peer`]) is in another namespace.
    pub peer_elsewhere: bool,
    /// How many have asked it to take all frames.
    pub promiscuity: u32,
    /// Whether it was told to take all frames, as `ip link set promisc` does.
    pub promiscuous: bool,
    /// Whether it was told to take all multicast frames.
    pub all_multicast: bool,
    /// Packets its queue holds.
    pub queue_length: u32,
    /// Its alias; empty without one.
    pub alias: String,
    /// What only its kind has, except for VXLAN.
    pub details: LinkDetails,
    /// What only a VXLAN device has. Its `device` is in [`LinkInfo::vxlan_device`], as a number.
    pub vxlan: Option<Vxlan>,
    /// Number of the device that encapsulated packets leave by.
    pub vxlan_device: Option<u32>,
}

// === impl Netlink: links ===

impl Netlink {
    /// The interface called `name`, if there is one.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn link(&mut self, name: &IfName) -> Result<Option<LinkInfo>> {
        let mut message = asking(0);
        message.text(IFLA_IFNAME, name.as_str());
        self.one_link(message, name.as_str())
    }

    /// The interface with number `index`, if there is one.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn link_by_index(&mut self, index: u32) -> Result<Option<LinkInfo>> {
        self.one_link(asking(index), &index.to_string())
    }

    /// All interfaces of the namespace, by number.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn links(&mut self) -> Result<Vec<LinkInfo>> {
        let found = self.wire.dump(&asking(0), ("list", &"links"))?;
        let mut links: Vec<LinkInfo> = found.iter().filter_map(parse).collect();
        links.sort_by_key(|link| link.index);
        Ok(links)
    }

    /// The number of the interface called `name`.
    ///
    /// # Errors
    /// When there is none.
    pub fn link_index(&self, name: &IfName) -> Result<u32> {
        match self.wire.interface_index(name.as_str()) {
            Err(Errno::ENODEV) => Err(Error::not_found("find link", name)),
            other => other.map_err(|errno| Error::errno("find link", name, errno)),
        }
    }

    /// Removes an interface (and a veth's peer with it); an absent one is no error.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn delete_link(&mut self, name: &IfName) -> Result<()> {
        let mut message = Message::new(RTM_DELLINK, 0, &[0; IFINFO]);
        message.text(IFLA_IFNAME, name.as_str());
        absent_is_fine(self.wire.request(message, ("delete link", name)))
    }

    fn one_link(&mut self, message: Message, shown: &str) -> Result<Option<LinkInfo>> {
        match self.wire.query(message, ("find link", &shown)) {
            Ok(reply) => Ok(reply.as_ref().and_then(parse)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The question for links, without their statistics, which are half of the answer.
fn asking(index: u32) -> Message {
    let mut message = Message::new(RTM_GETLINK, 0, &ifinfo(index, 0, 0));
    message.u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
    message
}

/// `struct ifinfomsg` for a link by number, setting `flags` where `change` has bits.
pub(crate) fn ifinfo(index: u32, flags: u32, change: u32) -> [u8; IFINFO] {
    let mut body = [0; IFINFO];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    body[8..12].copy_from_slice(&flags.to_ne_bytes());
    body[12..16].copy_from_slice(&change.to_ne_bytes());
    body
}

fn parse(reply: &Reply) -> Option<LinkInfo> {
    let attributes = reply.body.get(IFINFO..)?;
    let flags = read_u32(&reply.body, 8);
    let mut link = LinkInfo {
        index: read_u32(&reply.body, 4),
        name: read_text(find(attributes, IFLA_IFNAME)?).parse().ok()?,
        kind: String::new(),
        mac: None,
        mtu: None,
        master: None,
        port: None,
        peer: None,
        up: flags & IFF_UP != 0,
        running: false,
        peer_elsewhere: false,
        promiscuity: 0,
        promiscuous: flags & IFF_PROMISC != 0,
        all_multicast: flags & IFF_ALLMULTI != 0,
        queue_length: 0,
        alias: String::new(),
        details: LinkDetails::None,
        vxlan: None,
        vxlan_device: None,
    };
    for (kind, value) in attrs(attributes) {
        match kind {
            IFLA_ADDRESS => link.mac = MacAddr::try_from(value).ok(),
            IFLA_MTU => link.mtu = Mtu::try_from(read_u32(value, 0)).ok(),
            IFLA_MASTER => link.master = Some(read_u32(value, 0)),
            IFLA_LINK => link.peer = Some(read_u32(value, 0)).filter(|peer| *peer != 0),
            IFLA_OPERSTATE => link.running = value.first() == Some(&OPERSTATE_UP),
            IFLA_PROMISCUITY => link.promiscuity = read_u32(value, 0),
            IFLA_LINK_NETNSID => link.peer_elsewhere = true,
            IFLA_TXQLEN => link.queue_length = read_u32(value, 0),
            IFLA_IFALIAS => link.alias = read_text(value),
            IFLA_LINKINFO => parse_info(&mut link, value),
            _ => {}
        }
    }
    Some(link)
}

fn parse_info(link: &mut LinkInfo, info: &[u8]) {
    link.kind = find(info, IFLA_INFO_KIND)
        .map(read_text)
        .unwrap_or_default();
    let slave = find(info, IFLA_INFO_SLAVE_DATA).unwrap_or_default();
    let is_port = find(info, IFLA_INFO_SLAVE_KIND).is_some_and(|kind| read_text(kind) == "bridge");
    let is_on = |flag| find(slave, flag).is_some_and(|value| value.first() == Some(&1));
    link.port = is_port.then(|| PortInfo {
        hairpin: is_on(IFLA_BRPORT_MODE),
        isolated: is_on(IFLA_BRPORT_ISOLATED),
    });
    let Some(data) = find(info, IFLA_INFO_DATA) else {
        return;
    };
    if link.kind != "vxlan" {
        link.details = kinds::decode(&link.kind, data);
        return;
    }
    let Some(vni) = find(data, IFLA_VXLAN_ID).and_then(|v| Vni::try_from(read_u32(v, 0)).ok())
    else {
        return;
    };
    let address = |kind| {
        find(data, kind)
            .and_then(read_ip)
            .filter(|ip: &IpAddr| !ip.is_unspecified())
    };
    link.vxlan_device = find(data, IFLA_VXLAN_LINK)
        .map(|v| read_u32(v, 0))
        .filter(|index| *index != 0);
    link.vxlan = Some(Vxlan {
        vni,
        port: find(data, IFLA_VXLAN_PORT).map_or(0, |v| u16::from_be(read_u16(v, 0))),
        local: address(IFLA_VXLAN_LOCAL).or_else(|| address(IFLA_VXLAN_LOCAL6)),
        device: None,
        learning: find(data, IFLA_VXLAN_LEARNING).is_some_and(|v| v.first() == Some(&1)),
        gbp: find(data, IFLA_VXLAN_GBP).is_some(),
    });
}
