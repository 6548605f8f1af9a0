//! WireGuard devices: keys, and what a device and its peers are.

mod curve;

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use ipnetwork::IpNetwork;

use crate::names::{IfName, NameError};

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// A key of 32 bytes: private, public or shared. Debugging output never shows it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key([u8; 32]);

/// What a device has of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Device {
    /// Its private key.
    pub private_key: Key,
    /// The UDP port it listens on.
    pub port: u16,
}

/// Which peer of which device.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerKey {
    /// The device.
    pub device: IfName,
    /// The peer's public key.
    pub public_key: Key,
}

/// What a device knows of a peer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Peer {
    /// Where it listens.
    pub endpoint: SocketAddr,
    /// What it may send and is sent, in order.
    pub allowed: Vec<IpNetwork>,
    /// A key that both share beside their own.
    pub preshared_key: Option<Key>,
    /// Seconds between packets that keep a way through NAT open; 0 for none.
    pub keepalive: u16,
}

// === impl Key ===

impl Key {
    /// The key with these bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// A private key made of 32 random bytes: clamped, as X25519 wants it (RFC 7748).
    #[must_use]
    pub const fn private(mut random: [u8; 32]) -> Self {
        random[0] &= 248;
        random[31] = random[31] & 127 | 64;
        Self(random)
    }

    /// The bytes.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The public key of this private key.
    #[must_use]
    pub fn public(&self) -> Self {
        Self(curve::public_key(&self.0))
    }
}

/// In base64, as `wg(8)` and flannel write it.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.chunks(3) {
            let at = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
            let bits = at(0) << 16 | at(1) << 8 | at(2);
            for place in 0..4 {
                let letter = ALPHABET[(bits >> (18 - 6 * place) & 63) as usize];
                let shown = if place > chunk.len() { b'=' } else { letter };
                write!(f, "{}", char::from(shown))?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

impl FromStr for Key {
    type Err = NameError;

    /// The key itself is not repeated in the error: it may be a secret.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let wrong = || NameError::new("WireGuard key", "…", "is not 32 bytes in base64");
        let digits = text.trim().strip_suffix('=').ok_or_else(wrong)?;
        if digits.len() != 43 {
            return Err(wrong());
        }
        let (mut bytes, mut bits, mut held) = (Vec::with_capacity(33), 0_u32, 0);
        for digit in digits.bytes() {
            let value = ALPHABET.iter().position(|letter| *letter == digit);
            let value = value.and_then(|value| u32::try_from(value).ok());
            bits = bits << 6 | value.ok_or_else(wrong)?;
            held += 6;
            if held >= 8 {
                held -= 8;
                bytes.push((bits >> held & 0xff) as u8);
            }
        }
        // The last two bits belong to no byte.
        if bits & 3 != 0 {
            return Err(wrong());
        }
        <[u8; 32]>::try_from(bytes).map(Self).map_err(|_| wrong())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> [u8; 32] {
        let byte = |at: usize| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap();
        std::array::from_fn(byte)
    }

    #[test]
    fn public_keys_are_those_of_the_rfc() {
        // RFC 7748, 6.1.
        for (private, public) in [
            (
                "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
                "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
            ),
            (
                "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
                "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
            ),
        ] {
            assert_eq!(Key::new(hex(private)).public().bytes(), &hex(public));
            assert_eq!(Key::private(hex(private)).public().bytes(), &hex(public));
        }
    }

    #[test]
    fn text_is_base64_and_debugging_output_is_not() {
        let key = Key::new(std::array::from_fn(|at| u8::try_from(at * 7 + 3).unwrap()));
        let text = key.to_string();
        assert_eq!(text, "AwoRGB8mLTQ7QklQV15lbHN6gYiPlp2kq7K5wMfO1dw=");
        assert_eq!(text.parse(), Ok(key));
        assert_eq!(format!("{key:?}"), "Key(…)");
        for wrong in [
            "",
            "AwoRGB8mLTQ7QklQV15lbHN6gYiPlp2kq7K5wMfO1dx=",
            "AwoRGB8mLTQ7QklQV15lbHN6gYiPlp2kq7K5wMfO1dw",
            "AwoRGB8mLTQ7QklQV15lbHN6gYiPlp2kq7K5wMfO1d*=",
            "AwoRGB8mLTQ7QklQV15lbHN6gYiPlp2kq7K5wMfO1dwA=",
        ] {
            assert!(wrong.parse::<Key>().is_err(), "{wrong}");
        }
    }
}
