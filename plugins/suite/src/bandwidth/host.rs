//! What the host has of an attachment: the veth, the ifb, the limits.

use std::collections::BTreeSet;

use hostnet::apply::Places;
use hostnet::filters::REDIRECT_PRIORITY;
use hostnet::qdiscs::ROOT_HANDLE;
use hostnet::{LinkInfo, Netlink, QdiscInfo};
use netstate::{IfName, MacAddr, QdiscAt};
use protocol::{Attachment, Error, Request};
use sha2::{Digest, Sha512};

use crate::bandwidth::plan::{Host, Ifb, Remains};
use crate::{owner, pair, pod};

/// Name of an ifb: this and twelve hexadecimal digits.
pub const PREFIX: &str = "bwp";
const HASH_BYTES: usize = 6;
/// Between the owner and the host's end in an ifb's alias.
const ON: &str = ", on ";

/// The host's end of the pod's veth, found through the pod's end.
///
/// # Errors
/// When the interface is missing, no veth, or its peer is not on the host or not what `prevResult`
/// names.
pub fn veth(request: &Request<'_>, places: &mut Places) -> Result<LinkInfo, Error> {
    let failed = |error: hostnet::Error| pod::kernel(&error);
    let name = pod::ifname(request)?;
    let inside = places.pod().map_err(failed)?;
    let link = inside.link(&name).map_err(failed)?;
    let link = link.ok_or_else(|| {
        Error::other(format!(
            "the container has no interface {name}; chain bandwidth after the plugin that makes it"
        ))
    })?;
    let peer = peer(places.host(), &link)?;
    let named = request.prev_result.iter().flat_map(|r| &r.interfaces);
    let named: Vec<&str> = named
        .filter(|interface| interface.sandbox.is_empty())
        .map(|interface| interface.name.as_str())
        .collect();
    if named.is_empty() || named.contains(&peer.name.as_str()) {
        return Ok(peer);
    }
    Err(Error::config(format!(
        "prevResult names {} on the host, but the peer of {name} is {}",
        named.join(", "),
        peer.name
    )))
}

fn peer(host: &mut Netlink, link: &LinkInfo) -> Result<LinkInfo, Error> {
    let name = &link.name;
    if link.kind != "veth" {
        let kind = if link.kind.is_empty() {
            "a physical device"
        } else {
            &link.kind
        };
        let msg = format!("interface {name} is {kind}; bandwidth limits only a veth");
        return Err(Error::config(msg));
    }
    let index = link.peer.unwrap_or(0);
    let found = host
        .link_by_index(index)
        .map_err(|error| pod::kernel(&error))?;
    // The number alone could be that of a link of a third namespace.
    let is_peer = |peer: &LinkInfo| peer.kind == "veth" && peer.peer == Some(link.index);
    found.filter(is_peer).ok_or_else(|| {
        let msg = format!("the peer of interface {name} is not on the host");
        Error::other(msg)
    })
}

/// What ADD has to know.
///
/// # Errors
/// When the kernel refuses to tell.
pub fn facts(request: &Request<'_>, netlink: &mut Netlink, veth: LinkInfo) -> Result<Host, Error> {
    let failed = |error: hostnet::Error| pod::kernel(&error);
    let root = netlink.qdisc(veth.index, QdiscAt::Root).map_err(failed)?;
    let ingress = netlink.qdisc(veth.index, QdiscAt::Ingress);
    let owner = owner::comment(&request.network, &request.attachment());
    let mut name = ifb_name(&request.network, &request.container_id)?;
    let mut there = netlink.link(&name).map_err(failed)?;
    // Another interface of the container has the name that the reference would give.
    let is_taken = |ifb: &LinkInfo| {
        let is_reference = ifb.alias.is_empty() && request.ifname == "eth0";
        !is_reference && !ifb.alias.starts_with(&owner)
    };
    if there.as_ref().is_some_and(is_taken) {
        name = second_name(&request.network, &request.attachment())?;
        there = netlink.link(&name).map_err(failed)?;
    }
    Ok(Host {
        mtu: veth.mtu,
        has_limit: is_limit(root.as_ref()),
        takes_filters: ingress.map_err(failed)?.is_some(),
        ifb: Ifb {
            mac: MacAddr::local(digest(name.as_str())),
            name,
            alias: format!("{owner}{ON}{}", veth.name),
            is_there: there.is_some(),
        },
        veth: veth.name,
    })
}

/// The attachment's ifb, whichever of its two names it has.
///
/// # Errors
/// When the kernel refuses to tell.
pub fn ifb(request: &Request<'_>, netlink: &mut Netlink) -> Result<Option<LinkInfo>, Error> {
    let attachment = request.attachment();
    let owner = owner::comment(&request.network, &attachment);
    let names = [
        ifb_name(&request.network, &request.container_id)?,
        second_name(&request.network, &attachment)?,
    ];
    // The reference writes no alias: what it made may be another interface's of the container.
    let mut unnamed = None;
    for name in names {
        let found = netlink.link(&name).map_err(|error| pod::kernel(&error))?;
        let Some(ifb) = found.filter(|link| link.kind == "ifb") else {
            continue;
        };
        if ifb.alias.starts_with(&owner) {
            return Ok(Some(ifb));
        }
        if ifb.alias.is_empty() {
            unnamed.get_or_insert(ifb);
        }
    }
    Ok(unnamed)
}

