//! Ethernet addresses.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::names::NameError;

/// A 48-bit Ethernet address, written `02:00:0a:f4:01:02`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddr([u8; 6]);

// === impl MacAddr ===

impl MacAddr {
    /// The address with these octets, in the order in which they are written.
    #[must_use]
    pub const fn new(octets: [u8; 6]) -> Self {
        Self(octets)
    }

    /// The octets, in the order in which they are written.
    #[must_use]
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }

    /// A locally administered unicast address made of six arbitrary octets.
    #[must_use]
    pub const fn local(mut octets: [u8; 6]) -> Self {
        octets[0] = (octets[0] | 0x02) & 0xfe;
        Self(octets)
    }

    /// Whether an interface may have this address: neither multicast nor zero.
    #[must_use]
    pub fn is_unicast(self) -> bool {
        self.0[0] & 1 == 0 && self.0 != [0; 6]
    }
}

impl FromStr for MacAddr {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let bad = || {
            let problem = "is not six hexadecimal octets such as 02:00:0a:f4:01:02";
            NameError::new("MAC address", text, problem)
        };
        let mut octets = [0; 6];
        let mut parts = text.split([':', '-']);
        for octet in &mut octets {
            let part = parts.next().ok_or_else(bad)?;
            if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(bad());
            }
            *octet = u8::from_str_radix(part, 16).map_err(|_| bad())?;
        }
        if parts.next().is_some() {
            Err(bad())
        } else {
            Ok(Self(octets))
        }
    }
}

impl TryFrom<String> for MacAddr {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl TryFrom<&[u8]> for MacAddr {
    type Error = NameError;

    fn try_from(bytes: &[u8]) -> Result<Self, NameError> {
        let octets = bytes.try_into().map_err(|_| {
            NameError::new(
                "MAC address",
                &format!("{bytes:?}"),
                "is not six bytes long",
            )
        })?;
        Ok(Self(octets))
    }
}

impl From<MacAddr> for String {
    fn from(mac: MacAddr) -> Self {
        mac.to_string()
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn text_round_trips(octets: [u8; 6]) {
            let mac = MacAddr::new(octets);
            prop_assert_eq!(mac.to_string().parse::<MacAddr>(), Ok(mac));
        }

        #[test]
        fn a_local_address_is_unicast(octets: [u8; 6]) {
            prop_assert!(MacAddr::local(octets).is_unicast());
        }
    }

    #[test]
    fn bad_text_is_refused() {
        for bad in [
            "",
            "02:00:0a:f4:01",
            "02:00:0a:f4:01:02:03",
            "0:0:0:0:0:0",
            "zz:00:0a:f4:01:02",
        ] {
            assert!(bad.parse::<MacAddr>().is_err(), "{bad:?} was accepted");
        }
    }
}
