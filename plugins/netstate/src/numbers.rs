//! Numbers with a range.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::names::NameError;

/// A link's MTU in bytes: 68 (the least that IPv4 allows) to 65535.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Mtu(u32);

/// A VXLAN network identifier: 24 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Vni(u32);

// === impl Mtu ===

impl Mtu {
    /// The MTU in bytes.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// This MTU less `bytes` of encapsulation, never below 68.
    #[must_use]
    pub fn less(self, bytes: u32) -> Self {
        Self(self.0.saturating_sub(bytes).max(68))
    }
}

impl TryFrom<u32> for Mtu {
    type Error = NameError;

    fn try_from(value: u32) -> Result<Self, NameError> {
        if (68..=65535).contains(&value) {
            Ok(Self(value))
        } else {
            Err(NameError::new(
                "MTU",
                &value.to_string(),
                "is not within 68 to 65535 bytes",
            ))
        }
    }
}

impl From<Mtu> for u32 {
    fn from(mtu: Mtu) -> Self {
        mtu.0
    }
}

impl fmt::Display for Mtu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

// === impl Vni ===

impl Vni {
    /// The identifier.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for Vni {
    type Error = NameError;

    fn try_from(value: u32) -> Result<Self, NameError> {
        if value < 1 << 24 {
            Ok(Self(value))
        } else {
            Err(NameError::new(
                "VNI",
                &value.to_string(),
                "is not within 0 to 16777215",
            ))
        }
    }
}

impl From<Vni> for u32 {
    fn from(vni: Vni) -> Self {
        vni.0
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_checked() {
        assert_eq!(Mtu::try_from(1500).map(Mtu::get), Ok(1500));
        assert!(Mtu::try_from(67).is_err() && Mtu::try_from(65536).is_err());
        assert_eq!(Vni::try_from(1).map(Vni::get), Ok(1));
        assert!(Vni::try_from(1 << 24).is_err());
    }

    #[test]
    fn encapsulation_never_takes_the_mtu_below_the_least() {
        assert_eq!(Mtu::try_from(1500).unwrap().less(50).get(), 1450);
        assert_eq!(Mtu::try_from(80).unwrap().less(50).get(), 68);
    }
}
