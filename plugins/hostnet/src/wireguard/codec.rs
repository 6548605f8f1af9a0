//! WireGuard's messages, to and from bytes.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use ipnetwork::IpNetwork;
use netstate::IfName;
use netstate::wireguard::{Device, Key, Peer, PeerKey};

use crate::addrs::family;
use crate::wire::message::{Message, attrs, find, read_ip, read_u16};

/// `struct genlmsghdr`: command and version.
const GET_DEVICE: [u8; 4] = [0, 1, 0, 0];
const SET_DEVICE: [u8; 4] = [1, 1, 0, 0];

const DEVICE_IFNAME: u16 = 2;
const DEVICE_PRIVATE_KEY: u16 = 3;
const DEVICE_LISTEN_PORT: u16 = 6;
const DEVICE_PEERS: u16 = 8;
const PEER_PUBLIC_KEY: u16 = 1;
const PEER_PRESHARED_KEY: u16 = 2;
const PEER_FLAGS: u16 = 3;
const PEER_ENDPOINT: u16 = 4;
const PEER_KEEPALIVE: u16 = 5;
const PEER_ALLOWED: u16 = 9;
const ALLOWED_FAMILY: u16 = 1;
const ALLOWED_ADDRESS: u16 = 2;
const ALLOWED_PREFIX: u16 = 3;
const REMOVE_ME: u32 = 1;
const REPLACE_ALLOWED: u32 = 2;
/// How the kernel says "no key".
const NO_KEY: Key = Key::new([0; 32]);

pub(super) fn question(kind: u16, name: &IfName) -> Message {
    let mut message = Message::new(kind, 0, &GET_DEVICE);
    message.text(DEVICE_IFNAME, name.as_str());
    message
}

pub(super) fn device(kind: u16, name: &IfName, device: &Device) -> Message {
    let mut message = setting(kind, name);
    message
        .attr(DEVICE_PRIVATE_KEY, device.private_key.bytes())
        .attr(DEVICE_LISTEN_PORT, &device.port.to_ne_bytes());
    message
}

pub(super) fn peer(kind: u16, key: &PeerKey, peer: &Peer) -> Message {
    let mut message = setting(kind, &key.device);
    one_peer(&mut message, key, |m| {
        m.u32(PEER_FLAGS, REPLACE_ALLOWED);
        let shared = peer.preshared_key.unwrap_or(NO_KEY);
        m.attr(PEER_PRESHARED_KEY, shared.bytes());
        m.attr(PEER_ENDPOINT, &socket_address(peer.endpoint));
        m.attr(PEER_KEEPALIVE, &peer.keepalive.to_ne_bytes());
        m.nest(PEER_ALLOWED, |list| {
            for network in &peer.allowed {
                list.nest(0, |one| {
                    let kind = u16::from(family(network.ip()));
                    one.attr(ALLOWED_FAMILY, &kind.to_ne_bytes())
                        .ip(ALLOWED_ADDRESS, network.network())
                        .attr(ALLOWED_PREFIX, &[network.prefix()]);
                });
            }
        });
    });
    message
}

pub(super) fn removal(kind: u16, key: &PeerKey) -> Message {
    let mut message = setting(kind, &key.device);
    one_peer(&mut message, key, |m| {
        m.u32(PEER_FLAGS, REMOVE_ME);
    });
    message
}

fn setting(kind: u16, name: &IfName) -> Message {
    let mut message = Message::new(kind, 0, &SET_DEVICE);
    message.text(DEVICE_IFNAME, name.as_str());
    message
}

fn one_peer(message: &mut Message, key: &PeerKey, fill: impl FnOnce(&mut Message)) {
    message.nest(DEVICE_PEERS, |peers| {
        peers.nest(0, |peer| {
            peer.attr(PEER_PUBLIC_KEY, key.public_key.bytes());
            fill(peer);
        });
    });
}

/// `struct sockaddr_in` or `sockaddr_in6`.
fn socket_address(address: SocketAddr) -> Vec<u8> {
    let mut bytes = u16::from(family(address.ip())).to_ne_bytes().to_vec();
    bytes.extend_from_slice(&address.port().to_be_bytes());
    match address.ip() {
        IpAddr::V4(v4) => {
            bytes.extend_from_slice(&v4.octets());
            bytes.extend_from_slice(&[0; 8]);
        }
        IpAddr::V6(v6) => {
            bytes.extend_from_slice(&[0; 4]);
            bytes.extend_from_slice(&v6.octets());
            bytes.extend_from_slice(&[0; 4]);
        }
    }
    bytes
}

