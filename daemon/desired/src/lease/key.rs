//! The name of a lease: `10.5.34.0-24`, dual-stack `10.5.34.0-24&fc00::5:0:0:0:0-64`.

use std::fmt;
use std::str::FromStr;

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use thiserror::Error;

/// The subnets of one lease. A key always has an IPv4 part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseKey {
    /// The IPv4 subnet, without host bits.
    pub v4: Ipv4Network,
    /// The IPv6 subnet of a dual-stack lease, without host bits.
    pub v6: Option<Ipv6Network>,
}

/// A name under the leases' prefix that is no lease.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is no lease; leases are called like 10.5.34.0-24 or 10.5.34.0-24&fc00:5::-64")]
pub struct KeyError(String);

// === impl LeaseKey ===

impl LeaseKey {
    /// The lease that flannel takes `name` for, though it is not how anybody writes one: with host
    /// bits, which are cleared here, a length like `024`, an IPv6 address in another form, or
    /// something in front.
    #[must_use]
    pub fn resembled(name: &str) -> Option<Self> {
        let (v4, v6) = match name.split_once('&') {
            Some((v4, v6)) => (v4, Some(v6)),
            None => (name, None),
        };
        let (ip, length) = parts(v4)?;
        let ip = (0..ip.len()).find_map(|at| ip.get(at..)?.parse().ok())?;
        let v4 = Ipv4Network::new(ip, length).ok()?;
        let v6 = v6.and_then(|v6| {
            let (ip, length) = parts(v6)?;
            let v6 = Ipv6Network::new(ip.parse().ok()?, length).ok()?;
            Ipv6Network::new(v6.network(), length).ok()
        });
        let v4 = Ipv4Network::new(v4.network(), length).ok()?;
        Some(Self { v4, v6 })
    }

    /// Its subnets, IPv4 first.
    pub fn subnets(self) -> impl Iterator<Item = IpNetwork> {
        [Some(self.v4.into()), self.v6.map(IpNetwork::from)]
            .into_iter()
            .flatten()
    }
}

impl fmt::Display for LeaseKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.v4.network(), self.v4.prefix())?;
        match self.v6 {
            Some(v6) => write!(f, "&{}-{}", v6.network(), v6.prefix()),
            None => Ok(()),
        }
    }
}

impl FromStr for LeaseKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        // A name that is not how the lease is written is not the lease's: another key is.
        let read = Self::resembled(text).filter(|key| key.to_string() == text);
        read.ok_or_else(|| KeyError(text.to_owned()))
    }
}

/// Address and prefix length, the latter in plain digits.
fn parts(text: &str) -> Option<(&str, u8)> {
    let (ip, length) = text.rsplit_once('-')?;
    let plain = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
    Some((ip, length.parse().ok().filter(|_| plain)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_flannels() {
        for text in ["10.5.34.0-24", "10.5.34.0-24&fc00:5::-64", "0.0.0.0-0"] {
            assert_eq!(text.parse::<LeaseKey>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn junk_is_no_key() {
        for text in [
            "",
            "10.5.34.0",
            "10.5.34.0/24",
            "10.5.34.1-24",
            "10.5.34.0-33",
            "10.5.34.0-+24",
            "10.5.34.0-24&",
            "10.5.34.0-24&fc00:5::1-64",
            "fc00:5::-64",
            "10.5.34.0-24&10.6.0.0-24",
            "../10.5.34.0-24",
            "10.5.34.0-024",
            "10.5.34.0-24&FC00:5::-64",
            "10.5.34.0-24&fc00:5:0::-64",
        ] {
            assert!(text.parse::<LeaseKey>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_flannel_takes_for_a_lease_is_known() {
        for (text, lease) in [
            ("10.5.34.7-24", "10.5.34.0-24"),
            ("10.5.34.0-024", "10.5.34.0-24"),
            ("old/10.5.34.0-24", "10.5.34.0-24"),
            ("10.5.34.0-24&fc00:5::7-64", "10.5.34.0-24&fc00:5::-64"),
            (
                "10.5.34.0-24&FC00:5:0:0:0:0:0:0-64",
                "10.5.34.0-24&fc00:5::-64",
            ),
            ("10.5.34.0-24&junk", "10.5.34.0-24"),
        ] {
            let key = LeaseKey::resembled(text).map(|key| key.to_string());
            assert_eq!(key.as_deref(), Some(lease), "{text}");
        }
        for text in ["", "notes", "10.5.34.0-33", "10.05.34.0-24", "10.5.34-24"] {
            assert_eq!(LeaseKey::resembled(text), None, "{text}");
        }
    }
}
