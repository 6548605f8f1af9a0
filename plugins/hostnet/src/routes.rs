//! Routes: observe, add, replace, delete.

mod default;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use netstate::{IfName, Route, RouteKey, RouteKind, Scope};

use crate::addrs::family;
use crate::error::{ErrorKind, Result, absent_is_fine};
use crate::socket::Netlink;
use crate::wire::message::{
    Message, NLM_F_CREATE, NLM_F_REPLACE, Reply, attrs, find, read_ip, read_u32,
};
use crate::wire::rt::{
    RT_TABLE_LOCAL, RT_TABLE_UNSPEC, RTA_DST, RTA_GATEWAY, RTA_METRICS, RTA_OIF, RTA_PREFSRC,
    RTA_PRIORITY, RTA_TABLE, RTA_VIA, RTAX_ADVMSS, RTAX_MTU, RTM_DELROUTE, RTM_F_CLONED,
    RTM_GETROUTE, RTM_NEWROUTE, RTN_BLACKHOLE, RTN_LOCAL, RTN_UNICAST, RTNH_F_ONLINK,
};

/// Length of `struct rtmsg`.
pub(crate) const RTMSG: usize = 12;
/// Where the route type stands in it.
const TYPE: usize = 7;
/// What IPv6 makes of no metric.
const IP6_PRIORITY: u32 = 1024;

/// Route protocol of routes set by hand (`RTPROT_BOOT`), which the plugins' routes have.
pub const PROTOCOL_BOOT: u8 = 3;
/// Route protocol of the daemon's routes: it owns every route with this number and no other.
pub const PROTOCOL_TOWLINE: u8 = 84;

// === impl Netlink: routes ===