fn read_socket_address(bytes: &[u8]) -> Option<SocketAddr> {
    let port = u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?);
    let ip = match i32::from(read_u16(bytes, 0)) {
        libc::AF_INET => read_ip(bytes.get(4..8)?)?,
        libc::AF_INET6 => read_ip(bytes.get(8..24)?)?,
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// What the kernel's messages about one device say together: a long list of peers, or a peer with
/// many addresses, goes on in the next message.
pub(super) fn decode<'a>(
    name: &IfName,
    messages: impl Iterator<Item = &'a [u8]>,
) -> (Option<Device>, BTreeMap<PeerKey, Peer>) {
    let mut device = None;
    let mut peers: BTreeMap<PeerKey, Peer> = BTreeMap::new();
    for message in messages {
        if let Some(private_key) = find(message, DEVICE_PRIVATE_KEY).and_then(key) {
            let port = find(message, DEVICE_LISTEN_PORT).map_or(0, |port| read_u16(port, 0));
            device = Some(Device { private_key, port });
        }
        let listed = find(message, DEVICE_PEERS).unwrap_or_default();
        for (_, peer) in attrs(listed) {
            let Some(public_key) = find(peer, PEER_PUBLIC_KEY).and_then(key) else {
                continue;
            };
            let at = PeerKey {
                device: name.clone(),
                public_key,
            };
            let allowed = find(peer, PEER_ALLOWED).unwrap_or_default();
            let allowed = attrs(allowed).filter_map(|(_, one)| network(one));
            if let Some(known) = peers.get_mut(&at) {
                known.allowed.extend(allowed);
                continue;
            }
            let endpoint = find(peer, PEER_ENDPOINT).and_then(read_socket_address);
            let found = Peer {
                // One without an endpoint is not what anybody here wants, and is put right.
                endpoint: endpoint.unwrap_or_else(|| ([0, 0, 0, 0], 0).into()),
                allowed: allowed.collect(),
                preshared_key: find(peer, PEER_PRESHARED_KEY).and_then(key),
                keepalive: find(peer, PEER_KEEPALIVE).map_or(0, |value| read_u16(value, 0)),
            };
            peers.insert(at, found);
        }
    }
    (device, peers)
}

fn key(bytes: &[u8]) -> Option<Key> {
    let key = Key::new(bytes.try_into().ok()?);
    (key != NO_KEY).then_some(key)
}

fn network(one: &[u8]) -> Option<IpNetwork> {
    let address = read_ip(find(one, ALLOWED_ADDRESS)?)?;
    IpNetwork::new(address, *find(one, ALLOWED_PREFIX)?.first()?).ok()
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;
    use proptest::prelude::*;

    use super::*;
    use crate::wire::message::{HEADER, replies};

    fn name() -> IfName {
        "flannel-wg".parse().unwrap()
    }

    fn at(number: u8) -> PeerKey {
        PeerKey {
            device: name(),
            public_key: Key::new([number; 32]),
        }
    }

    fn a_peer(endpoint: &str, allowed: &[&str]) -> Peer {
        Peer {
            endpoint: endpoint.parse().unwrap(),
            allowed: allowed.iter().map(|one| one.parse().unwrap()).collect(),
            preshared_key: Some(Key::new([7; 32])),
            keepalive: 25,
        }
    }

    fn body(message: Message) -> Vec<u8> {
        replies(&message.finish(1)).remove(0).body.split_off(4)
    }

    #[test]
    fn what_is_set_is_what_is_read() {
        let wanted = Device {
            private_key: Key::new([3; 32]),
            port: 51820,
        };
        let first = a_peer("172.30.0.2:51820", &["10.244.2.0/24"]);
        let second = a_peer("[fd99::3]:51821", &["fd00:0:0:3::/64", "10.244.3.0/24"]);
        let messages = [
            body(device(30, &name(), &wanted)),
            body(peer(30, &at(1), &first)),
            body(peer(30, &at(2), &second)),
        ];
        let (found, peers) = decode(&name(), messages.iter().map(Vec::as_slice));
        assert_eq!(found, Some(wanted));
        assert_eq!(peers, BTreeMap::from([(at(1), first), (at(2), second)]));
    }

    #[test]
    fn a_peer_that_goes_on_in_the_next_message_is_one() {
        let part = |network: &str| body(peer(30, &at(1), &a_peer("172.30.0.2:1", &[network])));
        let messages = [part("10.244.2.0/24"), part("10.244.9.0/24")];
        let (device, peers) = decode(&name(), messages.iter().map(Vec::as_slice));
        let whole = a_peer("172.30.0.2:1", &["10.244.2.0/24", "10.244.9.0/24"]);
        assert_eq!((device, peers), (None, BTreeMap::from([(at(1), whole)])));
    }

    #[test]
    fn the_bytes_are_those_of_the_kernels_header_file() {
        let bytes = removal(30, &at(9)).finish(5);
        let mut expected: Vec<u8> = Vec::new();
        expected.extend([0; 4]);
        expected.extend(30_u16.to_ne_bytes());
        expected.extend(1_u16.to_ne_bytes());
        expected.extend(5_u32.to_ne_bytes());
        expected.extend([0; 4]);
        assert_eq!(expected.len(), HEADER);
        expected.extend([1, 1, 0, 0]);
        expected.extend(15_u16.to_ne_bytes());
        expected.extend(2_u16.to_ne_bytes());
        expected.extend(b"flannel-wg\0\0");
        expected.extend(52_u16.to_ne_bytes());
        expected.extend(0x8008_u16.to_ne_bytes());
        expected.extend(48_u16.to_ne_bytes());
        expected.extend(0x8000_u16.to_ne_bytes());
        expected.extend(36_u16.to_ne_bytes());
        expected.extend(1_u16.to_ne_bytes());
        expected.extend([9; 32]);
        expected.extend(8_u16.to_ne_bytes());
        expected.extend(3_u16.to_ne_bytes());
        expected.extend(1_u32.to_ne_bytes());
        let length = u32::try_from(expected.len()).unwrap();
        expected[0..4].copy_from_slice(&length.to_ne_bytes());
        assert_eq!(bytes, expected);
        let endpoint = socket_address("172.30.0.2:51820".parse().unwrap());
        assert_eq!(
            endpoint[2..],
            [0xca, 0x6c, 172, 30, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0]
        );
        assert_eq!(socket_address("[fd99::3]:1".parse().unwrap()).len(), 28);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            decode(&name(), std::iter::once(bytes.as_slice()));
        }
    }
}
