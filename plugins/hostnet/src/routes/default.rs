//! The default route's device, found by a lookup rather than by reading the whole table.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netstate::route::MAIN_TABLE;

use crate::addrs::family;
use crate::error::{ErrorKind, Result};
use crate::links::LinkInfo;
use crate::routes::RTMSG;
use crate::socket::Netlink;
use crate::wire::message::{Message, find, read_u32};
use crate::wire::rt::{
    RTA_DST, RTA_MULTIPATH, RTA_OIF, RTM_F_FIB_MATCH, RTM_GETROUTE, RTN_UNICAST,
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
            let index = match self.matching(ip)? {
                Match::Default(index) => Some(index),
                Match::Nothing => None,
                Match::Narrower => match self.default_in_table(ip)? {
                    Some(link) => return Ok(Some(link)),
                    None => None,
                },
            };
            if let Some(index) = index {
                return self.link_by_index(index);
            }
        }
        Ok(None)
    }

    fn matching(&mut self, ip: IpAddr) -> Result<Match> {
        let mut body = [0; RTMSG];
        body[0] = family(ip);
        body[1] = if ip.is_ipv4() { 32 } else { 128 };
        body[8..12].copy_from_slice(&RTM_F_FIB_MATCH.to_ne_bytes());
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
        let is_default = reply.body.get(1) == Some(&0) && reply.body.get(7) == Some(&RTN_UNICAST);
        let device = find(attributes, RTA_OIF).map(|value| read_u32(value, 0));
        let first_hop =
            || find(attributes, RTA_MULTIPATH).map(|value| read_u32(value, NEXT_HOP_INDEX));
        Ok(match device.or_else(first_hop).filter(|_| is_default) {
            Some(index) => Match::Default(index),
            None => Match::Narrower,
        })
    }

    fn default_in_table(&mut self, ip: IpAddr) -> Result<Option<LinkInfo>> {
        let routes = self.routes(None)?;
        let best = routes
            .into_iter()
            .filter(|route| {
                let to = route.key.destination;
                to.prefix() == 0 && to.is_ipv4() == ip.is_ipv4() && route.key.table == MAIN_TABLE
            })
            .min_by_key(|route| route.key.priority);
        match best.and_then(|route| route.device) {
            Some(name) => self.link(&name),
            None => Ok(None),
        }
    }
}
