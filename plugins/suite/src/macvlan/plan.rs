//! PURE: configuration and the device below to the steps that make the pod's device.

use hostnet::LinkInfo;
use netstate::{IfName, LinkKind, MacAddr, Macvlan, MacvlanMode, NetnsPath, Op, Step};
use protocol::Error;

use crate::lower;
use crate::macvlan::config::Config;

/// The steps that make `name` in the pod at `netns` on `below`; `own_mac` is its Ethernet address
/// when nobody asked for another.
///
/// # Errors
/// Code 7 for an MTU that does not go on `below`.
pub fn make(
    config: &Config,
    name: &IfName,
    netns: &NetnsPath,
    below: &LinkInfo,
    own_mac: MacAddr,
) -> Result<Vec<Step>, Error> {
    let kind = LinkKind::Macvlan(Macvlan {
        lower: below.name.clone(),
        mode: config.mode,
        broadcast_queue: config.broadcast_queue,
    });
    let mut link = lower::link(name, kind, lower::mtu(config.mtu, below)?);
    if config.mode != MacvlanMode::Passthru {
        link.mac = Some(config.mac.unwrap_or(own_mac));
        return Ok(vec![config.lower.create(link, netns)]);
    }
    // Creation takes over the address of the device below, whatever else is asked for. Setting it
    // afterwards sets both, and the kernel gives the one below its own back in the end.
    let mut steps = vec![config.lower.create(link, netns)];
    let set = config
        .mac
        .map(|mac| Step::pod(Op::SetMac(name.clone(), mac)));
    steps.extend(set);
    Ok(steps)
}
