//! Creating interfaces, each in one message.

use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};

use netstate::{IfName, Link, LinkKind, NetnsPath, VethPeer, Vxlan};

use crate::error::{Error, Result};
use crate::links::{IFINFO, ifinfo, kinds};
use crate::netns::Netns;
use crate::socket::Netlink;
use crate::wire::message::{Message, NLM_F_CREATE, NLM_F_EXCL};
use crate::wire::rt::{
    IFF_UP, IFLA_ADDRESS, IFLA_IFNAME, IFLA_INFO_DATA, IFLA_INFO_KIND, IFLA_LINK, IFLA_LINKINFO,
    IFLA_MASTER, IFLA_MTU, IFLA_NET_NS_FD, IFLA_VXLAN_GBP, IFLA_VXLAN_ID, IFLA_VXLAN_LEARNING,
    IFLA_VXLAN_LINK, IFLA_VXLAN_LOCAL, IFLA_VXLAN_LOCAL6, IFLA_VXLAN_PORT, RTM_NEWLINK,
    VETH_INFO_PEER,
};

const OPERATION: &str = "create link";

// === impl Netlink: creating links ===

impl Netlink {
    /// Creates `link` with everything it says, in one message, where its `netns` says. A veth's
    /// peer is created where the peer's `netns` says; it cannot be brought up by the same message.
    ///
    /// # Errors
    /// When a link of either name exists, the master, the lower device or the namespace does not,
    /// or the kernel refuses. Nothing is left then.
    pub fn create_link(&mut self, link: &Link) -> Result<()> {
        let netns = wished_netns(link).map(Netns::open).transpose()?;
        self.create_link_in(link, netns.as_ref())
    }

    /// Like [`Netlink::create_link`], with the namespace that `link` or its peer wishes already
    /// open: its path may even be gone by now.
    ///
    /// # Errors
    /// As [`Netlink::create_link`].
    pub fn create_link_in(&mut self, link: &Link, netns: Option<&Netns>) -> Result<()> {
        let index = |this: &mut Self, name: Option<&IfName>| {
            name.map(|name| this.link_index(name)).transpose()
        };
        let master = index(self, link.master.as_ref())?;
        let lower = index(self, link.kind.lower())?;
        let device = match &link.kind {
            LinkKind::Vxlan(Vxlan { device, .. }) => index(self, device.as_ref())?,
            _ => None,
        };
        let flags = if link.up { IFF_UP } else { 0 };
        let mut message = Message::new(
            RTM_NEWLINK,
            NLM_F_CREATE | NLM_F_EXCL,
            &ifinfo(0, flags, flags),
        );
        message.text(IFLA_IFNAME, link.name.as_str());
        if let Some(mac) = link.mac {
            message.attr(IFLA_ADDRESS, &mac.octets());
        }
        if let Some(mtu) = link.mtu {
            message.u32(IFLA_MTU, mtu.get());
        }
        if let Some(master) = master {
            message.u32(IFLA_MASTER, master);
        }
        if let Some(lower) = lower {
            message.u32(IFLA_LINK, lower);
        }
        if let Some(netns) = netns.filter(|_| link.netns.is_some()) {
            message.attr(IFLA_NET_NS_FD, &netns.as_fd().as_raw_fd().to_ne_bytes());
        }
        let kind = kind_name(link)?;
        message.nest(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_KIND, kind);
            match &link.kind {
                LinkKind::Veth(far) => veth_data(info, link, far, netns),
                LinkKind::Vxlan(vxlan) => vxlan_data(info, vxlan, device),
                kind => kinds::encode(info, kind),
            }
        });
        self.wire.request(message, (OPERATION, &link.name))
    }

    /// Creates `link` unless one of that name and kind is there; brings it up if it says so.
    /// Whether it was created is returned.
    ///
    /// # Errors
    /// When a link of that name and another kind is there, or the kernel refuses.
    pub fn ensure_link(&mut self, link: &Link) -> Result<bool> {
        let kind = kind_name(link)?;
        let found = match self.link(&link.name)? {
            Some(found) => found,
            None => match self.create_link(link) {
                Ok(()) => return Ok(true),
                // Somebody else was faster.
                Err(error) if error.is_exists() => self
                    .link(&link.name)?
                    .ok_or_else(|| Error::not_found("find link", &link.name))?,
                Err(error) => return Err(error),
            },
        };
        if found.kind != kind {
            let reason = format!("exists as a {:?}, not a {kind}; rename one", found.kind);
            return Err(Error::invalid(OPERATION, &link.name, reason));
        }
        if link.up && !found.up {
            self.set_up(&link.name)?;
        }
        Ok(false)
    }
}

/// The namespace that `link`, or the peer of a veth, is to be created in.
pub(crate) fn wished_netns(link: &Link) -> Option<&NetnsPath> {
    let peer = match &link.kind {
        LinkKind::Veth(VethPeer { netns, .. }) => netns.as_ref(),
        _ => None,
    };
    peer.or(link.netns.as_ref())
}

fn kind_name(link: &Link) -> Result<&'static str> {
    kinds::name(&link.kind).ok_or_else(|| {
        let reason = format!("cannot create {:?}; give another kind", link.kind);
        Error::invalid(OPERATION, &link.name, reason)
    })
}

fn veth_data(info: &mut Message, link: &Link, far: &VethPeer, netns: Option<&Netns>) {
    info.nest(IFLA_INFO_DATA, |data| {
        data.nest(VETH_INFO_PEER, |peer| {
            peer.raw(&[0; IFINFO]).text(IFLA_IFNAME, far.name.as_str());
            if let Some(mac) = far.mac {
                peer.attr(IFLA_ADDRESS, &mac.octets());
            }
            if let Some(mtu) = link.mtu {
                peer.u32(IFLA_MTU, mtu.get());
            }
            if let Some(netns) = netns.filter(|_| far.netns.is_some()) {
                peer.attr(IFLA_NET_NS_FD, &netns.as_fd().as_raw_fd().to_ne_bytes());
            }
        });
    });
}

fn vxlan_data(info: &mut Message, vxlan: &Vxlan, device: Option<u32>) {
    info.nest(IFLA_INFO_DATA, |data| {
        data.u32(IFLA_VXLAN_ID, vxlan.vni.get());
        data.attr(IFLA_VXLAN_PORT, &vxlan.port.to_be_bytes());
        data.attr(IFLA_VXLAN_LEARNING, &[u8::from(vxlan.learning)]);
        if vxlan.gbp {
            data.attr(IFLA_VXLAN_GBP, &[]);
        }
        match vxlan.local {
            Some(local @ IpAddr::V4(_)) => {
                data.ip(IFLA_VXLAN_LOCAL, local);
            }
            Some(local @ IpAddr::V6(_)) => {
                data.ip(IFLA_VXLAN_LOCAL6, local);
            }
            None => {}
        }
        if let Some(device) = device {
            data.u32(IFLA_VXLAN_LINK, device);
        }
    });
}