impl Netlink {
    /// All unicast routes with one next hop outside the local table; of `protocol` only, if given.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn routes(&mut self, protocol: Option<u8>) -> Result<Vec<Route>> {
        let mut routes = self.routes_of_any_kind(protocol)?;
        routes.retain(|route| route.kind == RouteKind::Unicast);
        Ok(routes)
    }

    /// Like [`Netlink::routes`], with black holes.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn routes_of_any_kind(&mut self, protocol: Option<u8>) -> Result<Vec<Route>> {
        let names: BTreeMap<u32, IfName> = self
            .links()?
            .into_iter()
            .map(|link| (link.index, link.name))
            .collect();
        let mut routes = Vec::new();
        for address_family in [libc::AF_INET, libc::AF_INET6] {
            let mut body = [0; RTMSG];
            body[0] = u8::try_from(address_family).unwrap_or(0);
            body[5] = protocol.unwrap_or(0);
            let message = Message::new(RTM_GETROUTE, 0, &body);
            let found = self.wire.dump(&message, ("list", &"routes"))?;
            let ours = |reply: &&Reply| protocol.is_none_or(|p| reply.body.get(5) == Some(&p));
            routes.extend(
                found
                    .iter()
                    .filter(ours)
                    .filter_map(|reply| parse(reply, &names)),
            );
        }
        Ok(routes)
    }

    /// Adds a route. One with its key but another next hop is no obstacle: over IPv4 the new one
    /// goes before it, over IPv6 the two are used in turn.
    ///
    /// # Errors
    /// When this very route is there, its device or gateway is not reachable, or the kernel
    /// refuses.
    pub fn add_route(&mut self, route: &Route, protocol: u8) -> Result<()> {
        self.new_route(route, protocol, NLM_F_CREATE, "add route")
    }

    /// Adds a route, or makes the one with its key like it.
    ///
    /// # Errors
    /// When its device or gateway is not reachable, or the kernel refuses.
    pub fn replace_route(&mut self, route: &Route, protocol: u8) -> Result<()> {
        self.new_route(route, protocol, NLM_F_CREATE | NLM_F_REPLACE, "set route")
    }

    /// Removes the route with `key`, of `protocol` and out of `device` only where given; an absent
    /// one is no error.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn delete_route(
        &mut self,
        key: &RouteKey,
        device: Option<&IfName>,
        protocol: Option<u8>,
    ) -> Result<()> {
        let mut body = rtmsg(key);
        body[5] = protocol.unwrap_or(0);
        body[6] = Scope::Nowhere.number();
        let mut message = Message::new(RTM_DELROUTE, 0, &body);
        key_attributes(&mut message, key);
        if let Some(name) = device {
            match self.link(name)? {
                Some(link) => {
                    message.u32(RTA_OIF, link.index);
                }
                None => return Ok(()),
            }
        }
        absent_is_fine(self.wire.request(message, ("delete route", key)))
    }

    /// Where the kernel would send a packet to `ip`: next hop, interface number, source address.
    ///
    /// # Errors
    /// When there is no route or the kernel refuses to tell.
    pub fn route_to(&mut self, ip: IpAddr) -> Result<(Option<IpAddr>, u32, Option<IpAddr>)> {
        let mut body = [0; RTMSG];
        body[0] = family(ip);
        body[1] = if ip.is_ipv4() { 32 } else { 128 };
        let mut message = Message::new(RTM_GETROUTE, 0, &body);
        message.ip(RTA_DST, ip);
        let reply = self.wire.query(message, ("find route to", &ip))?;
        let attributes = reply
            .as_ref()
            .and_then(|r| r.body.get(RTMSG..))
            .unwrap_or_default();
        let address = |kind| find(attributes, kind).and_then(read_ip);
        let device = find(attributes, RTA_OIF).map_or(0, |value| read_u32(value, 0));
        Ok((address(RTA_GATEWAY), device, address(RTA_PREFSRC)))
    }

    /// Whether `ip` is an address of this host.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn is_local(&mut self, ip: IpAddr) -> Result<bool> {
        let mut body = [0; RTMSG];
        body[0] = family(ip);
        body[1] = if ip.is_ipv4() { 32 } else { 128 };
        let mut message = Message::new(RTM_GETROUTE, 0, &body);
        message.ip(RTA_DST, ip);
        let found = match self.wire.query(message, ("find route to", &ip)) {
            // The network is unreachable.
            Err(error) if error.kind == ErrorKind::Other => return Ok(false),
            other => other?,
        };
        Ok(found.is_some_and(|reply| reply.body.get(TYPE) == Some(&RTN_LOCAL)))
    }

    fn new_route(
        &mut self,
        route: &Route,
        protocol: u8,
        flags: u16,
        operation: &'static str,
    ) -> Result<()> {
        let mut body = rtmsg(&route.key);
        body[5] = protocol;
        body[6] = route.effective_scope().number();
        body[TYPE] = match route.kind {
            RouteKind::Unicast => RTN_UNICAST,
            RouteKind::Blackhole => RTN_BLACKHOLE,
        };
        if route.onlink {
            body[8..12].copy_from_slice(&RTNH_F_ONLINK.to_ne_bytes());
        }
        let mut message = Message::new(RTM_NEWROUTE, flags, &body);
        key_attributes(&mut message, &route.key);
        if let Some(gateway) = route.gateway {
            if gateway.is_ipv4() == route.key.destination.is_ipv4() {
                message.ip(RTA_GATEWAY, gateway);
            } else {
                message.attr(RTA_VIA, &via(gateway));
            }
        }
        if let Some(device) = &route.device {
            message.u32(RTA_OIF, self.link_index(device)?);
        }
        if let Some(source) = route.source {
            message.ip(RTA_PREFSRC, source);
        }
        if route.mtu.is_some() || route.advmss.is_some() {
            message.nest(RTA_METRICS, |metrics| {
                for (kind, value) in [(RTAX_MTU, route.mtu), (RTAX_ADVMSS, route.advmss)] {
                    if let Some(value) = value {
                        metrics.u32(kind, value);
                    }
                }
            });
        }
        self.wire.request(message, (operation, &shown(route)))
    }
}