/// The host's ends that DEL can find, by namespace, alias, `prevResult` and name, and what is left
/// on them.
///
/// # Errors
/// When the kernel refuses to tell.
pub fn remains(
    request: &Request<'_>,
    netlink: &mut Netlink,
    ifb: Option<&LinkInfo>,
) -> Result<Vec<Remains>, Error> {
    let mut names = Vec::new();
    if let Some(netns) = pod::open_if_there(request) {
        let name = pod::ifname(request)?;
        let inside = Netlink::open_in(&netns).and_then(|mut pod| pod.link(&name));
        let inside = inside.map_err(|error| pod::kernel(&error))?;
        let found = inside.and_then(|link| peer(netlink, &link).ok());
        names.extend(found.map(|link| link.name));
    }
    let reported = request.prev_result.iter().flat_map(|r| &r.interfaces);
    let reported = reported.filter(|interface| interface.sandbox.is_empty());
    names.extend(ifb.and_then(noted));
    names.extend(reported.filter_map(|interface| interface.name.parse().ok()));
    names.push(pair::host_name(request)?);
    let mut remains: Vec<Remains> = Vec::new();
    for name in names {
        if remains.iter().all(|one| one.veth != name) {
            let found = netlink.link(&name).map_err(|error| pod::kernel(&error))?;
            if let Some(link) = found.filter(|link| link.kind == "veth") {
                remains.push(left_on(netlink, link, ifb)?);
            }
        }
    }
    Ok(remains)
}

/// What is left of an attachment whose ifb it was, as far as it leads there.
///
/// # Errors
/// When the kernel refuses to tell.
pub fn swept(netlink: &mut Netlink, ifb: &LinkInfo) -> Result<Vec<Remains>, Error> {
    let Some(name) = noted(ifb) else {
        return Ok(Vec::new());
    };
    let failed = |error: hostnet::Error| pod::kernel(&error);
    let Some(link) = netlink.link(&name).map_err(failed)? else {
        return Ok(Vec::new());
    };
    let filters = netlink.ingress_filters(link.index).map_err(failed)?;
    let leads_there = |filter: &hostnet::FilterInfo| filter.redirects_to == Some(ifb.index);
    if filters.iter().any(leads_there) {
        Ok(vec![left_on(netlink, link, Some(ifb))?])
    } else {
        Ok(Vec::new())
    }
}

/// Numbers of the links that what comes in by a veth is redirected to, if any ifb among `links` is
/// one of the reference plugin's: these do not say whose they are, and one that nothing leads to
/// is what is left of a pod that was lost.
///
/// # Errors
/// When the kernel refuses to tell.
pub fn led_to(netlink: &mut Netlink, links: &[LinkInfo]) -> Result<BTreeSet<u32>, Error> {
    let unnamed = |link: &LinkInfo| link.kind == "ifb" && link.alias.is_empty();
    let mut targets = BTreeSet::new();
    if !links.iter().any(unnamed) {
        return Ok(targets);
    }
    for veth in links.iter().filter(|link| link.kind == "veth") {
        let filters = netlink.ingress_filters(veth.index);
        let filters = filters.map_err(|error| pod::kernel(&error))?;
        targets.extend(filters.iter().filter_map(|filter| filter.redirects_to));
    }
    Ok(targets)
}

fn noted(ifb: &LinkInfo) -> Option<IfName> {
    ifb.alias.rsplit_once(ON)?.1.parse().ok()
}

fn left_on(
    netlink: &mut Netlink,
    link: LinkInfo,
    ifb: Option<&LinkInfo>,
) -> Result<Remains, Error> {
    let failed = |error: hostnet::Error| pod::kernel(&error);
    let root = netlink.qdisc(link.index, QdiscAt::Root).map_err(failed)?;
    let filters = netlink.filters_both_ways(link.index).map_err(failed)?;
    let ours = |filter: &hostnet::FilterInfo| {
        let own_ifb = ifb.is_some_and(|ifb| filter.redirects_to == Some(ifb.index));
        let dead = filter.redirects_to == Some(0);
        own_ifb || dead || filter.priority == REDIRECT_PRIORITY
    };
    Ok(Remains {
        has_limit: is_limit(root.as_ref()),
        // Where an ifb was, there were filters; without any, what carried them is empty.
        redirects: filters.iter().any(ours) || (ifb.is_some() && filters.is_empty()),
        has_others: !filters.iter().all(ours),
        veth: link.name,
    })
}

/// Whether a root is of this plugin or the reference's.
fn is_limit(root: Option<&QdiscInfo>) -> bool {
    root.is_some_and(|qdisc| {
        matches!(qdisc.kind.as_str(), "tbf" | "htb") && qdisc.handle == ROOT_HANDLE
    })
}

/// The reference's name of a container's ifb.
///
/// # Errors
/// Never for what is computed here.
fn ifb_name(network: &str, container_id: &str) -> Result<IfName, Error> {
    hashed_name(&format!("{network}{container_id}"))
}

/// The name for a container's further interfaces. IDs have no ':'.
fn second_name(network: &str, attachment: &Attachment) -> Result<IfName, Error> {
    let Attachment {
        container_id,
        ifname,
    } = attachment;
    hashed_name(&format!("{network}{container_id}:{ifname}"))
}

fn hashed_name(text: &str) -> Result<IfName, Error> {
    let mut name = PREFIX.to_owned();
    for byte in digest(text) {
        name += &format!("{byte:02x}");
    }
    name.parse()
        .map_err(|error: netstate::NameError| Error::other(error.to_string()))
}

fn digest(text: &str) -> [u8; HASH_BYTES] {
    let digest = Sha512::digest(text.as_bytes());
    std::array::from_fn(|at| digest[at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_ifb_is_called_as_by_the_reference() {
        // printf netc1 | sha512sum | cut -c-12
        let name = ifb_name("net", "c1").unwrap();
        assert_eq!(name.as_str(), "bwp623e1c388032");
        let one = Attachment {
            container_id: "c1".to_owned(),
            ifname: "eth1".to_owned(),
        };
        assert_ne!(second_name("net", &one).unwrap(), name);
    }
}
