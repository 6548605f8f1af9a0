//! Ports of fragmented datagrams: the first fragment has them, later ones need them.

use ebpf_shared::V4;
use ebpf_shared::maps::{FragmentKey, FragmentValue};

use crate::{maps::towline_fragment_v4, packet::Packet};

#[inline(always)]
fn key(packet: &Packet, id: [u8; 2], ifindex: u32, direction: u8) -> FragmentKey<V4> {
    FragmentKey {
        src: packet.src,
        dst: packet.dst,
        id: [id[0], id[1], 0, 0],
        ifindex,
        proto: packet.proto,
        direction,
        pad: [0; 2],
    }
}

/// Keeps the ports of a first fragment. When it fails, later fragments are dropped and counted.
#[inline(always)]
pub fn remember(packet: &Packet, id: [u8; 2], ifindex: u32, direction: u8) {
    let ports = FragmentValue {
        src_port: packet.src_port,
        dst_port: packet.dst_port,
    };
    let _ = towline_fragment_v4.insert(key(packet, id, ifindex, direction), ports, 0);
}

/// The ports of a later fragment's datagram.
#[inline(always)]
pub fn recall(packet: &Packet, id: [u8; 2], ifindex: u32, direction: u8) -> Option<FragmentValue> {
    // SAFETY: copied at once; nothing else writes through this reference.
    unsafe { towline_fragment_v4.get(key(packet, id, ifindex, direction)) }.copied()
}