/// The route as `ip-route(8)` would write it, as far as it helps to find it.
fn shown(route: &Route) -> String {
    let mut text = route.key.destination.to_string();
    if let Some(gateway) = route.gateway {
        text += &format!(" via {gateway}");
    }
    if let Some(device) = &route.device {
        text += &format!(" dev {device}");
    }
    text
}

fn rtmsg(key: &RouteKey) -> [u8; RTMSG] {
    let mut body = [0; RTMSG];
    body[0] = family(key.destination.ip());
    body[1] = key.destination.prefix();
    body[4] = u8::try_from(key.table).unwrap_or(0);
    body
}

fn key_attributes(message: &mut Message, key: &RouteKey) {
    if key.destination.prefix() != 0 {
        message.ip(RTA_DST, key.destination.network());
    }
    message.u32(RTA_TABLE, key.table);
    if key.priority != 0 {
        message.u32(RTA_PRIORITY, key.priority);
    }
}

fn via(gateway: IpAddr) -> Vec<u8> {
    let mut bytes = u16::from(family(gateway)).to_ne_bytes().to_vec();
    match gateway {
        IpAddr::V4(v4) => bytes.extend_from_slice(&v4.octets()),
        IpAddr::V6(v6) => bytes.extend_from_slice(&v6.octets()),
    }
    bytes
}

fn parse(reply: &Reply, names: &BTreeMap<u32, IfName>) -> Option<Route> {
    let body = &reply.body;
    let attributes = body.get(RTMSG..)?;
    let flags = read_u32(body, 8);
    let kind = match body[TYPE] {
        RTN_UNICAST => RouteKind::Unicast,
        RTN_BLACKHOLE => RouteKind::Blackhole,
        _ => return None,
    };
    if flags & RTM_F_CLONED != 0 {
        return None;
    }
    let v6 = i32::from(body[0]) == libc::AF_INET6;
    let anywhere = if v6 {
        Ipv6Addr::UNSPECIFIED.into()
    } else {
        Ipv4Addr::UNSPECIFIED.into()
    };
    let destination = find(attributes, RTA_DST).map_or(Some(anywhere), read_ip)?;
    let key = RouteKey {
        destination: IpNetwork::new(destination, body[1]).ok()?,
        table: find(attributes, RTA_TABLE).map_or(u32::from(body[4]), |value| read_u32(value, 0)),
        priority: find(attributes, RTA_PRIORITY)
            .map(|value| read_u32(value, 0))
            .filter(|priority| !(v6 && *priority == IP6_PRIORITY))
            .unwrap_or(0),
    };
    if matches!(key.table, RT_TABLE_LOCAL | RT_TABLE_UNSPEC) {
        return None;
    }
    let mut route = Route {
        key,
        kind,
        gateway: None,
        device: None,
        source: None,
        scope: Scope::from_number(body[6]),
        onlink: flags & RTNH_F_ONLINK != 0,
        mtu: None,
        advmss: None,
    };
    for (kind, value) in attrs(attributes) {
        match kind {
            RTA_GATEWAY => route.gateway = read_ip(value),
            RTA_VIA => route.gateway = value.get(2..).and_then(read_ip),
            RTA_OIF => route.device = names.get(&read_u32(value, 0)).cloned(),
            RTA_PREFSRC => route.source = read_ip(value),
            RTA_METRICS => {
                route.mtu = find(value, RTAX_MTU).map(|v| read_u32(v, 0));
                route.advmss = find(value, RTAX_ADVMSS).map(|v| read_u32(v, 0));
            }
            _ => {}
        }
    }
    if kind == RouteKind::Blackhole {
        // IPv6 shows it on the loopback device.
        route.device = None;
    }
    let observed = route.scope.take();
    if observed.is_some_and(|scope| scope != route.effective_scope()) {
        route.scope = observed;
    }
    Some(route)
}
