//! Counters and the event ring.

use aya_ebpf::programs::TcContext;
use ebpf_shared::{
    V4,
    conntrack::CtKey,
    event::{EVENT_DROP, EVENT_VERDICT, Event},
    maps::CONFIG_VERDICT_EVENTS,
    policy, protocol,
    reason::{Reason, counter_index},
};

use crate::{
    conntrack,
    header::{ETH_LEN, ETHER_IPV4, has_ports},
    maps::{config, towline_counters, towline_events},
    outcome::Denial,
    packet,
};

/// Counts one packet of `len` bytes.
#[inline(always)]
pub fn count(reason: Reason, direction: u8, len: u32) {
    if let Some(counter) = towline_counters.get_ptr_mut(counter_index(reason, direction)) {
        // SAFETY: this CPU's slot; programs do not migrate or preempt each other within it.
        unsafe {
            (*counter).packets += 1;
            (*counter).bytes += u64::from(len);
        }
    }
}

/// Puts one event into the ring, or counts that it did not fit.
///
/// `fill` writes into the ring's memory: an event on the stack would take what the programs need.
#[inline(always)]
fn emit(direction: u8, fill: impl FnOnce(&mut Event)) {
    let Some(mut entry) = towline_events.reserve(0) else {
        count(Reason::EventLost, direction, 0);
        return;
    };
    let place = entry.as_mut_ptr();
    // SAFETY: the ring's memory is valid and aligned for an event, and all-zero bytes are one.
    unsafe {
        core::ptr::write_bytes(place.cast::<u64>(), 0, size_of::<Event>() / 8);
        fill(&mut *place);
    }
    entry.submit(0);
}

/// Reports a drop. Addresses are read from the packet as it stands now.
#[inline(always)]
pub fn drop(ctx: &TcContext, denial: &Denial) {
    let ipv4 = packet::ether_type(ctx) == Some(ETHER_IPV4);
    emit(denial.direction, |event| {
        event.time_ns = conntrack::now();
        event.ifindex = denial.zone;
        event.len = ctx.len();
        event.policy_set = denial.policy_set;
        event.class = denial.class;
        event.rule = denial.rule;
        event.kind = EVENT_DROP;
        event.reason = denial.reason as u8;
        event.direction = denial.direction;
        if let (true, Some(header)) = (ipv4, packet::read::<20>(ctx, ETH_LEN)) {
            event.family = 4;
            event.proto = header[9];
            event.src[..4].copy_from_slice(&header[12..16]);
            event.dst[..4].copy_from_slice(&header[16..20]);
            if header[0] == 0x45 && has_ports(header[9]) {
                ports(ctx, event);
            }
        }
    });
}

/// Reads the ports behind an IPv4 header without options.
#[inline(always)]
fn ports(ctx: &TcContext, event: &mut Event) {
    if let Some(ports) = packet::read::<4>(ctx, ETH_LEN + 20) {
        event.src_port = [ports[0], ports[1]];
        event.dst_port = [ports[2], ports[3]];
    }
    if event.proto == protocol::TCP
        && let Some(flags) = packet::read::<1>(ctx, ETH_LEN + 33)
    {
        event.tcp_flags = flags[0];
    }
}

/// Reports a flow that policy was asked about and allowed, if that is wanted.
#[inline(always)]
pub fn allowed(key: &CtKey<V4>, policy_set: u32, class: u32, rule: u32, direction: u8) {
    if config().is_none_or(|c| c.flags & CONFIG_VERDICT_EVENTS == 0) {
        return;
    }
    let inbound = direction == policy::INGRESS;
    let (src, dst) = if inbound {
        (key.remote, key.pod)
    } else {
        (key.pod, key.remote)
    };
    let ports = (key.remote_port, key.pod_port);
    let (src_port, dst_port) = if inbound { ports } else { (ports.1, ports.0) };
    emit(direction, |event| {
        event.time_ns = conntrack::now();
        event.ifindex = key.zone;
        event.policy_set = policy_set;
        event.class = class;
        event.rule = rule;
        event.kind = EVENT_VERDICT;
        event.reason = Reason::FlowAllowed as u8;
        event.direction = direction;
        event.family = 4;
        event.proto = key.proto;
        event.src_port = src_port;
        event.dst_port = dst_port;
        event.src[..4].copy_from_slice(&src);
        event.dst[..4].copy_from_slice(&dst);
    });
}
