//! Address and port rewriting with checksums.
//!
//! The transport checksum goes through the kernel's helper, which knows about offloaded (partial)
//! checksums; the IP header and the ports are written directly.

use aya_ebpf::{
    bindings::{BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR},
    helpers::bpf_l4_csum_replace,
    programs::TcContext,
};
use ebpf_shared::{V4, checksum, protocol, reason::Reason};

use crate::{
    header::{IP4_CHECKSUM, IP4_DST, IP4_SRC, checksum_offset},
    packet::{Packet, read, skb, write},
};

/// Which end of the packet to rewrite.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Source,
    Destination,
}

/// Gives one end of the packet another address and port, in the frame and in `packet`.
#[inline(always)]
pub fn rewrite(
    ctx: &TcContext,
    packet: &mut Packet,
    side: Side,
    addr: V4,
    port: [u8; 2],
) -> Result<(), Reason> {
    let (old_addr, old_port) = match side {
        Side::Source => (packet.src, packet.src_port),
        Side::Destination => (packet.dst, packet.dst_port),
    };
    if !packet.later_fragment {
        transport(ctx, packet, side, (old_addr, addr), (old_port, port))?;
    }
    address(ctx, side, old_addr, addr).ok_or(Reason::RewriteFailed)?;
    match side {
        Side::Source => (packet.src, packet.src_port) = (addr, port),
        Side::Destination => (packet.dst, packet.dst_port) = (addr, port),
    }
    Ok(())
}

/// Rewrites the port and the transport checksum.
#[inline(always)]
fn transport(
    ctx: &TcContext,
    packet: &Packet,
    side: Side,
    addr: (V4, V4),
    port: ([u8; 2], [u8; 2]),
) -> Result<(), Reason> {
    let Some(offset) = checksum_offset(packet.proto) else {
        return Err(Reason::RewriteFailed);
    };
    let mangled = if packet.proto == protocol::UDP {
        BPF_F_MARK_MANGLED_0
    } else {
        0
    };
    let place = (packet.l4() + offset) as u32;
    let (from, to) = (u32::from_ne_bytes(addr.0), u32::from_ne_bytes(addr.1));
    let mut failed = replace(
        ctx,
        place,
        from.into(),
        to.into(),
        mangled | BPF_F_PSEUDO_HDR | 4,
    );
    if port.0 != port.1 {
        let (from, to) = (u16::from_ne_bytes(port.0), u16::from_ne_bytes(port.1));
        failed |= replace(ctx, place, from.into(), to.into(), mangled | 2);
        let at = if side == Side::Source {
            packet.l4()
        } else {
            packet.l4() + 2
        };
        write(ctx, at, port.1).ok_or(Reason::RewriteFailed)?;
    }
    if failed {
        Err(Reason::RewriteFailed)
    } else {
        Ok(())
    }
}

/// Updates the transport checksum; true when it failed.
#[inline(always)]
fn replace(ctx: &TcContext, place: u32, from: u64, to: u64, flags: u32) -> bool {
    // SAFETY: a helper call on the program's own context.
    unsafe { bpf_l4_csum_replace(skb(ctx), place, from, to, flags.into()) != 0 }
}

/// Rewrites an address of the IP header and its checksum.
#[inline(always)]
pub fn address(ctx: &TcContext, side: Side, from: V4, to: V4) -> Option<()> {
    let place = if side == Side::Source {
        IP4_SRC
    } else {
        IP4_DST
    };
    let old = read::<2>(ctx, IP4_CHECKSUM)?;
    write(ctx, IP4_CHECKSUM, checksum::replace4(old, from, to))?;
    write(ctx, place, to)
}
