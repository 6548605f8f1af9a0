//! The flow that plugins of one device per pod share: make the device in the pod or move it there,
//! get addresses, configure it, tell what came of it; and take it all back.

use hostnet::Netlink;
use hostnet::apply::{self, Places};
use netstate::{IfName, Mtu, Op, Step};
use protocol::{AddResult, Command, Dns, Error, Interface, IpConfig, Request};
use serde::Deserialize;

use crate::interface::{interface_sysctl, ipv6_sysctls, pod_addresses, pod_routes};
use crate::ipam::{self, IpamSection};
use crate::pod;

/// What an ADD wants besides the device itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wish {
    /// The IPAM plugin; `None` for a device without addresses, or with those in `known`.
    pub ipam: Option<String>,
    /// Addresses that are known already.
    pub known: AddResult,
    /// Name resolution, in place of IPAM's.
    pub dns: Dns,
    /// Neighbours are told when the device comes up, so that none keeps the Ethernet address that
    /// the IP address had before.
    pub announce: bool,
}

/// Attaches a pod: `make` says, after a look at host and pod, by which steps the device gets into
/// the pod under the request's name, down.
///
/// # Errors
/// Code 999 when the pod has an interface of that name; what `make`, IPAM and the kernel say.
/// Nothing is left then.
pub fn add(
    request: &Request<'_>,
    wish: &Wish,
    make: impl FnOnce(&mut Places) -> Result<Vec<Step>, Error>,
) -> Result<AddResult, Error> {
    let name = pod::ifname(request)?;
    let mut places = pod::places(request)?;
    pod::refuse_taken(request, places.pod().map_err(|error| pod::kernel(&error))?)?;
    let made = make(&mut places)?;
    let attach = |addresses: AddResult| {
        let steps = plan(&name, made, wish.announce, &addresses)?;
        apply::run(&mut places, &steps).map_err(|error| pod::failed(&error))?;
        match seen(request, &mut places, &name) {
            Ok(interface) => Ok(result(interface, addresses, &wish.dns)),
            Err(error) => {
                let leftovers = apply::revert(&mut places, &steps);
                let shown: Vec<String> = leftovers.iter().map(ToString::to_string).collect();
                Err(error.details(shown.join("; ")))
            }
        }
    };
    match &wish.ipam {
        Some(plugin) => ipam::with_addresses(request, plugin, attach),
        None => attach(wish.known.clone()),
    }
}

/// PURE: the steps that make the device `name` in the pod, and configure it.
///
/// # Errors
/// What [`pod_routes`] says.
pub fn plan(
    name: &IfName,
    made: Vec<Step>,
    announce: bool,
    addresses: &AddResult,
) -> Result<Vec<Step>, Error> {
    let has = |v4| {
        let mut ips = addresses.ips.iter();
        ips.any(|ip| ip.address.is_ipv4() == v4)
    };
    let mut steps = made;
    if announce && has(true) {
        let op = interface_sysctl("ipv4", name, "arp_notify", "1");
        steps.push(Step::pod(op));
    }
    if has(false) {
        steps.extend(ipv6_sysctls(name).map(Step::pod));
        if announce {
            let op = interface_sysctl("ipv6", name, "ndisc_notify", "1");
            steps.push(Step::pod(op));
        }
    }
    steps.extend(pod_addresses(name, &addresses.ips, true));
    steps.push(Step::pod(Op::SetUp(name.clone())));
    steps.extend(pod_routes(name, addresses)?);
    Ok(steps)
}

/// The device as ADD reports it: what the kernel made of the wish.
fn seen(request: &Request<'_>, places: &mut Places, name: &IfName) -> Result<Interface, Error> {
    let failed = |error: hostnet::Error| pod::kernel(&error);
    let netlink = places.pod().map_err(failed)?;
    let link = netlink.link(name).map_err(failed)?;
    let link =
        link.ok_or_else(|| Error::other(format!("interface {name} is gone from the container")))?;
    Ok(Interface {
        name: name.to_string(),
        mac: link.mac.map(|mac| mac.to_string()).unwrap_or_default(),
        mtu: link.mtu.map_or(0, Mtu::get),
        sandbox: request.netns.clone().unwrap_or_default(),
        ..Interface::default()
    })
}

/// PURE: a result with this one interface, which all addresses belong to.
#[must_use]
pub fn result(interface: Interface, addresses: AddResult, dns: &Dns) -> AddResult {
    let ips = addresses.ips.into_iter().map(|ip| IpConfig {
        interface: Some(0),
        ..ip
    });
    AddResult {
        interfaces: vec![interface],
        ips: ips.collect(),
        routes: addresses.routes,
        dns: if dns.is_empty() {
            addresses.dns
        } else {
            dns.clone()
        },
    }
}

/// Detaches a pod: removes its device of kind `kind` (the kernel's name) and gives its addresses
/// back. Of the configuration only the IPAM plugin's name is read, so that nothing that has gone
/// since the ADD is missed. An interface of another kind is somebody else's.
///
/// # Errors
/// When something that is there cannot be removed, after everything was tried.
pub fn delete(request: &Request<'_>, kind: &str) -> Result<(), Error> {
    remove(request, kind).and(release(request))
}

fn remove(request: &Request<'_>, kind: &str) -> Result<(), Error> {
    let Some(netns) = pod::open_if_there(request) else {
        return Ok(());
    };
    let failed = |error: hostnet::Error| pod::kernel(&error);
    let mut inside = Netlink::open_in(&netns).map_err(failed)?;
    let name = pod::ifname(request)?;
    match inside.link(&name).map_err(failed)? {
        Some(link) if link.kind == kind => inside.delete_link(&name).map_err(failed),
        _ => Ok(()),
    }
}

/// Gives the addresses back, if there is an IPAM plugin.
///
/// # Errors
/// The IPAM plugin's error.
pub fn release(request: &Request<'_>) -> Result<(), Error> {
    forward(request, Command::Del)
}

/// Passes `command` on to the IPAM plugin, if there is one.
///
/// # Errors
/// The IPAM plugin's error.
pub fn forward(request: &Request<'_>, command: Command) -> Result<(), Error> {
    #[derive(Deserialize)]
    struct Section {
        #[serde(default)]
        ipam: IpamSection,
    }
    let Section { ipam } = request.config_as()?;
    match ipam.plugin.as_str() {
        "" => Ok(()),
        plugin => request.delegate_call(plugin, command, request.stdin),
    }
}

/// The IPAM plugin that a configuration names.
#[must_use]
pub fn ipam_plugin(section: IpamSection) -> Option<String> {
    Some(section.plugin).filter(|plugin| !plugin.is_empty())
}

/// Checks that the pod's interface is of `kind`, and what [`crate::interface::check`] checks.
///
/// # Errors
/// What is missing or differs.
pub fn check(
    request: &Request<'_>,
    places: &mut Places,
    kind: &str,
) -> Result<hostnet::LinkInfo, Error> {
    let (link, _) = crate::interface::check(request, places)?;
    if link.kind == kind {
        return Ok(link);
    }
    let (name, found) = (&link.name, &link.kind);
    let msg = format!("interface {name} is a {found:?} in the container, not a {kind}");
    Err(Error::other(msg))
}
