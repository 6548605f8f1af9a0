//! Which interface carries traffic between nodes, and under which address others send to it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use ipnetwork::IpNetwork;
use netstate::route::masked;
use netstate::{IfName, Mtu};

use crate::config::UplinkChoice;

/// An interface as the choice needs it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Interface {
    /// Its name.
    pub name: IfName,
    /// Its MTU.
    pub mtu: Option<Mtu>,
    /// Its addresses with their prefixes, in the kernel's order.
    pub addresses: Vec<IpNetwork>,
    /// Whether it is an overlay device of ours, or was one.
    pub ours: bool,
}

/// The chosen interface.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Uplink {
    /// Its name.
    pub device: IfName,
    /// Its MTU.
    pub mtu: Mtu,
    /// Its part in IPv4, if that was asked for.
    pub v4: Option<Addresses<Ipv4Addr>>,
    /// Its part in IPv6, if that was asked for.
    pub v6: Option<Addresses<Ipv6Addr>>,
    /// Prefixes whose addresses are on its link.
    pub adjacent: Vec<IpNetwork>,
}

/// The chosen interface's addresses of one family.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Addresses<Ip> {
    /// Source of encapsulated packets: the interface's own address.
    pub local: Ip,
    /// Where others send to.
    pub public_ip: Ip,
}

/// The families that the interface must carry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Families {
    /// IPv4.
    pub v4: bool,
    /// IPv6.
    pub v6: bool,
}

/// No interface can be used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NoUplink {
    /// Nothing matches what was asked for.
    #[error("no interface matches {0}; name one with --iface")]
    NoMatch(String),
    /// The interface cannot carry a family.
    #[error("interface {0} has no global {1} address; give it one or name another with --iface")]
    NoAddress(IfName, &'static str),
    /// The interface's MTU is unknown or too small.
    #[error("interface {0} has no usable MTU; name another with --iface")]
    NoMtu(IfName),
}

/// What the choice is made from.
pub struct Host<'a> {
    /// All interfaces but our own.
    pub interfaces: &'a [Interface],
    /// The addresses of the Node object.
    pub node: &'a [IpAddr],
    /// The families that the interface must carry.
    pub families: Families,
    /// What was chosen before.
    pub held: Option<&'a Uplink>,
    /// What this node has told others already.
    pub announced: &'a [IpAddr],
    /// The source address that the kernel would use to reach an address.
    pub source_to: &'a dyn Fn(IpAddr) -> Option<IpAddr>,
    /// The interface of the default route.
    pub default_device: &'a dyn Fn() -> Option<IfName>,
}

/// An interface that was asked for, and the address by which.
#[derive(Clone, Copy)]
struct Candidate<'a> {
    interface: &'a Interface,
    address: Option<IpAddr>,
}

/// Chooses an interface of `host`: by `choice`, else the one that has a Node address, else the one of
/// the default route.
///
/// Where several would do, or a route decides, the one that was chosen before stays as long as it can:
/// an interface that flaps moves no lease.
///
/// # Errors
/// When nothing matches, or what matches cannot be used.
pub fn choose(choice: &UplinkChoice, host: &Host<'_>) -> Result<Uplink, NoUplink> {
    let chosen = pick(choice, host)?;
    use_of(choice, host, chosen)
}

fn use_of(
    choice: &UplinkChoice,
    host: &Host<'_>,
    chosen: Candidate<'_>,
) -> Result<Uplink, NoUplink> {
    let name = &chosen.interface.name;
    let missing = |family| NoUplink::NoAddress(name.clone(), family);
    let held = |v4| host.held.and_then(|held| held.local(v4));
    let v4 = || own(host, chosen, choice.public_ip, held(true), global_v4);
    let v6 = || own(host, chosen, choice.public_ipv6, held(false), global_v6);
    let mtu = chosen.interface.mtu;
    let mtu = mtu.ok_or_else(|| NoUplink::NoMtu(name.clone()));
    let Families {
        v4: has_v4,
        v6: has_v6,
    } = host.families;
    Ok(Uplink {
        v4: has_v4
            .then(|| v4().ok_or_else(|| missing("IPv4")))
            .transpose()?,
        v6: has_v6
            .then(|| v6().ok_or_else(|| missing("IPv6")))
            .transpose()?,
        device: name.clone(),
        mtu: mtu?,
        adjacent: adjacent(chosen.interface),
    })
}

/// Prefixes whose addresses are on the interface's link. Nobody announces a link-local address, and
/// they come and go with the link.
fn adjacent(chosen: &Interface) -> Vec<IpNetwork> {
    let addresses = chosen.addresses.iter().copied();
    let global = |one: &IpNetwork| match one {
        IpNetwork::V4(v4) => !v4.ip().is_link_local(),
        IpNetwork::V6(v6) => !v6.ip().is_unicast_link_local(),
    };
    addresses.filter(global).map(masked).collect()
}

/// The addresses of one family: the one to publish if it is the interface's, else the one that was
/// asked for, else one that the Node has, else the one in use already, else one that others know, else
/// the first.
fn own<Ip: Copy + Eq + Into<IpAddr>>(
    host: &Host<'_>,
    chosen: Candidate<'_>,
    published: Option<Ip>,
    held: Option<IpAddr>,
    global: impl Fn(IpAddr) -> Option<Ip>,
) -> Option<Addresses<Ip>> {
    let addresses = chosen.interface.addresses.iter();
    let own: Vec<Ip> = addresses.filter_map(|one| global(one.ip())).collect();
    let among = |wanted: &[IpAddr]| {
        let is_wanted = |ip: &&Ip| wanted.contains(&(**ip).into());
        own.iter().find(is_wanted).copied()
    };
    let local = published
        .filter(|ip| own.contains(ip))
        .or_else(|| among(chosen.address.as_slice()))
        .or_else(|| among(host.node))
        .or_else(|| among(held.as_slice()))
        .or_else(|| among(host.announced))
        .or_else(|| own.first().copied())?;
    Some(Addresses {
        local,
        public_ip: published.unwrap_or(local),
    })
}

