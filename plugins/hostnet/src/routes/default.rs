//! The default route's device, found by a lookup rather than by reading the whole table.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netstate::route::MAIN_TABLE;

use crate::addrs::family;
use crate::error::{ErrorKind, Result};
use crate::links::LinkInfo;
use crate::routes::RTMSG;
use crate::socket::Netlink;
use crate::wire::message::{Message, Reply, find, read_u32};
use crate::wire::rt::{
    RTA_DST, RTA_MULTIPATH, RTA_OIF, RTA_PRIORITY, RTA_TABLE, RTM_F_FIB_MATCH, RTM_F_LOOKUP_TABLE,
    RTM_GETROUTE, RTN_UNICAST,
};

/// Addresses that are for documentation (RFC 5737, RFC 3849), so that hardly any route but the
/// default one leads there.
const FAR_AWAY: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];
/// Where the interface's number stands in `struct rtnexthop`.
const NEXT_HOP_INDEX: usize = 4;

/// What a lookup came to.
enum Match {
    /// The default route, out of the interface with this number.
    Default(u32),
    /// No route at all.
    Nothing,
    /// A route to a narrower destination, which hides the default route.
    Narrower,
}

// === impl Netlink: the default route ===

impl Netlink {
    /// The device that packets leave by when no other route says where: IPv4's default route, else
    /// IPv6's.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn default_route_device(&mut self) -> Result<Option<LinkInfo>> {
        for ip in FAR_AWAY {
            let index = match self.matching(ip, None)? {
                Match::Default(index) => Some(index),
                Match::Nothing => None,
                Match::Narrower => self.default_in_main(ip)?,
            };
            if let Some(index) = index {
                return self.link_by_index(index);
            }
        }
        Ok(None)
    }

    /// The device of the default route of one family in the main table, whatever rules send packets
    /// to other tables first.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn main_default_device(&mut self, v4: bool) -> Result<Option<LinkInfo>> {
        let ip = FAR_AWAY[usize::from(!v4)];
        let index = match self.matching(ip, Some(MAIN_TABLE))? {
            Match::Default(index) => Some(index),
            Match::Nothing | Match::Narrower => self.default_in_main(ip)?,
        };
        match index {
            Some(index) => self.link_by_index(index),
            None => Ok(None),
        }
    }

    fn matching(&mut self, ip: IpAddr, table: Option<u32>) -> Result<Match> {
        let mut body = [0; RTMSG];
        body[0] = family(ip);
        body[1] = if ip.is_ipv4() { 32 } else { 128 };
        // The second, because the kernel says it was the main table otherwise.
        let flags = RTM_F_FIB_MATCH | RTM_F_LOOKUP_TABLE;
        body[8..12].copy_from_slice(&flags.to_ne_bytes());
        let mut message = Message::new(RTM_GETROUTE, 0, &body);
        message.ip(RTA_DST, ip);
        let reply = match self.wire.query(message, ("match route to", &ip)) {
            // The network is unreachable.
            Err(error) if error.kind == ErrorKind::Other => return Ok(Match::Nothing),
            // An unreachable or prohibiting route, or a kernel that cannot match.
            Err(_) => return Ok(Match::Narrower),
            Ok(None) => return Ok(Match::Nothing),
            Ok(Some(reply)) => reply,
        };
        let attributes = reply.body.get(RTMSG..).unwrap_or_default();
        let found_in = find(attributes, RTA_TABLE).map(|value| read_u32(value, 0));
        let is_default = is_default(&reply) && table.is_none_or(|table| found_in == Some(table));
        Ok(match out_of(attributes).filter(|_| is_default) {
            Some(index) => Match::Default(index),
            None => Match::Narrower,
        })
    }

    /// Read from the whole table.
    fn default_in_main(&mut self, ip: IpAddr) -> Result<Option<u32>> {
        let mut body = [0; RTMSG];
        body[0] = family(ip);
        let message = Message::new(RTM_GETROUTE, 0, &body);
        let found = self.wire.dump(&message, ("list", &"routes"))?;
        let in_main = found.iter().filter(|reply| is_default(reply));
        let in_main = in_main.filter_map(|reply| {
            let attributes = reply.body.get(RTMSG..)?;
            let number = |kind| find(attributes, kind).map(|value| read_u32(value, 0));
            let main = number(RTA_TABLE) == Some(MAIN_TABLE);
            let index = out_of(attributes).filter(|_| main)?;
            Some((number(RTA_PRIORITY).unwrap_or(0), index))
        });
        let best = in_main.min_by_key(|(priority, _)| *priority);
        Ok(best.map(|(_, index)| index))
    }
}

fn is_default(reply: &Reply) -> bool {
    reply.body.get(1) == Some(&0) && reply.body.get(7) == Some(&RTN_UNICAST)
}

/// The interface that a route leaves by; of several next hops, the first one's.
fn out_of(attributes: &[u8]) -> Option<u32> {
    let device = find(attributes, RTA_OIF).map(|value| read_u32(value, 0));
    let first_hop = || find(attributes, RTA_MULTIPATH).map(|value| read_u32(value, NEXT_HOP_INDEX));
    device.or_else(first_hop)
}
