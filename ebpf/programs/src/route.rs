//! The way out for a packet that its pod was allowed to send.

use aya_ebpf::programs::TcContext;
use ebpf_shared::{maps::CONFIG_LOCAL_REDIRECT, policy::LocalKey, reason::Reason};

use crate::{
    flow,
    maps::{config, towline_local_v4},
    outcome::{Denial, Outcome},
    packet::Packet,
    to_pod,
};

/// Hands the packet to a pod of this node after that pod's ingress policy; else to the node's stack.
#[inline(always)]
pub fn deliver(
    ctx: &TcContext,
    packet: &mut Packet,
    zone: u32,
    now: u64,
) -> Result<Outcome, Denial> {
    let stack = Ok(Outcome::pass(Reason::Forwarded));
    if config().is_none_or(|c| c.flags & CONFIG_LOCAL_REDIRECT == 0) {
        return stack;
    }
    // SAFETY: copied at once.
    let Some(local) = (unsafe { towline_local_v4.get(LocalKey { addr: packet.dst }) }).copied()
    else {
        return stack;
    };
    let ifindex = local.ifindex;
    match flow::pod(ifindex) {
        Some(pod) if pod.addr4 == packet.dst && ifindex != zone => {
            to_pod::arrive(ctx, pod, packet, ifindex, now)?;
            Ok(Outcome::peer(ifindex, Reason::RedirectedLocal))
        }
        // The tables are changing: the programs on the pod's own device decide.
        _ => stack,
    }
}
