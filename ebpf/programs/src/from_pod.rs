//! What a pod sends: source check, service translation, egress policy, and the way out.

use aya_ebpf::programs::TcContext;
use ebpf_shared::{
    V4,
    conntrack::{
        CT_CLOSED, CT_FROM_REMOTE, CT_HAIRPIN, CT_HAIRPIN_REPLY, CT_PLAIN, CT_REJECTED, CT_REPLIED,
        CT_SERVICE, CT_TRANSLATED, CtKey,
    },
    hook::MARK_REJECT,
    policy::{EGRESS, PodValue},
    protocol,
    reason::Reason,
};

use crate::{
    conntrack::{self, Found},
    flow, hairpin, icmp,
    nat::{Side, rewrite},
    outcome::{Denial, Outcome},
    packet::{self, Packet},
    route,
    service::{self, Resolution, Target},
    to_pod::non_ipv4,
};

/// What is to happen with the destination.
enum Plan {
    Direct,
    Translate(Target),
    Hairpin(Target),
    Reject,
}

/// Handles one frame that the pod behind this device sent.
#[inline(always)]
pub fn run(ctx: &TcContext) -> Result<Outcome, Denial> {
    let zone = packet::ifindex(ctx);
    let denial = |reason| Denial::plain(reason, zone, EGRESS);
    packet::linearize(ctx);
    if let Some(outcome) = non_ipv4(ctx, zone, EGRESS)? {
        return Ok(outcome);
    }
    let pod = flow::pod(zone).ok_or(denial(Reason::NotReady))?;
    let mut packet = packet::parse(ctx, zone, EGRESS).map_err(denial)?;
    if packet.src != pod.addr4 {
        return Err(denial(Reason::SpoofedSource));
    }
    if packet.icmp_error {
        return icmp::related(ctx, pod, &mut packet, zone, EGRESS);
    }
    send(ctx, pod, &mut packet, zone)
}

/// Sends a checked packet on its way.
#[inline(always)]
fn send(
    ctx: &TcContext,
    pod: &PodValue,
    packet: &mut Packet,
    zone: u32,
) -> Result<Outcome, Denial> {
    let denial = |reason| Denial::plain(reason, zone, EGRESS);
    let now = conntrack::now();
    let key = conntrack::key(packet, zone, EGRESS);
    let found = conntrack::find(&key);
    if found.as_ref().is_some_and(|found| goes_on(found, packet)) {
        let passage = flow::Passage {
            pod,
            packet,
            direction: EGRESS,
            now,
        };
        flow::track(&passage, &key, found, None)?;
        return route::deliver(ctx, packet, zone, now);
    }
    let plan = match known(ctx, packet, &key, found, now).map_err(denial)? {
        Known::Done(outcome) => return Ok(outcome),
        Known::Plan(plan) => plan,
        Known::Unknown => resolve(pod, packet).map_err(denial)?,
    };
    let service = match plan {
        Plan::Direct => None,
        Plan::Translate(target) => Some(target),
        Plan::Hairpin(target) => {
            return hairpin::open(ctx, packet, &key, &target, now).map_err(denial);
        }
        Plan::Reject => return reject(ctx, packet, &key, now).map_err(denial),
    };
    let mut main = key;
    if let Some(target) = &service {
        (main.remote, main.remote_port) = (target.addr, target.port);
    }
    let direction = EGRESS;
    let passage = flow::Passage {
        pod,
        packet,
        direction,
        now,
    };
    flow::track(&passage, &main, conntrack::find(&main), service.as_ref())?;
    if let Some(target) = &service {
        rewrite(ctx, packet, Side::Destination, target.addr, target.port).map_err(denial)?;
    }
    route::deliver(ctx, packet, zone, now)
}

/// Marks a packet to a frontend without backends so that the node rejects it, and lets the answer in.
#[inline(always)]
fn reject(ctx: &TcContext, packet: &Packet, key: &CtKey<V4>, now: u64) -> Result<Outcome, Reason> {
    let value = conntrack::fresh(CT_REJECTED, EGRESS, packet.tcp_flags, now);
    conntrack::create(key, &value)?;
    // SAFETY: the context pointer is valid while the program runs.
    unsafe { (*packet::skb(ctx)).mark |= MARK_REJECT };
    Ok(Outcome::pass(Reason::NoBackend))
}

/// What the flow table knows.
enum Known {
    Done(Outcome),
    Plan(Plan),
    Unknown,
}

/// Whether the packet continues a flow that is not (or no longer) a frontend's concern.
#[inline(always)]
fn goes_on(found: &Found, packet: &Packet) -> bool {
    // SAFETY: a map value found in this program run.
    let (kind, flags) = unsafe { ((*found.value).kind, (*found.value).flags) };
    let answered = flags & (CT_REPLIED | CT_FROM_REMOTE) != 0;
    (kind == CT_TRANSLATED || (kind == CT_PLAIN && answered)) && !flow::opens(packet)
}

#[inline(always)]
fn known(
    ctx: &TcContext,
    packet: &mut Packet,
    key: &CtKey<V4>,
    found: Option<Found>,
    now: u64,
) -> Result<Known, Reason> {
    let Some(found) = found else {
        return Ok(Known::Unknown);
    };
    // SAFETY: a map value found in this program run.
    let value = unsafe { &*found.value };
    let opens = flow::opens(packet);
    if opens && value.flags & CT_CLOSED != 0 {
        return Ok(Known::Unknown);
    }
    // An established TCP connection outlives its backend's entry; everything else chooses anew.
    let (proto, backend) = (packet.proto, value.backend);
    let kept = || (proto == protocol::TCP && !opens) || service::usable(backend, opens);
    match value.kind {
        CT_TRANSLATED => Ok(Known::Plan(Plan::Direct)),
        CT_SERVICE if kept() => {
            conntrack::stamp(&found, now);
            let (addr, port) = (value.nat_addr, value.nat_port);
            let (backend, service) = (value.backend, value.service);
            Ok(Known::Plan(Plan::Translate(Target {
                addr,
                port,
                backend,
                service,
            })))
        }
        CT_HAIRPIN if kept() => hairpin::forward(ctx, packet, key, &found, now).map(Known::Done),
        CT_HAIRPIN_REPLY => hairpin::answer(ctx, packet, key, &found, now).map(Known::Done),
        // Also a plain flow that is new or was never answered: its destination may be a frontend by now.
        _ => Ok(Known::Unknown),
    }
}

/// Asks the service tables about the destination of a new flow.
#[inline(always)]
fn resolve(pod: &PodValue, packet: &Packet) -> Result<Plan, Reason> {
    if packet.proto != protocol::TCP && packet.proto != protocol::UDP {
        return Ok(Plan::Direct);
    }
    match service::resolve::<true>(packet.dst, packet.dst_port, packet.proto, packet.src)? {
        Resolution::Plain => Ok(Plan::Direct),
        Resolution::Reject => Ok(Plan::Reject),
        Resolution::To(target) if target.addr == pod.addr4 => Ok(Plan::Hairpin(target)),
        Resolution::To(target) => Ok(Plan::Translate(target)),
    }
}
