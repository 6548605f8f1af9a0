//! Which interface carries traffic between nodes, and under which address others send to it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use netstate::{IfName, Mtu};

use crate::config::UplinkChoice;

/// An interface as the choice needs it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Interface {
    /// Its name.
    pub name: IfName,
    /// Its MTU.
    pub mtu: Option<Mtu>,
    /// Its addresses, in the kernel's order.
    pub addresses: Vec<IpAddr>,
}

/// The chosen interface.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Uplink {
    /// Its name.
    pub device: IfName,
    /// Its MTU.
    pub mtu: Mtu,
    /// Source of encapsulated packets: the interface's own address.
    pub local: Ipv4Addr,
    /// Where others send to.
    pub public_ip: Ipv4Addr,
}

/// No interface can be used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NoUplink {
    /// Nothing matches what was asked for.
    #[error("no interface matches {0}; name one with --iface")]
    NoMatch(String),
    /// The interface cannot carry IPv4.
    #[error("interface {0} has no global IPv4 address; give it one or name another with --iface")]
    NoAddress(IfName),
    /// The interface's MTU is unknown or too small.
    #[error("interface {0} has no usable MTU; name another with --iface")]
    NoMtu(IfName),
}

/// Chooses among `interfaces`: by `choice`, else the one that has a Node address (`node`), else
/// the one that `source_to` (the source the kernel would use to reach an address) points to.
///
/// # Errors
/// When nothing matches, or what matches cannot be used.
pub fn choose(
    choice: &UplinkChoice,
    interfaces: &[Interface],
    node: &[IpAddr],
    source_to: impl Fn(IpAddr) -> Option<IpAddr>,
) -> Result<Uplink, NoUplink> {
    let chosen = pick(choice, interfaces, node, source_to)?;
    let own: Vec<Ipv4Addr> = chosen.addresses.iter().filter_map(global_v4).collect();
    let named = choice.public_ip.filter(|ip| own.contains(ip));
    let of_node = || own.iter().find(|ip| node.contains(&IpAddr::V4(**ip)));
    let local = named
        .or_else(|| of_node().copied())
        .or_else(|| own.first().copied())
        .ok_or_else(|| NoUplink::NoAddress(chosen.name.clone()))?;
    Ok(Uplink {
        device: chosen.name.clone(),
        mtu: chosen
            .mtu
            .ok_or_else(|| NoUplink::NoMtu(chosen.name.clone()))?,
        local,
        public_ip: choice.public_ip.unwrap_or(local),
    })
}

fn pick<'a>(
    choice: &UplinkChoice,
    interfaces: &'a [Interface],
    node: &[IpAddr],
    source_to: impl Fn(IpAddr) -> Option<IpAddr>,
) -> Result<&'a Interface, NoUplink> {
    let with = |address: IpAddr| interfaces.iter().find(|i| i.addresses.contains(&address));
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
    if let Some(found) = choice.public_ip.and_then(|ip| with(ip.into())) {
        return Ok(found);
    }
    if let Some(found) = node
        .iter()
        .filter(|ip| ip.is_ipv4())
        .find_map(|ip| with(*ip))
    {
        return Ok(found);
    }
    // Any address outside of every interface's prefix takes the default route; nothing is sent.
    let anywhere = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    source_to(anywhere)
        .and_then(with)
        .ok_or_else(|| NoUplink::NoMatch("the Node's InternalIP or a default route".to_owned()))
}

fn by_name<'a>(choice: &UplinkChoice, interfaces: &'a [Interface]) -> Option<&'a Interface> {
    choice.interfaces.iter().find_map(|wanted| {
        let address = wanted.parse::<IpAddr>().ok();
        interfaces.iter().find(|interface| match address {
            Some(address) => interface.addresses.contains(&address),
            None => interface.name.as_str() == wanted,
        })
    })
}

fn by_expression<'a>(choice: &UplinkChoice, interfaces: &'a [Interface]) -> Option<&'a Interface> {
    choice.expressions.iter().find_map(|wanted| {
        let by_name = interfaces.iter().find(|i| wanted.is_match(i.name.as_str()));
        by_name.or_else(|| {
            let matches = |ip: &IpAddr| wanted.is_match(&ip.to_string());
            interfaces.iter().find(|i| i.addresses.iter().any(matches))
        })
    })
}

fn global_v4(address: &IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(v4) if !v4.is_loopback() && !v4.is_link_local() => Some(*v4),
        _ => None,
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
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        };
        vec![
            interface("lo", &["127.0.0.1", "::1"]),
            interface("eth0", &["10.0.2.15"]),
            interface("eth1", &["169.254.7.7", "172.30.0.5", "172.30.0.6"]),
            interface("eth2", &["fd00::2"]),
        ]
    }

    fn chosen(choice: &UplinkChoice, node: &[&str]) -> Result<(String, String, String), String> {
        let node: Vec<IpAddr> = node.iter().map(|a| a.parse().unwrap()).collect();
        let by_route = |_| "10.0.2.15".parse().ok();
        choose(choice, &interfaces(), &node, by_route)
            .map(|u| {
                (
                    u.device.to_string(),
                    u.local.to_string(),
                    u.public_ip.to_string(),
                )
            })
            .map_err(|error| error.to_string())
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
