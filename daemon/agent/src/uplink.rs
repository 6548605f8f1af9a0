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

/// Chooses among `interfaces` one for `families`: by `choice`, else the one that has a Node address
/// (`node`), else the one that `source_to` (the source the kernel would use to reach an address)
/// points to.
///
/// # Errors
/// When nothing matches, or what matches cannot be used.
pub fn choose(
    choice: &UplinkChoice,
    interfaces: &[Interface],
    node: &[IpAddr],
    families: Families,
    source_to: impl Fn(IpAddr) -> Option<IpAddr>,
) -> Result<Uplink, NoUplink> {
    let chosen = pick(choice, interfaces, node, families, source_to)?;
    let missing = |family| NoUplink::NoAddress(chosen.name.clone(), family);
    let v4 = || own(chosen, node, choice.public_ip, global_v4).ok_or_else(|| missing("IPv4"));
    let v6 = || own(chosen, node, choice.public_ipv6, global_v6).ok_or_else(|| missing("IPv6"));
    let mtu = chosen
        .mtu
        .ok_or_else(|| NoUplink::NoMtu(chosen.name.clone()));
    Ok(Uplink {
        v4: families.v4.then(v4).transpose()?,
        v6: families.v6.then(v6).transpose()?,
        device: chosen.name.clone(),
        mtu: mtu?,
        adjacent: adjacent(chosen),
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

/// The addresses of one family: the one to publish if it is the interface's, else one that the Node
/// has, else the first.
fn own<Ip: Copy + Eq + Into<IpAddr>>(
    chosen: &Interface,
    node: &[IpAddr],
    published: Option<Ip>,
    global: impl Fn(IpAddr) -> Option<Ip>,
) -> Option<Addresses<Ip>> {
    let own: Vec<Ip> = chosen
        .addresses
        .iter()
        .filter_map(|address| global(address.ip()))
        .collect();
    let named = published.filter(|ip| own.contains(ip));
    let of_node = || own.iter().find(|ip| node.contains(&(**ip).into())).copied();
    let local = named.or_else(of_node).or_else(|| own.first().copied())?;
    Some(Addresses {
        local,
        public_ip: published.unwrap_or(local),
    })
}

fn pick<'a>(
    choice: &UplinkChoice,
    interfaces: &'a [Interface],
    node: &[IpAddr],
    families: Families,
    source_to: impl Fn(IpAddr) -> Option<IpAddr>,
) -> Result<&'a Interface, NoUplink> {
    let with = |address: IpAddr| interfaces.iter().find(|i| i.has(address));
    let named = !choice.interfaces.is_empty() || !choice.expressions.is_empty();
    if named {
        let all = choice.interfaces.iter().cloned();
        let all = all.chain(choice.expressions.iter().map(ToString::to_string));
        return by_name(choice, interfaces)
            .or_else(|| by_expression(choice, interfaces))
            .ok_or_else(|| NoUplink::NoMatch(all.collect::<Vec<_>>().join(", ")));
    }
    if let Some(target) = choice.can_reach {
        return source_to(target)
            .and_then(with)
            .ok_or_else(|| NoUplink::NoMatch(format!("a route to {target}")));
    }
    let published = [
        choice.public_ip.map(IpAddr::from),
        choice.public_ipv6.map(IpAddr::from),
    ];
    let wanted = |ip: &IpAddr| {
        if ip.is_ipv4() {
            families.v4
        } else {
            families.v6
        }
    };
    let known = published.iter().flatten().chain(node);
    if let Some(found) = known.copied().filter(wanted).find_map(with) {
        return Ok(found);
    }
    // Any address outside of every interface's prefix takes the default route; nothing is sent.
    let anywhere: IpAddr = if families.v4 {
        Ipv4Addr::new(192, 0, 2, 1).into()
    } else {
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into()
    };
    source_to(anywhere)
        .and_then(with)
        .ok_or_else(|| NoUplink::NoMatch("the Node's InternalIP or a default route".to_owned()))
}

fn by_name<'a>(choice: &UplinkChoice, interfaces: &'a [Interface]) -> Option<&'a Interface> {
    choice.interfaces.iter().find_map(|wanted| {
        let address = wanted.parse::<IpAddr>().ok();
        interfaces.iter().find(|interface| match address {
            Some(address) => interface.has(address),
            None => interface.name.as_str() == wanted,
        })
    })
}

fn by_expression<'a>(choice: &UplinkChoice, interfaces: &'a [Interface]) -> Option<&'a Interface> {
    choice.expressions.iter().find_map(|wanted| {
        let by_name = interfaces.iter().find(|i| wanted.is_match(i.name.as_str()));
        by_name.or_else(|| {
            let matches = |one: &IpNetwork| wanted.is_match(&one.ip().to_string());
            interfaces.iter().find(|i| i.addresses.iter().any(matches))
        })
    })
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
mod tests {
    use pretty_assertions::assert_eq;
    use regex::Regex;

    use super::*;

