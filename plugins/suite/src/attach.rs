//! What `bridge` and `ptp` have in common: both ends of a veth, and the pod's side of it.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hostnet::Netlink;
use hostnet::apply::Places;
use ipnetwork::IpNetwork;
use netstate::{
    Address, IfName, Link, LinkKind, MacAddr, Mtu, NetnsPath, Op, Route, Scope, Step, VethPeer,
};
use protocol::{AddResult, Error, Interface, IpConfig, Request};

use crate::identity::Identity;
use crate::pod;

/// Both ends of a pod's veth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// Name of the host's end.
    pub host: IfName,
    /// Ethernet address of the host's end.
    pub host_mac: MacAddr,
    /// Name of the pod's end.
    pub pod: IfName,
    /// Ethernet address of the pod's end.
    pub pod_mac: MacAddr,
    /// The pod's namespace.
    pub netns: NetnsPath,
    /// MTU of both; `None` is the kernel's.
    pub mtu: Option<Mtu>,
}

// === impl Pair ===

impl Pair {
    /// The ends that belong to `request`; `mac` overrides the pod's address.
    ///
    /// # Errors
    /// Code 4 when a variable is no name or path.
    pub fn of(
        request: &Request<'_>,
        mtu: Option<Mtu>,
        mac: Option<MacAddr>,
    ) -> Result<Self, Error> {
        let identity = identity(request);
        Ok(Self {
            host: host_name(request)?,
            host_mac: identity.host_mac(),
            pod: pod::ifname(request)?,
            pod_mac: mac.unwrap_or_else(|| identity.pod_mac()),
            netns: pod::path(request)?,
            mtu,
        })
    }

    /// The step that makes both ends, the host's one up and a port of `master` if given.
    #[must_use]
    pub fn create(&self, master: Option<IfName>) -> Step {
        let peer = VethPeer {
            name: self.pod.clone(),
            netns: Some(self.netns.clone()),
            mac: Some(self.pod_mac),
        };
        let mut link = Link::new(self.host.clone(), LinkKind::Veth(peer)).up();
        link.mac = Some(self.host_mac);
        link.mtu = self.mtu;
        link.master = master;
        Step::host(Op::CreateLink(link))
    }

    /// The host's end as ADD reports it.
    #[must_use]
    pub fn host_interface(&self) -> Interface {
        Interface {
            name: self.host.to_string(),
            mac: self.host_mac.to_string(),
            mtu: self.mtu.map_or(0, Mtu::get),
            ..Interface::default()
        }
    }

    /// The pod's end as ADD reports it.
    #[must_use]
    pub fn pod_interface(&self) -> Interface {
        Interface {
            name: self.pod.to_string(),
            mac: self.pod_mac.to_string(),
            mtu: self.mtu.map_or(0, Mtu::get),
            sandbox: self.netns.to_string(),
            ..Interface::default()
        }
    }
}

/// The attachment that `request` is about.
#[must_use]
pub fn identity<'a>(request: &'a Request<'_>) -> Identity<'a> {
    Identity {
        container_id: &request.container_id,
        ifname: &request.ifname,
    }
}

/// The name of the host's end.
///
/// # Errors
/// Never for what is computed here.
pub fn host_name(request: &Request<'_>) -> Result<IfName, Error> {
    identity(request)
        .host_name()
        .map_err(|error| Error::other(error.to_string()))
}

/// Writes `value` to a parameter of an interface, where this kernel has it.
#[must_use]
pub fn interface_sysctl(family: &str, name: &IfName, parameter: &str, value: &str) -> Op {
    Op::WriteSysctl {
        name: format!("net/{family}/conf/{name}/{parameter}"),
        value: value.to_owned(),
        required: false,
    }
}

