//! ICMP errors: they belong to the flow of the packet they quote.

use aya_ebpf::programs::TcContext;
use ebpf_shared::{
    V4, checksum,
    conntrack::{CT_SERVICE, CT_TRANSLATED, CtKey, CtValue},
    policy::{EGRESS, PodValue},
    protocol,
    reason::Reason,
};

use crate::{
    conntrack,
    header::{ETH_LEN, IcmpKind, Ipv4, has_ports, icmp_kind},
    nat::{Side, address},
    outcome::{Denial, Outcome},
    packet::{self, Packet, read, write},
    policy,
};

/// The packet that an ICMP error quotes.
struct Quoted {
    ip: Ipv4,
    /// Offset of its IP header in the frame.
    at: usize,
    src_port: [u8; 2],
    dst_port: [u8; 2],
}

/// Passes an ICMP error that belongs to a known flow, translated like the flow; policy judges others.
#[inline(always)]
pub fn related(
    ctx: &TcContext,
    pod: &PodValue,
    packet: &mut Packet,
    zone: u32,
    direction: u8,
) -> Result<Outcome, Denial> {
    let denial = |reason| Denial::plain(reason, zone, direction);
    let pass = Ok(Outcome::pass(Reason::Forwarded));
    let quoted = quoted(ctx, packet).ok_or(denial(Reason::Malformed))?;
    let key = flow_of(packet, &quoted, zone, direction);
    let Some(found) = conntrack::find(&key).filter(|_| key.pod == pod.addr4) else {
        policy::judge(pod, &conntrack::key(packet, zone, direction), direction)?;
        return pass;
    };
    // SAFETY: a map value found in this program run.
    let value = unsafe { *found.value };
    let wanted = if direction == EGRESS {
        CT_SERVICE
    } else {
        CT_TRANSLATED
    };
    if value.kind == wanted {
        translate(ctx, packet, &quoted, &value, direction).ok_or(denial(Reason::RewriteFailed))?;
    }
    pass
}

/// Reads the quoted packet: its IP header and the first four bytes after it.
#[inline(always)]
fn quoted(ctx: &TcContext, packet: &Packet) -> Option<Quoted> {
    let at = packet.l4() + 8;
    let wanted = at + 28;
    if ctx.data() + wanted > ctx.data_end() {
        // SAFETY: a helper call on the program's own context; a failure shows at the next access.
        unsafe { aya_ebpf::helpers::bpf_skb_pull_data(packet::skb(ctx), wanted as u32) };
    }
    let ip = Ipv4::parse(&read::<20>(ctx, at)?)?;
    let head = read::<8>(ctx, at + ip.header_len)?;
    let (mut src_port, mut dst_port) = ([0; 2], [0; 2]);
    if has_ports(ip.proto) {
        src_port = [head[0], head[1]];
        dst_port = [head[2], head[3]];
    } else if ip.proto == protocol::ICMP {
        match icmp_kind(head[0]) {
            IcmpKind::EchoRequest => src_port = [head[4], head[5]],
            IcmpKind::EchoReply => dst_port = [head[4], head[5]],
            IcmpKind::Error | IcmpKind::Other => {}
        }
    }
    Some(Quoted {
        ip,
        at,
        src_port,
        dst_port,
    })
}

/// Key of the quoted packet's flow. An error towards the pod quotes what the pod sent; one from the pod
/// goes to the sender of what it quotes, so that no flow lets it reach anybody else.
#[inline(always)]
fn flow_of(packet: &Packet, quoted: &Quoted, zone: u32, direction: u8) -> CtKey<V4> {
    let by_pod = direction != EGRESS;
    let ip = &quoted.ip;
    CtKey {
        zone,
        pod: if by_pod { ip.src } else { ip.dst },
        remote: if by_pod { ip.dst } else { packet.dst },
        pod_port: if by_pod {
            quoted.src_port
        } else {
            quoted.dst_port
        },
        remote_port: if by_pod {
            quoted.dst_port
        } else {
            quoted.src_port
        },
        proto: ip.proto,
        pad: [0; 3],
    }
}

/// Translates the quoted packet's far end, and the error's own far end if it is the same host.
///
/// The quoted IP header keeps its sum, so the ICMP checksum changes only by the port.
#[inline(always)]
fn translate(
    ctx: &TcContext,
    packet: &mut Packet,
    quoted: &Quoted,
    value: &CtValue<V4>,
    direction: u8,
) -> Option<()> {
    let towards_pod = direction != EGRESS;
    let (far, far_port, addr_at, port_at, outer) = if towards_pod {
        (quoted.ip.dst, quoted.dst_port, 16, 2, packet.src)
    } else {
        (quoted.ip.src, quoted.src_port, 12, 0, packet.dst)
    };
    let sum = read::<2>(ctx, quoted.at + 10)?;
    write(
        ctx,
        quoted.at + 10,
        checksum::replace4(sum, far, value.nat_addr),
    )?;
    write(ctx, quoted.at + addr_at, value.nat_addr)?;
    write(
        ctx,
        quoted.at + quoted.ip.header_len + port_at,
        value.nat_port,
    )?;
    let sum = read::<2>(ctx, packet.l4() + 2)?;
    write(
        ctx,
        packet.l4() + 2,
        checksum::replace2(sum, far_port, value.nat_port),
    )?;
    if outer == far {
        let side = if towards_pod {
            Side::Source
        } else {
            Side::Destination
        };
        address(ctx, side, far, value.nat_addr)?;
    }
    Some(())
}

/// Whether an IPv6 frame is neighbour discovery (RFC 4861): hop limit 255, types 133 to 137.
#[inline(always)]
pub fn is_neighbour_discovery(ctx: &TcContext) -> bool {
    let Some(header) = read::<8>(ctx, ETH_LEN) else {
        return false;
    };
    let Some(kind) = read::<1>(ctx, ETH_LEN + 40) else {
        return false;
    };
    header[6] == protocol::ICMPV6 && header[7] == 255 && (133..=137).contains(&kind[0])
}
