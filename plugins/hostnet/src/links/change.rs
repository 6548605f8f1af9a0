//! Changing interfaces.

use std::os::fd::{AsFd, AsRawFd};

use netstate::{IfName, LinkAt, MacAddr, Mtu};

use crate::error::Result;
use crate::links::ifinfo;
use crate::netns::Netns;
use crate::socket::Netlink;
use crate::wire::message::Message;
use crate::wire::rt::{
    AF_BRIDGE, IFF_ALLMULTI, IFF_PROMISC, IFF_UP, IFLA_ADDRESS, IFLA_BRPORT_ISOLATED,
    IFLA_BRPORT_MODE, IFLA_IFALIAS, IFLA_IFNAME, IFLA_MASTER, IFLA_MTU, IFLA_NET_NS_FD,
    IFLA_PROTINFO, IFLA_TXQLEN, RTM_NEWLINK, RTM_SETLINK,
};

/// A property of a bridge port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortFlag {
    /// Frames may go back out of the port they came by.
    Hairpin,
    /// Frames go only to ports that are not isolated.
    Isolated,
}

// === impl Netlink: changing links ===

impl Netlink {
    /// Brings a link up.
    ///
    /// # Errors
    /// When there is no such link or the kernel refuses.
    pub fn set_up(&mut self, name: &IfName) -> Result<()> {
        self.flags(name, IFF_UP, IFF_UP, "set up link")
    }

    /// Takes a link down.
    ///
    /// # Errors
    /// When there is no such link or the kernel refuses.
    pub fn set_down(&mut self, name: &IfName) -> Result<()> {
        self.flags(name, 0, IFF_UP, "set down link")
    }

    /// Makes a link take all frames, or only its own.
    ///
    /// # Errors
    /// When there is no such link or the kernel refuses.
    pub fn set_promiscuous(&mut self, name: &IfName, on: bool) -> Result<()> {
        let flags = if on { IFF_PROMISC } else { 0 };
        self.flags(name, flags, IFF_PROMISC, "set promiscuity of link")
    }

    /// Makes a link take all multicast frames, or only those asked for.
    ///
    /// # Errors
    /// When there is no such link or the kernel refuses.
    pub fn set_all_multicast(&mut self, name: &IfName, on: bool) -> Result<()> {
        let flags = if on { IFF_ALLMULTI } else { 0 };
        self.flags(name, flags, IFF_ALLMULTI, "set all multicast of link")
    }

    /// Sets how many packets a link's queue holds.
    ///
    /// # Errors
    /// When there is no such link or the kernel refuses.
    pub fn set_queue_length(&mut self, name: &IfName, packets: u32) -> Result<()> {
        self.change(name, "set queue length of link", |m| {
            m.u32(IFLA_TXQLEN, packets);
        })
    }

    /// Sets a link's alias, up to 255 bytes; the empty text removes it.
    ///
    /// # Errors
    /// When there is no such link or the kernel refuses.
    pub fn set_alias(&mut self, name: &IfName, alias: &str) -> Result<()> {
        self.change(name, "set alias of link", |m| {
            m.attr(IFLA_IFALIAS, alias.as_bytes());
        })
    }

    /// Sets a link's MTU.
    ///
    /// # Errors
    /// When there is no such link or the kernel refuses.
    pub fn set_mtu(&mut self, name: &IfName, mtu: Mtu) -> Result<()> {
        self.change(name, "set MTU of link", |m| {
            m.u32(IFLA_MTU, mtu.get());
        })
    }

    /// Sets a link's Ethernet address.
    ///
    /// # Errors
    /// When there is no such link or the kernel refuses.
    pub fn set_mac(&mut self, name: &IfName, mac: MacAddr) -> Result<()> {
        self.change(name, "set MAC of link", |m| {
            m.attr(IFLA_ADDRESS, &mac.octets());
        })
    }

    /// Makes a link a port of `master`, or of nothing.
    ///
    /// # Errors
    /// When either link is missing or the kernel refuses.
    pub fn set_master(&mut self, name: &IfName, master: Option<&IfName>) -> Result<()> {
        let index = master
            .map(|name| self.link_index(name))
            .transpose()?
            .unwrap_or(0);
        self.change(name, "set master of link", |m| {
            m.u32(IFLA_MASTER, index);
        })
    }

    /// Renames a link, which must be down on kernels before 6.2.
    ///
    /// # Errors
    /// When there is no such link, the new name is taken or the kernel refuses.
    pub fn rename(&mut self, name: &IfName, to: &IfName) -> Result<()> {
        self.change(name, "rename link", |m| {
            m.text(IFLA_IFNAME, to.as_str());
        })
    }

    /// Moves a link to another namespace, where it is down and without addresses.
    ///
    /// # Errors
    /// When there is no such link, the name is taken there or the kernel refuses.
    pub fn move_link(&mut self, name: &IfName, netns: &Netns) -> Result<()> {
        let descriptor = netns.as_fd().as_raw_fd().to_ne_bytes();
        self.change(name, "move link", |m| {
            m.attr(IFLA_NET_NS_FD, &descriptor);
        })
    }

    /// Moves a link to another namespace with another name, alias and state, in one message, so
    /// that its old name need not be free there.
    ///
    /// # Errors
    /// When there is no such link or the kernel refuses. When the new name is taken there, the
    /// link may have been moved under its old one all the same.
    pub fn move_link_as(&mut self, name: &IfName, netns: &Netns, to: &LinkAt) -> Result<()> {
        let index = self.link_index(name)?;
        let flags = if to.up { IFF_UP } else { 0 };
        let mut message = Message::new(RTM_NEWLINK, 0, &ifinfo(index, flags, IFF_UP));
        message
            .attr(IFLA_NET_NS_FD, &netns.as_fd().as_raw_fd().to_ne_bytes())
            .text(IFLA_IFNAME, to.name.as_str())
            .attr(IFLA_IFALIAS, to.alias.as_bytes());
        self.wire.request(message, ("move link", name))
    }

    /// Sets a property of a bridge port.
    ///
    /// # Errors
    /// When the link is no bridge port or the kernel refuses.
    pub fn set_port(&mut self, name: &IfName, flag: PortFlag, on: bool) -> Result<()> {
        let mut body = ifinfo(self.link_index(name)?, 0, 0);
        body[0] = AF_BRIDGE;
        let kind = match flag {
            PortFlag::Hairpin => IFLA_BRPORT_MODE,
            PortFlag::Isolated => IFLA_BRPORT_ISOLATED,
        };
        let mut message = Message::new(RTM_SETLINK, 0, &body);
        message.nest(IFLA_PROTINFO, |port| {
            port.attr(kind, &[u8::from(on)]);
        });
        self.wire.request(message, ("set bridge port", name))
    }

    fn flags(&mut self, name: &IfName, flags: u32, change: u32, what: &'static str) -> Result<()> {
        let index = self.link_index(name)?;
        self.wire.request(
            Message::new(RTM_NEWLINK, 0, &ifinfo(index, flags, change)),
            (what, name),
        )
    }

    fn change(
        &mut self,
        name: &IfName,
        what: &'static str,
        fill: impl FnOnce(&mut Message),
    ) -> Result<()> {
        let index = self.link_index(name)?;
        let mut message = Message::new(RTM_NEWLINK, 0, &ifinfo(index, 0, 0));
        fill(&mut message);
        self.wire.request(message, (what, name))
    }
}
