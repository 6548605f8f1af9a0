//! What a pod receives: replies back through their translation, everything else by ingress policy.

use aya_ebpf::programs::TcContext;
use ebpf_shared::{
    policy::{INGRESS, PodValue},
    reason::Reason,
};

use crate::{
    conntrack, flow,
    header::{ETHER_ARP, ETHER_IPV4, ETHER_IPV6},
    icmp,
    nat::{Side, rewrite},
    outcome::{Denial, Outcome},
    packet::{self, Packet},
};

/// Handles one frame on its way into the pod behind this device.
#[inline(always)]
pub fn run(ctx: &TcContext) -> Result<Outcome, Denial> {
    let zone = packet::ifindex(ctx);
    let denial = |reason| Denial::plain(reason, zone, INGRESS);
    packet::linearize(ctx);
    if let Some(outcome) = non_ipv4(ctx, zone, INGRESS)? {
        return Ok(outcome);
    }
    let pod = flow::pod(zone).ok_or(denial(Reason::NotReady))?;
    let mut packet = packet::parse(ctx, zone, INGRESS).map_err(denial)?;
    if packet.dst != pod.addr4 {
        return Err(denial(Reason::WrongDestination));
    }
    if packet.icmp_error {
        return icmp::related(ctx, pod, &mut packet, zone, INGRESS);
    }
    arrive(ctx, pod, &mut packet, zone, conntrack::now())?;
    Ok(Outcome::pass(Reason::Forwarded))
}

/// Lets a packet into the pod at `zone`, or not; replies get their frontend's address back.
#[inline(always)]
pub fn arrive(
    ctx: &TcContext,
    pod: &PodValue,
    packet: &mut Packet,
    zone: u32,
    now: u64,
) -> Result<(), Denial> {
    let key = conntrack::key(packet, zone, INGRESS);
    let passage = flow::Passage {
        pod,
        packet,
        direction: INGRESS,
        now,
    };
    if let Some((addr, port)) = flow::track(&passage, &key, conntrack::find(&key), None)? {
        rewrite(ctx, packet, Side::Source, addr, port)
            .map_err(|reason| Denial::plain(reason, zone, INGRESS))?;
    }
    Ok(())
}

/// Deals with what is not IPv4: ARP passes; IPv6 only as neighbour discovery; the rest is dropped.
#[inline(always)]
pub fn non_ipv4(ctx: &TcContext, zone: u32, direction: u8) -> Result<Option<Outcome>, Denial> {
    let denial = |reason| Denial::plain(reason, zone, direction);
    let kind = packet::ether_type(ctx).ok_or(denial(Reason::Malformed))?;
    match kind {
        ETHER_IPV4 => Ok(None),
        ETHER_ARP => Ok(Some(Outcome::pass(Reason::Forwarded))),
        ETHER_IPV6 if icmp::is_neighbour_discovery(ctx) => {
            Ok(Some(Outcome::pass(Reason::Forwarded)))
        }
        ETHER_IPV6 => Err(denial(Reason::UnknownFamily)),
        _ => Err(denial(Reason::UnknownEtherType)),
    }
}