    fn interfaces() -> Vec<Interface> {
        let interface = |name: &str, addresses: &[&str]| Interface {
            name: name.parse().unwrap(),
            mtu: Mtu::try_from(1500).ok(),
            addresses: addresses.iter().map(|a| prefixed(a)).collect(),
        };
        vec![
            interface("lo", &["127.0.0.1", "::1"]),
            interface("eth0", &["10.0.2.15"]),
            interface("eth1", &["169.254.7.7", "172.30.0.5", "172.30.0.6"]),
            interface("eth2", &["fd00::2"]),
            interface("eth3", &["172.31.0.7", "fe80::7", "fd00:1::7"]),
        ]
    }

    fn prefixed(address: &str) -> IpNetwork {
        let ip: IpAddr = address.parse().unwrap();
        IpNetwork::new(ip, if ip.is_ipv4() { 24 } else { 64 }).unwrap()
    }

    fn of_families(choice: &UplinkChoice, node: &[&str], v6: bool) -> Result<Uplink, String> {
        let node: Vec<IpAddr> = node.iter().map(|a| a.parse().unwrap()).collect();
        let by_route = |_| "10.0.2.15".parse().ok();
        choose(
            choice,
            &interfaces(),
            &node,
            Families { v4: true, v6 },
            by_route,
        )
        .map_err(|error| error.to_string())
    }

    fn chosen(choice: &UplinkChoice, node: &[&str]) -> Result<(String, String, String), String> {
        let found = of_families(choice, node, false)?;
        let v4 = found.v4.unwrap();
        let (local, public) = (v4.local.to_string(), v4.public_ip.to_string());
        Ok((found.device.to_string(), local, public))
    }

    fn three(device: &str, local: &str, public: &str) -> Result<(String, String, String), String> {
        Ok((device.to_owned(), local.to_owned(), public.to_owned()))
    }

    #[test]
    fn the_nodes_address_wins_over_the_default_route() {
        let choice = UplinkChoice::default();
        assert_eq!(
            chosen(&choice, &["172.30.0.6"]),
            three("eth1", "172.30.0.6", "172.30.0.6")
        );
        assert_eq!(
            chosen(&choice, &["192.168.9.9"]),
            three("eth0", "10.0.2.15", "10.0.2.15")
        );
    }

    #[test]
    fn flags_win_in_flannels_order() {
        let mut choice = UplinkChoice {
            can_reach: Some("10.0.2.2".parse().unwrap()),
            ..UplinkChoice::default()
        };
        assert_eq!(
            chosen(&choice, &["172.30.0.6"]),
            three("eth0", "10.0.2.15", "10.0.2.15")
        );
        choice.expressions = vec![Regex::new(r"^172\.30").unwrap()];
        assert_eq!(
            chosen(&choice, &[]),
            three("eth1", "172.30.0.5", "172.30.0.5")
        );
        choice.interfaces = vec!["eth9".to_owned(), "10.0.2.15".to_owned()];
        assert_eq!(
            chosen(&choice, &[]),
            three("eth0", "10.0.2.15", "10.0.2.15")
        );
    }

    #[test]
    fn a_public_address_need_not_be_local() {
        let mut choice = UplinkChoice {
            public_ip: Some("203.0.113.9".parse().unwrap()),
            ..UplinkChoice::default()
        };
        assert_eq!(
            chosen(&choice, &[]),
            three("eth0", "10.0.2.15", "203.0.113.9")
        );
        choice.public_ip = Some("172.30.0.6".parse().unwrap());
        assert_eq!(
            chosen(&choice, &[]),
            three("eth1", "172.30.0.6", "172.30.0.6")
        );
    }

    #[test]
    fn both_families_are_taken_from_one_interface() {
        let found = of_families(&UplinkChoice::default(), &["172.31.0.7"], true).unwrap();
        assert_eq!(found.device.as_str(), "eth3");
        assert_eq!(found.v4.unwrap().local.to_string(), "172.31.0.7");
        assert_eq!(found.v6.unwrap().public_ip.to_string(), "fd00:1::7");
        let adjacent: Vec<String> = found.adjacent.iter().map(ToString::to_string).collect();
        assert_eq!(adjacent, ["172.31.0.0/24", "fd00:1::/64"]);
        assert_eq!(
            of_families(&UplinkChoice::default(), &["172.30.0.6"], true).unwrap_err(),
            "interface eth1 has no global IPv6 address; give it one or name another with --iface"
        );
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let mut choice = UplinkChoice {
            interfaces: vec!["eth9".to_owned()],
            ..UplinkChoice::default()
        };
        assert_eq!(
            chosen(&choice, &[]).unwrap_err(),
            "no interface matches eth9; name one with --iface"
        );
        choice.interfaces = vec!["eth2".to_owned()];
        assert_eq!(
            chosen(&choice, &[]).unwrap_err(),
            "interface eth2 has no global IPv4 address; give it one or name another with --iface"
        );
    }

    #[test]
    fn the_kernel_tells_the_source_to_loopback() {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        assert_eq!(kernel_source_to(loopback), Some(loopback));
    }
}
