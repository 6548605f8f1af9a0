//! Whether the limits are as ADD left them.

use hostnet::{LinkInfo, Netlink, QdiscInfo};
use netstate::{Bucket, Htb, Qdisc, QdiscAt, Remote};
use protocol::{Error, Request};

use crate::bandwidth::config::Config;
use crate::bandwidth::host;
use crate::pod;

/// Checks the limits of both directions, and that what the pod sends is led through its ifb.
///
/// # Errors
/// What is missing or differs.
pub fn check(
    request: &Request<'_>,
    config: &Config,
    netlink: &mut Netlink,
    veth: &LinkInfo,
) -> Result<(), Error> {
    if let Some(bucket) = config.ingress {
        let wanted = config.qdisc(bucket, Remote::Source);
        check_limit(netlink, veth, &wanted)?;
    }
    let Some(bucket) = config.egress else {
        return Ok(());
    };
    let ifb = host::ifb(request, netlink)?;
    let ifb = ifb.ok_or_else(|| {
        let msg = format!("the ifb for what {} sends is gone", request.container_id);
        Error::other(msg)
    })?;
    if !ifb.up {
        return Err(Error::other(format!("{} is down", ifb.name)));
    }
    let wanted = config.qdisc(bucket, Remote::Destination);
    check_limit(netlink, &ifb, &wanted)?;
    let filters = netlink
        .ingress_filters(veth.index)
        .map_err(|error| pod::kernel(&error))?;
    let is_led = |filter: &hostnet::FilterInfo| filter.redirects_to == Some(ifb.index);
    if filters.iter().any(is_led) {
        return Ok(());
    }
    let (veth, ifb) = (&veth.name, &ifb.name);
    Err(Error::other(format!(
        "what comes in by {veth} is not redirected to {ifb}"
    )))
}

fn check_limit(netlink: &mut Netlink, link: &LinkInfo, wanted: &Qdisc) -> Result<(), Error> {
    let failed = |error: hostnet::Error| pod::kernel(&error);
    let found = netlink.qdisc(link.index, QdiscAt::Root).map_err(failed)?;
    let is_right = match (wanted, &found) {
        (Qdisc::Tbf(bucket), Some(found)) => is_bucket(*bucket, found),
        (Qdisc::Htb(htb), Some(found)) => is_classes(netlink, link, htb, found)?,
        _ => false,
    };
    if is_right {
        return Ok(());
    }
    let shown = found.map_or_else(|| "nothing".to_owned(), |found| shown(&found));
    let msg = format!(
        "{} has {shown} at its root, not the limit asked for",
        link.name
    );
    Err(Error::other(msg))
}

fn is_bucket(bucket: Bucket, found: &QdiscInfo) -> bool {
    found
        .bucket
        .is_some_and(|shown| bucket.is_shown_as(shown.rate, shown.limit, shown.ticks))
}

fn is_classes(
    netlink: &mut Netlink,
    link: &LinkInfo,
    htb: &Htb,
    found: &QdiscInfo,
) -> Result<bool, Error> {
    let failed = |error: hostnet::Error| pod::kernel(&error);
    if found.kind != "htb" || found.default_class != hostnet::qdiscs::default_class(htb) {
        return Ok(false);
    }
    let limited = netlink.classes(link.index).map_err(failed)?;
    let wanted = u32::try_from(htb.bucket.ticks()).unwrap_or(u32::MAX);
    let is_limited = limited
        .is_some_and(|(limited, _)| limited.rate == htb.bucket.rate && limited.ticks == wanted);
    let filters = netlink.count_class_filters(link.index).map_err(failed)?;
    Ok(is_limited && filters == htb.subnets.len())
}

fn shown(found: &QdiscInfo) -> String {
    match found.bucket {
        Some(bucket) => format!(
            "a {} of {} bytes/s, limit {} bytes, bucket {} ticks",
            found.kind, bucket.rate, bucket.limit, bucket.ticks
        ),
        None => format!("{} {:x}:", found.kind, found.handle >> 16),
    }
}
