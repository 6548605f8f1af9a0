//! WireGuard devices over generic netlink (`linux/wireguard.h`): their key and port, their peers.
//!
//! The device itself is an ordinary link. Families of generic netlink have numbers that the kernel
//! gives out as their modules are loaded, so the number is asked for by name each time.

mod codec;

use std::collections::BTreeMap;

use netstate::wireguard::{Device, Peer, PeerKey};
use netstate::{IfName, Target};
use nix::sys::socket::SockProtocol;

use crate::error::{Error, ErrorKind, Result};
use crate::socket::Wire;
use crate::wire::message::{Message, find, read_u16};

/// `GENL_ID_CTRL`, and what it is asked (`linux/genetlink.h`).
const CONTROL: u16 = 0x10;
const GET_FAMILY: [u8; 4] = [3, 1, 0, 0];
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
/// Length of `struct genlmsghdr`.
const GENL: usize = 4;

/// A connection to the WireGuard devices of one network namespace.
#[derive(Debug)]
pub struct Wireguard {
    wire: Wire,
}

/// A device's own key and port. The device is made elsewhere.
#[derive(Debug)]
pub struct WireguardDeviceTarget {
    wireguard: Wireguard,
    device: IfName,
}

/// All peers of one device of ours.
#[derive(Debug)]
pub struct WireguardPeerTarget {
    wireguard: Wireguard,
    device: IfName,
}

// === impl Wireguard ===

impl Wireguard {
    /// Opens a socket in the network namespace of the calling thread. It stays there.
    ///
    /// # Errors
    /// When the kernel gives no socket. Whether it has WireGuard shows later.
    pub fn open() -> Result<Self> {
        Ok(Self {
            wire: Wire::open(SockProtocol::NetlinkGeneric)?,
        })
    }

    /// What a device has of its own, with its peers; `None` when it has no key yet.
    ///
    /// # Errors
    /// When there is no such device, the kernel has no WireGuard, or it refuses to tell.
    pub fn device(&mut self, name: &IfName) -> Result<(Option<Device>, BTreeMap<PeerKey, Peer>)> {
        let message = codec::question(self.family(name)?, name);
        let found = self.wire.dump(&message, ("read WireGuard device", name))?;
        let bodies = found.iter().filter_map(|reply| reply.body.get(GENL..));
        Ok(codec::decode(name, bodies))
    }

    /// Sets key and port of a device.
    ///
    /// # Errors
    /// When there is no such device, its port is taken, or the kernel refuses.
    pub fn set_device(&mut self, name: &IfName, device: &Device) -> Result<()> {
        let message = codec::device(self.family(name)?, name, device);
        self.wire.request(message, ("set WireGuard device", name))
    }

    /// Adds a peer, or makes it like this.
    ///
    /// # Errors
    /// When there is no such device or the kernel refuses.
    pub fn set_peer(&mut self, key: &PeerKey, peer: &Peer) -> Result<()> {
        let message = codec::peer(self.family(&key.device)?, key, peer);
        self.wire
            .request(message, ("set WireGuard peer of", &key.device))
    }

    /// Removes a peer; an absent one is no error.
    ///
    /// # Errors
    /// When there is no such device or the kernel refuses.
    pub fn delete_peer(&mut self, key: &PeerKey) -> Result<()> {
        let message = codec::removal(self.family(&key.device)?, key);
        self.wire
            .request(message, ("delete WireGuard peer of", &key.device))
    }

    fn family(&mut self, device: &IfName) -> Result<u16> {
        let mut message = Message::new(CONTROL, 0, &GET_FAMILY);
        message.text(FAMILY_NAME, "wireguard");
        let answer = match self.wire.query(message, ("find WireGuard for", device)) {
            Err(error) if error.is_not_found() => None,
            other => other?,
        };
        let number = answer
            .as_ref()
            .and_then(|reply| find(reply.body.get(GENL..)?, FAMILY_ID));
        number.map(|value| read_u16(value, 0)).ok_or_else(|| {
            let reason = "this kernel has no WireGuard; load the module wireguard (Linux 5.6)";
            let mut error = Error::invalid("find WireGuard for", device, reason);
            error.kind = ErrorKind::Unsupported;
            error
        })
    }
}

// === impl WireguardDeviceTarget ===

impl WireguardDeviceTarget {
    /// Works on `device` in `wireguard`'s namespace.
    #[must_use]
    pub const fn new(wireguard: Wireguard, device: IfName) -> Self {
        Self { wireguard, device }
    }
}

impl Target for WireguardDeviceTarget {
    type Key = IfName;
    type Value = Device;
    type Error = Error;

    fn observe(&mut self) -> Result<BTreeMap<IfName, Device>> {
        let (device, _) = self.wireguard.device(&self.device)?;
        Ok(device
            .map(|device| (self.device.clone(), device))
            .into_iter()
            .collect())
    }

    fn put(&mut self, name: &IfName, device: &Device) -> Result<()> {
        self.wireguard.set_device(name, device)
    }

    /// A key goes with its device.
    fn delete(&mut self, _: &IfName) -> Result<()> {
        Ok(())
    }
}

// === impl WireguardPeerTarget ===

impl WireguardPeerTarget {
    /// Works on the peers of `device` in `wireguard`'s namespace.
    #[must_use]
    pub const fn new(wireguard: Wireguard, device: IfName) -> Self {
        Self { wireguard, device }
    }
}

impl Target for WireguardPeerTarget {
    type Key = PeerKey;
    type Value = Peer;
    type Error = Error;

    fn observe(&mut self) -> Result<BTreeMap<PeerKey, Peer>> {
        self.wireguard.device(&self.device).map(|(_, peers)| peers)
    }

    fn put(&mut self, key: &PeerKey, peer: &Peer) -> Result<()> {
        self.wireguard.set_peer(key, peer)
    }

    fn delete(&mut self, key: &PeerKey) -> Result<()> {
        self.wireguard.delete_peer(key)
    }
}