fn pick<'a>(choice: &UplinkChoice, host: &Host<'a>) -> Result<Candidate<'a>, NoUplink> {
    let named = named(choice, host);
    if !named.is_empty() {
        let held = |one: &&Candidate<'_>| {
            host.held
                .is_some_and(|held| held.device == one.interface.name)
        };
        let usable = |one: &&Candidate<'_>| use_of(choice, host, **one).is_ok();
        let found = named
            .iter()
            .find(held)
            .or_else(|| named.iter().find(usable));
        return Ok(*found.unwrap_or(&named[0]));
    }
    if let Some(target) = choice.can_reach {
        let reaching = || host.by_address((host.source_to)(target)?);
        let found = host.held_still().or_else(reaching);
        return found.ok_or_else(|| NoUplink::NoMatch(format!("a route to {target}")));
    }
    if !choice.interfaces.is_empty() || !choice.expressions.is_empty() {
        let all = choice.interfaces.iter().cloned();
        let all = all.chain(choice.expressions.iter().map(ToString::to_string));
        return Err(NoUplink::NoMatch(all.collect::<Vec<_>>().join(", ")));
    }
    let published = [
        choice.public_ip.map(IpAddr::from),
        choice.public_ipv6.map(IpAddr::from),
    ];
    let known = published.iter().flatten().chain(host.node).copied();
    let mut known = known.filter(|ip| host.families.have(*ip));
    let by_route = || host.by_name((host.default_device)()?.as_str());
    known
        .find_map(|ip| host.by_address(ip))
        .or_else(|| host.held_still())
        .or_else(by_route)
        .ok_or_else(|| NoUplink::NoMatch("the Node's InternalIP or a default route".to_owned()))
}

/// What names and expressions match, in their order. An expression is looked for among addresses first.
fn named<'a>(choice: &UplinkChoice, host: &Host<'a>) -> Vec<Candidate<'a>> {
    let values = choice
        .interfaces
        .iter()
        .filter_map(|wanted| match wanted.parse::<IpAddr>() {
            Ok(address) => host.by_address(address),
            Err(_) => host.by_name(wanted),
        });
    let mut found: Vec<Candidate<'a>> = values.collect();
    for wanted in &choice.expressions {
        let addressed = host.interfaces.iter().flat_map(|interface| {
            let addresses = interface.addresses.iter().map(|one| one.ip());
            addresses.map(move |ip| (interface, ip))
        });
        let matching = addressed.filter(|(_, ip)| {
            host.families.have(*ip) && is_global(*ip) && wanted.is_match(&ip.to_string())
        });
        found.extend(matching.map(|(interface, ip)| Candidate {
            interface,
            address: Some(ip),
        }));
        let interfaces = host.interfaces.iter();
        let matching = interfaces.filter(|one| wanted.is_match(one.name.as_str()));
        found.extend(matching.map(Candidate::whole));
    }
    found
}

fn global_v4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(v4) if !v4.is_loopback() && !v4.is_link_local() => Some(v4),
        _ => None,
    }
}

fn global_v6(address: IpAddr) -> Option<Ipv6Addr> {
    match address {
        IpAddr::V6(v6) if !v6.is_loopback() && !v6.is_unicast_link_local() => Some(v6),
        _ => None,
    }
}

fn is_global(address: IpAddr) -> bool {
    global_v4(address).is_some() || global_v6(address).is_some()
}

// === impl Families ===

impl Families {
    const fn have(self, ip: IpAddr) -> bool {
        if ip.is_ipv4() { self.v4 } else { self.v6 }
    }
}

// === impl Uplink ===

impl Uplink {
    fn local(&self, v4: bool) -> Option<IpAddr> {
        if v4 {
            self.v4.map(|ends| ends.local.into())
        } else {
            self.v6.map(|ends| ends.local.into())
        }
    }
}

// === impl Candidate ===

impl<'a> Candidate<'a> {
    const fn whole(interface: &'a Interface) -> Self {
        Self {
            interface,
            address: None,
        }
    }
}

// === impl Host ===

impl<'a> Host<'a> {
    fn by_address(&self, address: IpAddr) -> Option<Candidate<'a>> {
        let interface = self.interfaces.iter().find(|one| one.has(address))?;
        Some(Candidate {
            interface,
            address: Some(address),
        })
    }

    fn by_name(&self, name: &str) -> Option<Candidate<'a>> {
        let interface = self.interfaces.iter().find(|one| one.name.as_str() == name);
        interface.map(Candidate::whole)
    }

    /// What was chosen before, if it still has one of its addresses.
    fn held_still(&self) -> Option<Candidate<'a>> {
        let held = self.held?;
        let found = self.by_name(held.device.as_str())?;
        let locals = [true, false].into_iter().filter_map(|v4| held.local(v4));
        let mut has = locals.map(|local| found.interface.has(local));
        has.any(|has| has).then_some(found)
    }
}

// === impl Interface ===

impl Interface {
    fn has(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|one| one.ip() == address)
    }
}

/// The source address that the kernel uses to reach `target`: a connected UDP socket knows it,
/// and sends nothing.
#[must_use]
pub fn kernel_source_to(target: IpAddr) -> Option<IpAddr> {
    let any: SocketAddr = match target {
        IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect((target, 9)).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

#[cfg(test)]
mod tests;