/// What an interface with IPv6 addresses needs so that they work at once and stay.
pub fn ipv6_sysctls(name: &IfName) -> impl Iterator<Item = Op> {
    let settings = [
        ("disable_ipv6", "0"),
        ("keep_addr_on_down", "1"),
        ("accept_dad", "0"),
    ];
    settings
        .map(|(key, value)| interface_sysctl("ipv6", name, key, value))
        .into_iter()
}

/// Forwarding for the families of `ips`.
pub fn forwarding(ips: &[IpConfig]) -> impl Iterator<Item = Step> {
    let families = [
        (true, "net/ipv4/ip_forward"),
        (false, "net/ipv6/conf/all/forwarding"),
    ];
    families
        .into_iter()
        .filter(|(v4, _)| ips.iter().any(|ip| ip.address.is_ipv4() == *v4))
        .map(|(_, name)| {
            let (name, value) = (name.to_owned(), "1".to_owned());
            Step::host(Op::WriteSysctl {
                name,
                value,
                required: true,
            })
        })
}

/// The addresses of the pod's end, before it is brought up.
pub fn pod_addresses<'a>(
    pod: &'a IfName,
    ips: &'a [IpConfig],
    prefix_route: bool,
) -> impl Iterator<Item = Step> + 'a {
    ips.iter().map(move |ip| {
        let address = Address::new(ip.address);
        let address = if prefix_route {
            address
        } else {
            address.without_prefix_route()
        };
        Step::pod(Op::AddAddress(pod.clone(), address))
    })
}

/// The routes that IPAM asked for, through the first gateway of their family if they name none. A
/// destination asked for twice is made once.
///
/// # Errors
/// Code 7 for a route without any gateway, or of another table's or scope's form.
pub fn pod_routes(pod: &IfName, addresses: &AddResult) -> Result<Vec<Step>, Error> {
    let mut seen = BTreeSet::new();
    let mut steps = Vec::new();
    for wanted in &addresses.routes {
        let mut route = Route::via_device(wanted.dst, pod.clone());
        route.key.priority = wanted.priority.unwrap_or(0);
        route.key.table = wanted.table.filter(|t| *t != 0).unwrap_or(route.key.table);
        route.mtu = wanted.mtu.filter(|mtu| *mtu != 0);
        route.advmss = wanted.advmss.filter(|mss| *mss != 0);
        route.scope = wanted.scope.map(scope).transpose()?;
        let on_link = matches!(route.scope, Some(Scope::Link | Scope::Host));
        route.gateway = wanted
            .gw
            .or_else(|| first_gateway(addresses, wanted.dst).filter(|_| !on_link));
        if route.gateway.is_none() && !on_link {
            let dst = wanted.dst;
            let msg =
                format!("ipam: route to {dst} has no gateway; give gw, or an address with one");
            return Err(Error::config(msg));
        }
        if seen.insert(route.key) {
            steps.push(Step::pod(Op::AddRoute(route)));
        }
    }
    Ok(steps)
}

fn scope(number: u32) -> Result<Scope, Error> {
    u8::try_from(number)
        .ok()
        .and_then(Scope::from_number)
        .ok_or_else(|| {
            Error::config(format!(
                "ipam: route scope {number} is unknown; give 0, 200, 253, 254 or 255"
            ))
        })
}

fn first_gateway(addresses: &AddResult, dst: IpNetwork) -> Option<IpAddr> {
    let same_family = |gateway: &IpAddr| gateway.is_ipv4() == dst.is_ipv4();
    addresses
        .ips
        .iter()
        .filter_map(|ip| ip.gateway)
        .find(same_family)
}

/// `0.0.0.0/0` or `::/0`, of the family of `ip`.
#[must_use]
pub fn default_route(ip: IpAddr) -> IpNetwork {
    let any: IpAddr = if ip.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    // A prefix length of zero is within the range of both families.
    IpNetwork::new(any, 0).unwrap_or_else(|_| IpNetwork::from(any))
}

