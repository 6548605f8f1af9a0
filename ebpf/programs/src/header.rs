//! Header fields read out of bytes: pure, so tested on the host.

use ebpf_shared::{V4, protocol};

/// Length of an Ethernet header.
pub const ETH_LEN: usize = 14;
/// Offset of the IPv4 header's checksum, source and destination in the frame.
pub const IP4_CHECKSUM: usize = ETH_LEN + 10;
/// See [`IP4_CHECKSUM`].
pub const IP4_SRC: usize = ETH_LEN + 12;
/// See [`IP4_CHECKSUM`].
pub const IP4_DST: usize = ETH_LEN + 16;

/// EtherTypes that are looked at.
pub const ETHER_IPV4: [u8; 2] = [0x08, 0x00];
/// See [`ETHER_IPV4`].
pub const ETHER_ARP: [u8; 2] = [0x08, 0x06];
/// See [`ETHER_IPV4`].
pub const ETHER_IPV6: [u8; 2] = [0x86, 0xdd];

/// What the fixed part of an IPv4 header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4 {
    pub src: V4,
    pub dst: V4,
    pub proto: u8,
    /// Header length in bytes, 20..=60.
    pub header_len: usize,
    pub id: [u8; 2],
    /// Part of a fragmented datagram.
    pub fragmented: bool,
    /// A fragment other than the first: it carries no ports.
    pub later_fragment: bool,
}

impl Ipv4 {
    /// Reads the fixed part; `None` when version or header length are impossible.
    #[inline(always)]
    pub fn parse(h: &[u8; 20]) -> Option<Self> {
        let header_len = usize::from(h[0] & 0x0f) * 4;
        if h[0] >> 4 != 4 || header_len < 20 {
            return None;
        }
        let fragment = u16::from_be_bytes([h[6], h[7]]);
        Some(Self {
            src: [h[12], h[13], h[14], h[15]],
            dst: [h[16], h[17], h[18], h[19]],
            proto: h[9],
            header_len,
            id: [h[4], h[5]],
            fragmented: fragment & 0x3fff != 0,
            later_fragment: fragment & 0x1fff != 0,
        })
    }
}

/// What the first bytes after the IPv4 header mean for the flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpKind {
    /// Echo request: a flow whose port on the sender's side is the identifier, 0 on the other.
    EchoRequest,
    /// Echo reply: the same the other way round.
    EchoReply,
    /// An error about another packet, which it quotes.
    Error,
    /// Anything else: a flow without ports.
    Other,
}

/// Sorts ICMP types (RFC 792).
#[inline(always)]
pub const fn icmp_kind(kind: u8) -> IcmpKind {
    match kind {
        0 => IcmpKind::EchoReply,
        8 => IcmpKind::EchoRequest,
        3 | 4 | 5 | 11 | 12 => IcmpKind::Error,
        _ => IcmpKind::Other,
    }
}

/// Offset of the checksum inside the transport header, for protocols that are rewritten.
#[inline(always)]
pub const fn checksum_offset(proto: u8) -> Option<usize> {
    match proto {
        protocol::TCP => Some(16),
        protocol::UDP => Some(6),
        _ => None,
    }
}

/// Whether the protocol's header starts with source and destination port.
#[inline(always)]
pub const fn has_ports(proto: u8) -> bool {
    matches!(proto, protocol::TCP | protocol::UDP | protocol::SCTP)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: [u8; 20] = [
        0x45, 0, 0, 60, 0xab, 0xcd, 0x40, 0, 64, 6, 0, 0, 10, 244, 1, 5, 10, 96, 0, 1,
    ];

    #[test]
    fn a_plain_header_is_read_field_by_field() {
        assert_eq!(
            Ipv4::parse(&HEADER),
            Some(Ipv4 {
                src: [10, 244, 1, 5],
                dst: [10, 96, 0, 1],
                proto: protocol::TCP,
                header_len: 20,
                id: [0xab, 0xcd],
                fragmented: false,
                later_fragment: false,
            })
        );
    }

    #[test]
    fn impossible_headers_are_refused() {
        for first in [0x65, 0x44, 0x05] {
            let mut header = HEADER;
            header[0] = first;
            assert_eq!(Ipv4::parse(&header), None, "{first:#x}");
        }
    }

    #[test]
    fn first_and_later_fragments_are_told_apart() {
        let fragment = |bytes: [u8; 2]| {
            let mut header = HEADER;
            header[6..8].copy_from_slice(&bytes);
            let ip = Ipv4::parse(&header).unwrap();
            (ip.fragmented, ip.later_fragment)
        };
        assert_eq!(fragment([0x20, 0x00]), (true, false));
        assert_eq!(fragment([0x20, 0xb9]), (true, true));
        assert_eq!(fragment([0x00, 0xb9]), (true, true));
        assert_eq!(fragment([0x40, 0x00]), (false, false));
    }
}
