//! Counters and the event ring.

use aya_ebpf::programs::TcContext;
use ebpf_shared::{
    event::{EVENT_DROP, EVENT_VERDICT, Event},
    maps::CONFIG_VERDICT_EVENTS,
    reason::{Reason, counter_index},
};

use crate::{
    conntrack,
    header::{ETH_LEN, ETHER_IPV4},
    maps::{config, towline_counters, towline_events},
    outcome::Denial,
    packet::{self, Packet},
    policy::Allowed,
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
#[inline(always)]
fn emit(event: Event) {
    match towline_events.reserve(0) {
        Some(mut entry) => {
            entry.write(event);
            entry.submit(0);
        }
        None => count(Reason::EventLost, event.direction, 0),
    }
}

/// Reports a drop. Addresses are read from the packet as it stands now.
#[inline(always)]
pub fn drop(ctx: &TcContext, denial: &Denial) {
    let ipv4 = packet::ether_type(ctx) == Some(ETHER_IPV4);
    let mut event = Event {
        time_ns: conntrack::now(),
        ifindex: denial.zone,
        len: ctx.len(),
        policy_set: denial.policy_set,
        class: denial.class,
        rule: denial.rule,
        kind: EVENT_DROP,
        reason: denial.reason as u8,
        direction: denial.direction,
        family: if ipv4 { 4 } else { 0 },
        proto: 0,
        tcp_flags: 0,
        src_port: [0; 2],
        dst_port: [0; 2],
        pad: [0; 2],
        src: [0; 16],
        dst: [0; 16],
    };
    if let (true, Some(header)) = (ipv4, packet::read::<20>(ctx, ETH_LEN)) {
        event.proto = header[9];
        event.src[..4].copy_from_slice(&header[12..16]);
        event.dst[..4].copy_from_slice(&header[16..20]);
        if header[0] == 0x45 && crate::header::has_ports(header[9]) {
            if let Some(ports) = packet::read::<4>(ctx, ETH_LEN + 20) {
                event.src_port = [ports[0], ports[1]];
                event.dst_port = [ports[2], ports[3]];
            }
        }
    }
    emit(event);
}

/// Reports a new flow that policy allowed, if that is asked for.
#[inline(always)]
pub fn allowed(
    ctx: &TcContext,
    packet: &Packet,
    zone: u32,
    policy_set: u32,
    verdict: Allowed,
    direction: u8,
) {
    if config().is_none_or(|c| c.flags & CONFIG_VERDICT_EVENTS == 0) {
        return;
    }
    let mut event = Event {
        time_ns: conntrack::now(),
        ifindex: zone,
        len: ctx.len(),
        policy_set,
        class: verdict.class,
        rule: verdict.rule,
        kind: EVENT_VERDICT,
        reason: Reason::FlowAllowed as u8,
        direction,
        family: 4,
        proto: packet.proto,
        tcp_flags: packet.tcp_flags,
        src_port: packet.src_port,
        dst_port: packet.dst_port,
        pad: [0; 2],
        src: [0; 16],
        dst: [0; 16],
    };
    event.src[..4].copy_from_slice(&packet.src);
    event.dst[..4].copy_from_slice(&packet.dst);
    emit(event);
}
