//! Permanent neighbours of a link: observe, set, delete.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netstate::{IfName, MacAddr, Neighbour, NeighbourKey};

use crate::addrs::family;
use crate::error::{Result, absent_is_fine};
use crate::socket::Netlink;
use crate::wire::message::{
    Message, NLM_F_CREATE, NLM_F_REPLACE, Reply, find, read_ip, read_u16, read_u32,
};
use crate::wire::rt::{
    NDA_DST, NDA_IFINDEX, NDA_LLADDR, NUD_PERMANENT, RTM_DELNEIGH, RTM_GETNEIGH, RTM_NEWNEIGH,
};

/// Length of `struct ndmsg`.
pub(crate) const NDMSG: usize = 12;

// === impl Netlink: neighbours ===

impl Netlink {
    /// The permanent neighbours on `device`; none when there is no such device.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn neighbours(&mut self, device: &IfName) -> Result<Vec<Neighbour>> {
        let Some(link) = self.link(device)? else {
            return Ok(Vec::new());
        };
        let mut neighbours = Vec::new();
        for any in [
            IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        ] {
            let mut message = Message::new(RTM_GETNEIGH, 0, &ndmsg(family(any), 0, 0, 0));
            message.u32(NDA_IFINDEX, link.index);
            let found = self.wire.dump(&message, ("list neighbours of", device))?;
            neighbours.extend(
                found
                    .iter()
                    .filter_map(|reply| parse(reply, link.index, device)),
            );
        }
        Ok(neighbours)
    }

    /// Sets a permanent neighbour.
    ///
    /// # Errors
    /// When its device does not exist or the kernel refuses.
    pub fn set_neighbour(&mut self, neighbour: &Neighbour) -> Result<()> {
        let NeighbourKey { device, ip } = &neighbour.key;
        let index = self.link_index(device)?;
        let body = ndmsg(family(*ip), index, NUD_PERMANENT, 0);
        let mut message = Message::new(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, &body);
        message
            .ip(NDA_DST, *ip)
            .attr(NDA_LLADDR, &neighbour.mac.octets());
        self.wire
            .request(message, ("set neighbour", &neighbour.key))
    }

    /// Removes a neighbour; an absent one, or an absent device, is no error.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn delete_neighbour(&mut self, key: &NeighbourKey) -> Result<()> {
        let Some(link) = self.link(&key.device)? else {
            return Ok(());
        };
        let mut message = Message::new(RTM_DELNEIGH, 0, &ndmsg(family(key.ip), link.index, 0, 0));
        message.ip(NDA_DST, key.ip);
        absent_is_fine(self.wire.request(message, ("delete neighbour", key)))
    }
}

/// `struct ndmsg`.
pub(crate) fn ndmsg(family: u8, index: u32, state: u16, flags: u8) -> [u8; NDMSG] {
    let mut body = [0; NDMSG];
    body[0] = family;
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    body[8..10].copy_from_slice(&state.to_ne_bytes());
    body[10] = flags;
    body
}

fn parse(reply: &Reply, index: u32, device: &IfName) -> Option<Neighbour> {
    let attributes = reply.body.get(NDMSG..)?;
    let permanent = read_u16(&reply.body, 8) & NUD_PERMANENT != 0;
    if !permanent || read_u32(&reply.body, 4) != index {
        return None;
    }
    let ip = read_ip(find(attributes, NDA_DST)?)?;
    let mac = MacAddr::try_from(find(attributes, NDA_LLADDR)?).ok()?;
    Some(Neighbour {
        key: NeighbourKey {
            device: device.clone(),
            ip,
        },
        mac,
    })
}
