//! Permanent forwarding entries of a VXLAN device: observe, set, delete.

use std::net::Ipv4Addr;

use netstate::{FdbEntry, FdbKey, IfName, MacAddr};

use crate::error::{Result, absent_is_fine};
use crate::neighbours::{NDMSG, ndmsg};
use crate::socket::Netlink;
use crate::wire::message::{
    Message, NLM_F_CREATE, NLM_F_REPLACE, Reply, find, read_ip, read_u16, read_u32,
};
use crate::wire::rt::{
    AF_BRIDGE, NDA_DST, NDA_IFINDEX, NDA_LLADDR, NDA_PORT, NDA_VNI, NTF_SELF, NUD_PERMANENT,
    RTM_DELNEIGH, RTM_GETNEIGH, RTM_NEWNEIGH,
};

// === impl Netlink: forwarding entries ===

impl Netlink {
    /// The permanent forwarding entries of VXLAN device `device` that name a remote; none when there
    /// is no such device. One that goes to a port, network or interface of its own has the remote
    /// `0.0.0.0` here, which none of ours has.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn fdb(&mut self, device: &IfName) -> Result<Vec<FdbEntry>> {
        let Some(link) = self.link(device)? else {
            return Ok(Vec::new());
        };
        let mut message = Message::new(RTM_GETNEIGH, 0, &ndmsg(AF_BRIDGE, 0, 0, 0));
        message.u32(NDA_IFINDEX, link.index);
        let found = self
            .wire
            .dump(&message, ("list forwarding entries of", device))?;
        Ok(found
            .iter()
            .filter_map(|reply| parse(reply, link.index, device))
            .collect())
    }

    /// Sets the permanent forwarding entry of an Ethernet address.
    ///
    /// # Errors
    /// When its device does not exist, is no VXLAN device, or the kernel refuses.
    pub fn set_fdb(&mut self, entry: &FdbEntry) -> Result<()> {
        let FdbKey { device, mac } = &entry.key;
        let index = self.link_index(device)?;
        let body = ndmsg(AF_BRIDGE, index, NUD_PERMANENT, NTF_SELF);
        let mut message = Message::new(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, &body);
        message
            .attr(NDA_LLADDR, &mac.octets())
            .ip(NDA_DST, entry.remote);
        self.wire
            .request(message, ("set forwarding entry", &entry.key))
    }

    /// Removes the forwarding entries of an Ethernet address; absent ones, or an absent device, are
    /// no error.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn delete_fdb(&mut self, key: &FdbKey) -> Result<()> {
        let Some(link) = self.link(&key.device)? else {
            return Ok(());
        };
        let body = ndmsg(AF_BRIDGE, link.index, NUD_PERMANENT, NTF_SELF);
        let mut message = Message::new(RTM_DELNEIGH, 0, &body);
        message.attr(NDA_LLADDR, &key.mac.octets());
        absent_is_fine(self.wire.request(message, ("delete forwarding entry", key)))
    }
}

fn parse(reply: &Reply, index: u32, device: &IfName) -> Option<FdbEntry> {
    let attributes = reply.body.get(NDMSG..)?;
    let permanent = read_u16(&reply.body, 8) & NUD_PERMANENT != 0;
    if !permanent || read_u32(&reply.body, 4) != index {
        return None;
    }
    let mac = MacAddr::try_from(find(attributes, NDA_LLADDR)?).ok()?;
    let remote = read_ip(find(attributes, NDA_DST)?)?;
    let elsewhere = [NDA_PORT, NDA_VNI, NDA_IFINDEX]
        .iter()
        .any(|kind| find(attributes, *kind).is_some());
    let remote = match elsewhere {
        true => Ipv4Addr::UNSPECIFIED.into(),
        false => remote,
    };
    Some(FdbEntry {
        key: FdbKey {
            device: device.clone(),
            mac,
        },
        remote,
    })
}
