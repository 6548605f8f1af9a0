//! Ethernet frames built from values, with right checksums.

use ebpf_shared::{V4, checksum, protocol};

fn pseudo(proto: u8, src: V4, dst: V4, segment: &[u8]) -> u32 {
    let mut bytes = [src, dst].concat();
    bytes.extend([0, proto]);
    bytes.extend((segment.len() as u16).to_be_bytes());
    bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum()
}

/// An IPv4 frame around `payload` (everything after the IP header).
pub fn ipv4(proto: u8, src: V4, dst: V4, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let mut ip = vec![0x45, 0];
    ip.extend((payload.len() as u16 + 20).to_be_bytes());
    ip.extend([0xbe, 0xef]);
    ip.extend(fragment.to_be_bytes());
    ip.extend([64, proto, 0, 0]);
    ip.extend(src);
    ip.extend(dst);
    let sum = checksum::compute(&ip, 0);
    ip[10..12].copy_from_slice(&sum);
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    frame.extend(ip);
    frame.extend(payload);
    frame
}

/// The transport header and payload of a TCP, UDP or ICMP echo message.
pub fn segment(proto: u8, src: (V4, u16), dst: (V4, u16), flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut segment = Vec::new();
    match proto {
        protocol::ICMP => {
            segment.extend([flags, 0, 0, 0]);
            segment.extend(src.1.to_be_bytes());
            segment.extend([0, 1]);
        }
        _ => {
            segment.extend(src.1.to_be_bytes());
            segment.extend(dst.1.to_be_bytes());
            if proto == protocol::TCP {
                segment.extend([0, 0, 0, 9, 0, 0, 0, 5, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
            } else {
                segment.extend((payload.len() as u16 + 8).to_be_bytes());
                segment.extend([0, 0]);
            }
        }
    }
    segment.extend(payload);
    let (at, initial) = match proto {
        protocol::TCP => (16, pseudo(proto, src.0, dst.0, &segment)),
        protocol::UDP => (6, pseudo(proto, src.0, dst.0, &segment)),
        _ => (2, 0),
    };
    let sum = checksum::compute(&segment, initial);
    segment[at..at + 2].copy_from_slice(&sum);
    segment
}

/// A whole frame. For ICMP `flags` is the type and `src.1` the identifier.
pub fn build(proto: u8, src: (V4, u16), dst: (V4, u16), flags: u8, payload: &[u8]) -> Vec<u8> {
    ipv4(
        proto,
        src.0,
        dst.0,
        0x4000,
        &segment(proto, src, dst, flags, payload),
    )
}

/// An ICMP port-unreachable from `from` about the packet in `about` (a frame).
pub fn unreachable(from: V4, to: V4, about: &[u8]) -> Vec<u8> {
    let mut message = vec![3, 3, 0, 0, 0, 0, 0, 0];
    message.extend(&about[14..14 + 28]);
    let sum = checksum::compute(&message, 0);
    message[2..4].copy_from_slice(&sum);
    ipv4(protocol::ICMP, from, to, 0, &message)
}
