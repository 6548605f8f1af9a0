//! A pod's veth pair: what `bridge` and `ptp` have in common on the host's side.

use hostnet::apply::Places;
use hostnet::{LinkInfo, Netlink};
use netstate::{IfName, Link, LinkKind, MacAddr, Mtu, NetnsPath, Op, Step, VethPeer};
use protocol::{AddResult, Error, Interface, Request};

use crate::identity::Identity;
use crate::{interface, pod};

/// The kernel's name for the kind of both ends.
const VETH: &str = "veth";
/// MTU of an Ethernet in bytes, which the kernel gives a new veth.
const ETHERNET: u32 = 1500;

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
    /// MTU of both.
    pub mtu: Mtu,
}

// === impl Pair ===

impl Pair {
    /// The ends that belong to `request`; `mac` overrides the pod's address.
    ///
    /// # Errors
    /// Code 4 when a variable is no name or path.
    pub fn of(request: &Request<'_>, mtu: Mtu, mac: Option<MacAddr>) -> Result<Self, Error> {
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
        link.mtu = Some(self.mtu);
        link.master = master;
        Step::host(Op::CreateLink(link))
    }

    /// The host's end as ADD reports it.
    #[must_use]
    pub fn host_interface(&self) -> Interface {
        Interface {
            name: self.host.to_string(),
            mac: self.host_mac.to_string(),
            mtu: self.mtu.get(),
            ..Interface::default()
        }
    }

    /// The pod's end as ADD reports it.
    #[must_use]
    pub fn pod_interface(&self) -> Interface {
        Interface {
            name: self.pod.to_string(),
            mac: self.pod_mac.to_string(),
            mtu: self.mtu.get(),
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
        let name = pod::ifname(request)?;
        // After a refused ADD the name may be another plugin's.
        if inside
            .link(&name)
            .map_err(failed)?
            .is_some_and(|link| link.kind == VETH)
        {
            inside.delete_link(&name).map_err(failed)?;
        }
    }
    Ok(())
}

/// The MTU of a new attachment: what the configuration `asked` for, else the default route's
/// device's, so that what a pod sends fits into what the host sends, else an Ethernet's.
///
/// # Errors
/// When the kernel refuses to tell.
pub fn mtu(host: &mut Netlink, asked: Option<Mtu>) -> Result<Mtu, Error> {
    if let Some(mtu) = asked {
        return Ok(mtu);
    }
    let device = host
        .default_route_device()
        .map_err(|error| pod::kernel(&error))?;
    let ethernet = Mtu::try_from(ETHERNET).map_err(|error| Error::other(error.to_string()))?;
    Ok(device.and_then(|link| link.mtu).unwrap_or(ethernet))
}

/// Checks the pod's interface as [`interface::check_state`] does, and that its peer is there, up and
/// as ADD reported it. The peer and `prevResult` are returned.
///
/// # Errors
/// What is missing or differs.
pub fn check(
    request: &Request<'_>,
    places: &mut Places,
    up: bool,
) -> Result<(LinkInfo, AddResult), Error> {
    let (link, before) = interface::check_state(request, places, up)?;
    let name = &link.name;
    let gone = || Error::other(format!("the host's end of {name} is gone"));
    let index = link.peer.ok_or_else(gone)?;
    let peer = places
        .host()
        .link_by_index(index)
        .map_err(|error| pod::kernel(&error))?;
    let is_ours = |peer: &LinkInfo| peer.kind == VETH && peer.peer == Some(link.index);
    let peer = peer.filter(is_ours).ok_or_else(gone)?;
    if !peer.up {
        let msg = format!("the host's end {} of {name} is down", peer.name);
        return Err(Error::other(msg));
    }
    check_reported(&before, &peer)?;
    Ok((peer, before))
}

/// Whether an interface of the host still has the Ethernet address that ADD reported.
///
/// # Errors
/// When it has another.
pub fn check_reported(before: &AddResult, link: &LinkInfo) -> Result<(), Error> {
    let is_it = |one: &&Interface| one.sandbox.is_empty() && one.name == link.name.as_str();
    let Some(reported) = before.interfaces.iter().find(is_it) else {
        return Ok(());
    };
    let mac = link.mac.map(|mac| mac.to_string()).unwrap_or_default();
    if reported.mac.is_empty() || reported.mac.eq_ignore_ascii_case(&mac) {
        return Ok(());
    }
    let (name, wanted) = (&link.name, &reported.mac);
    Err(Error::other(format!("{name} has MAC {mac}, not {wanted}")))
}
