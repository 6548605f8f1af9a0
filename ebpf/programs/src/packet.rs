//! Bounds-checked access to the packet: the only raw packet pointers are here.

use aya_ebpf::{bindings::__sk_buff, helpers::bpf_skb_pull_data, programs::TcContext};
use ebpf_shared::{V4, protocol, reason::Reason};

use crate::{
    fragment,
    header::{ETH_LEN, IcmpKind, Ipv4, has_ports, icmp_kind},
};

/// Ethernet, IPv4 without options and TCP: what is made linear when it is not.
const LINEAR: u32 = 54;

/// An IPv4 packet seen from one pod: addresses and ports by side, not by direction.
#[derive(Clone, Copy)]
pub struct Packet {
    pub src: V4,
    pub dst: V4,
    pub src_port: [u8; 2],
    pub dst_port: [u8; 2],
    pub proto: u8,
    pub tcp_flags: u8,
    /// Carries no transport header.
    pub later_fragment: bool,
    /// An ICMP error: `src_port` and `dst_port` mean nothing.
    pub icmp_error: bool,
    /// See [`Packet::l4`]. A byte, so that the verifier sees its bound wherever it is loaded from.
    offset: u8,
}

impl Packet {
    /// Offset of the transport header in the frame.
    #[inline(always)]
    pub fn l4(&self) -> usize {
        usize::from(self.offset)
    }
}

/// The `__sk_buff` of the context.
#[inline(always)]
pub fn skb(ctx: &TcContext) -> *mut __sk_buff {
    ctx.skb.skb
}

/// Index of the device the program runs on.
#[inline(always)]
pub fn ifindex(ctx: &TcContext) -> u32 {
    // SAFETY: the context pointer is valid while the program runs.
    unsafe { (*skb(ctx)).ifindex }
}

/// Makes the headers linear if they are not.
#[inline(always)]
pub fn linearize(ctx: &TcContext) {
    let wanted = if ctx.len() < LINEAR {
        ctx.len()
    } else {
        LINEAR
    };
    if ctx.data() + wanted as usize > ctx.data_end() {
        pull(ctx, wanted);
    }
}

/// Makes the first `len` bytes linear; a failure shows at the next access.
#[inline(always)]
fn pull(ctx: &TcContext, len: u32) {
    // SAFETY: a helper call on the program's own context.
    unsafe { bpf_skb_pull_data(skb(ctx), len) };
}

/// Pointer to `T` at `offset`, if it is inside the linear part.
#[inline(always)]
pub fn at<T>(ctx: &TcContext, offset: usize) -> Option<*mut T> {
    let start = ctx.data() + offset;
    (start + size_of::<T>() <= ctx.data_end()).then_some(start as *mut T)
}

/// Copy of the `N` bytes at `offset`.
#[inline(always)]
pub fn read<const N: usize>(ctx: &TcContext, offset: usize) -> Option<[u8; N]> {
    // SAFETY: `at` checked that all N bytes are inside the packet; bytes have no alignment.
    at::<[u8; N]>(ctx, offset).map(|p| unsafe { *p })
}

/// Writes `bytes` at `offset`.
#[inline(always)]
pub fn write<const N: usize>(ctx: &TcContext, offset: usize, bytes: [u8; N]) -> Option<()> {
    let place = at::<[u8; N]>(ctx, offset)?;
    // SAFETY: `at` checked that all N bytes are inside the packet; bytes have no alignment.
    unsafe { *place = bytes };
    Some(())
}

/// EtherType of the frame.
#[inline(always)]
pub fn ether_type(ctx: &TcContext) -> Option<[u8; 2]> {
    read(ctx, 12)
}

/// Reads an IPv4 packet that a pod sends (`policy::EGRESS`) or receives (`policy::INGRESS`).
#[inline(always)]
pub fn parse(ctx: &TcContext, zone: u32, direction: u8) -> Result<Packet, Reason> {
    let header = read::<20>(ctx, ETH_LEN).ok_or(Reason::Malformed)?;
    let ip = Ipv4::parse(&header).ok_or(Reason::Malformed)?;
    let mut packet = Packet {
        src: ip.src,
        dst: ip.dst,
        src_port: [0; 2],
        dst_port: [0; 2],
        proto: ip.proto,
        tcp_flags: 0,
        later_fragment: ip.later_fragment,
        icmp_error: false,
        offset: (ETH_LEN + ip.header_len) as u8,
    };
    if ip.later_fragment {
        let ports = fragment::recall(&packet, ip.id, zone, direction).ok_or(Reason::Fragment)?;
        packet.src_port = ports.src_port;
        packet.dst_port = ports.dst_port;
        return Ok(packet);
    }
    transport(ctx, &mut packet).ok_or(Reason::Malformed)?;
    if ip.fragmented {
        fragment::remember(&packet, ip.id, zone, direction);
    }
    Ok(packet)
}

/// Reads ports, TCP flags and the kind of an ICMP message.
#[inline(always)]
fn transport(ctx: &TcContext, packet: &mut Packet) -> Option<()> {
    let l4 = packet.l4();
    if has_ports(packet.proto) {
        if ctx.data() + l4 + 20 > ctx.data_end() {
            let wanted = l4 as u32 + if packet.proto == protocol::TCP { 20 } else { 8 };
            if ctx.data() + wanted as usize > ctx.data_end() {
                pull(ctx, wanted);
            }
        }
        let ports = read::<4>(ctx, l4)?;
        packet.src_port = [ports[0], ports[1]];
        packet.dst_port = [ports[2], ports[3]];
        if packet.proto == protocol::TCP {
            packet.tcp_flags = read::<1>(ctx, l4 + 13)?[0];
        }
        return Some(());
    }
    if packet.proto == protocol::ICMP {
        let message = read::<8>(ctx, l4)?;
        match icmp_kind(message[0]) {
            IcmpKind::EchoRequest => packet.src_port = [message[4], message[5]],
            IcmpKind::EchoReply => packet.dst_port = [message[4], message[5]],
            IcmpKind::Error => packet.icmp_error = true,
            IcmpKind::Other => {}
        }
    }
    Some(())
}
