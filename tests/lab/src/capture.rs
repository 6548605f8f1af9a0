//! Looking at the underlay: every frame that crosses it, with VXLAN opened (RFC 7348).

use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, setsockopt, socket,
    sockopt,
};
use std::os::fd::{AsRawFd, OwnedFd};

use crate::layout::Layout;
use crate::namespace::{self, Namespace};
use crate::wire::UNDERLAY;

/// UDP port of flannel's VXLAN, which is the Linux kernel's old default.
const VXLAN_PORT: u16 = 8472;
/// `sll_pkttype` of frames that leave by an interface; each frame also arrived by another one.
const PACKET_OUTGOING: u8 = 4;

/// Addresses of one IPv4 packet seen on the underlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// Source of the innermost packet.
    pub source: Ipv4Addr,
    /// Destination of the innermost packet.
    pub destination: Ipv4Addr,
    /// The envelope, if the packet was in one.
    pub vxlan: Option<Envelope>,
}

/// The outside of an encapsulated packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Envelope {
    /// Sending node.
    pub source: Ipv4Addr,
    /// Receiving node.
    pub destination: Ipv4Addr,
    /// Virtual network id.
    pub vni: u32,
}

/// An open capture.
#[derive(Debug)]
pub struct Capture {
    socket: OwnedFd,
}

impl Capture {
    /// Starts to look at all links of the cluster's underlay.
    ///
    /// # Errors
    /// When the socket cannot be opened.
    pub fn start(layout: &Layout) -> Result<Self> {
        let underlay = Namespace::net(&layout.netns(UNDERLAY))?;
        let socket = namespace::run_in(&[&underlay], || {
            socket(
                AddressFamily::Packet,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
                SockProtocol::EthAll,
            )
            .context("open a packet socket")
        })?;
        setsockopt(&socket, sockopt::RcvBuf, &(8 << 20)).context("enlarge the receive buffer")?;
        Ok(Self { socket })
    }

    /// All packets seen since the start or the last call.
    ///
    /// # Errors
    /// When the socket fails.
    pub fn packets(&self) -> Result<Vec<Packet>> {
        let mut packets = Vec::new();
        let mut buffer = vec![0; 65_536];
        loop {
            match recvfrom::<LinkAddr>(self.socket.as_raw_fd(), &mut buffer) {
                Ok((length, from)) => {
                    let outgoing = from.is_some_and(|from| from.pkttype() == PACKET_OUTGOING);
                    if !outgoing {
                        packets.extend(frame(&buffer[..length]));
                    }
                }
                Err(Errno::EAGAIN) => return Ok(packets),
                Err(error) => return Err(error).context("read the packet socket"),
            }
        }
    }
}

/// The IPv4 packet in an Ethernet frame, out of its VXLAN envelope if it is in one.
fn frame(frame: &[u8]) -> Option<Packet> {
    let ip = ethernet(frame)?;
    let (source, destination) = addresses(ip)?;
    let inner = udp_to(ip, VXLAN_PORT).and_then(|payload| {
        let vni = u32::from_be_bytes([0, *payload.get(4)?, *payload.get(5)?, *payload.get(6)?]);
        let (inner_source, inner_destination) = addresses(ethernet(payload.get(8..)?)?)?;
        Some(Packet {
            source: inner_source,
            destination: inner_destination,
            vxlan: Some(Envelope {
                source,
                destination,
                vni,
            }),
        })
    });
    Some(inner.unwrap_or(Packet {
        source,
        destination,
        vxlan: None,
    }))
}

/// The IPv4 packet in an Ethernet frame.
fn ethernet(frame: &[u8]) -> Option<&[u8]> {
    (frame.get(12..14)? == [0x08, 0x00]).then(|| frame.get(14..))?
}

fn addresses(ip: &[u8]) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let address = |at: usize| {
        let bytes: [u8; 4] = ip.get(at..at + 4)?.try_into().ok()?;
        Some(Ipv4Addr::from(bytes))
    };
    Some((address(12)?, address(16)?))
}

/// Payload of a UDP datagram to `port`.
fn udp_to(ip: &[u8], port: u16) -> Option<&[u8]> {
    let header = usize::from(ip.first()? & 0x0f) * 4;
    let udp = ip.get(header..)?;
    let matches = *ip.get(9)? == 17 && udp.get(2..4)? == port.to_be_bytes();
    matches.then(|| udp.get(8..))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    fn ip(source: [u8; 4], destination: [u8; 4], protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0];
        packet.extend(source);
        packet.extend(destination);
        packet.extend(payload);
        packet
    }

    fn ethernet_frame(payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([0x08, 0x00]);
        frame.extend(payload);
        frame
    }

    #[test]
    fn envelopes_are_opened() {
        let inner = ethernet_frame(&ip([10, 244, 0, 2], [10, 244, 1, 3], 6, &[0; 20]));
        let mut udp = vec![0xab, 0xcd];
        udp.extend(VXLAN_PORT.to_be_bytes());
        udp.extend([0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 1, 0]);
        udp.extend(inner);
        let outer = ethernet_frame(&ip([172, 30, 0, 11], [172, 30, 0, 12], 17, &udp));
        assert_eq!(
            frame(&outer),
            Some(Packet {
                source: [10, 244, 0, 2].into(),
                destination: [10, 244, 1, 3].into(),
                vxlan: Some(Envelope {
                    source: [172, 30, 0, 11].into(),
                    destination: [172, 30, 0, 12].into(),
                    vni: 1
                })
            })
        );
        assert_eq!(frame(&outer[..20]), None);
        let plain = ethernet_frame(&ip([1, 2, 3, 4], [5, 6, 7, 8], 17, &[0; 8]));
        let expected = Packet {
            source: [1, 2, 3, 4].into(),
            destination: [5, 6, 7, 8].into(),
            vxlan: None,
        };
        assert_eq!(frame(&plain), Some(expected));
    }
}