/// Removes the pod's interface from whichever side it can be seen. What is gone is no error, and
/// what has the name but not the address of the host's end is somebody else's.
///
/// # Errors
/// When the kernel refuses to remove what is there.
pub fn detach(request: &Request<'_>) -> Result<(), Error> {
    let failed = |error: hostnet::Error| pod::kernel(&error);
    let mut host = Netlink::open().map_err(failed)?;
    let (name, mac) = (host_name(request)?, identity(request).host_mac());
    let link = host.link(&name).map_err(failed)?;
    if link.is_some_and(|link| link.mac == Some(mac)) {
        host.delete_link(&name).map_err(failed)?;
    }
    if let Some(netns) = pod::open_if_there(request) {
        let mut inside = Netlink::open_in(&netns).map_err(failed)?;
        inside.delete_link(&pod::ifname(request)?).map_err(failed)?;
    }
    Ok(())
}

/// Checks that the pod's interface, its addresses and the result's routes are there, and that its
/// peer is the host's interface of the result.
///
/// # Errors
/// What is missing or differs.
pub fn check_pod(request: &Request<'_>, places: &mut Places) -> Result<AddResult, Error> {
    let Some(before) = request.prev_result.clone() else {
        return Err(Error::config(
            "prevResult is missing; CHECK compares with it",
        ));
    };
    let failed = |error: hostnet::Error| pod::kernel(&error);
    let name = pod::ifname(request)?;
    let host_links = places.host().links().map_err(failed)?;
    let netlink = places.pod().map_err(failed)?;
    let gone = || Error::other(format!("interface {name} is gone from the container"));
    let link = netlink.link(&name).map_err(failed)?.ok_or_else(gone)?;
    if !link.up {
        return Err(Error::other(format!(
            "interface {name} is down in the container"
        )));
    }
    let own = before
        .interfaces
        .iter()
        .position(|i| i.name == request.ifname && !i.sandbox.is_empty());
    if let Some(interface) = own.map(|at| &before.interfaces[at]) {
        let mac = link.mac.map(|mac| mac.to_string()).unwrap_or_default();
        if !interface.mac.is_empty() && !interface.mac.eq_ignore_ascii_case(&mac) {
            return Err(Error::other(format!(
                "interface {name} has MAC {mac}, not {}",
                interface.mac
            )));
        }
    }
    let peer = host_links
        .iter()
        .find(|host| Some(host.index) == link.peer && host.kind == "veth");
    let peer = peer.ok_or_else(|| Error::other(format!("the host's end of {name} is gone")))?;
    if !peer.up {
        return Err(Error::other(format!(
            "the host's end {} of {name} is down",
            peer.name
        )));
    }
    check_addresses(netlink, &name, &before, own)?;
    check_routes(netlink, &before)?;
    Ok(before)
}

fn check_addresses(
    netlink: &mut Netlink,
    name: &IfName,
    before: &AddResult,
    own: Option<usize>,
) -> Result<(), Error> {
    let found = netlink
        .addresses(name)
        .map_err(|error| pod::kernel(&error))?;
    let ours = before
        .ips
        .iter()
        .filter(|ip| ip.interface.is_none() || ip.interface == own);
    for ip in ours {
        if !found.iter().any(|address| address.ip == ip.address) {
            return Err(Error::other(format!(
                "address {} is gone from {name}",
                ip.address
            )));
        }
    }
    Ok(())
}

fn check_routes(netlink: &mut Netlink, before: &AddResult) -> Result<(), Error> {
    let found = netlink.routes(None).map_err(|error| pod::kernel(&error))?;
    for route in &before.routes {
        let dst = netstate::route::masked(route.dst);
        let gateway = route.gw.or_else(|| first_gateway(before, route.dst));
        let there = found
            .iter()
            .any(|f| f.key.destination == dst && (f.gateway == gateway || gateway.is_none()));
        if !there {
            return Err(Error::other(format!(
                "route to {dst} is gone from the container"
            )));
        }
    }
    Ok(())
}
