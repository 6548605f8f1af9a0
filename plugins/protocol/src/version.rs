//! Versions of the specification. Support is exact: a version not listed is not spoken.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A version of the CNI specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Version {
    /// 0.1.0: ADD and DEL.
    #[serde(rename = "0.1.0")]
    V010,
    /// 0.2.0: VERSION.
    #[serde(rename = "0.2.0")]
    V020,
    /// 0.3.0: interfaces and addresses as lists, chaining.
    #[serde(rename = "0.3.0")]
    V030,
    /// 0.3.1
    #[serde(rename = "0.3.1")]
    V031,
    /// 0.4.0: CHECK, prevResult on DEL.
    #[serde(rename = "0.4.0")]
    V040,
    /// 1.0.0: lists only.
    #[serde(rename = "1.0.0")]
    V100,
    /// 1.1.0: GC and STATUS.
    #[serde(rename = "1.1.0")]
    V110,
}

/// Every version, oldest first.
pub const ALL: [Version; 7] = [
    Version::V010,
    Version::V020,
    Version::V030,
    Version::V031,
    Version::V040,
    Version::V100,
    Version::V110,
];

/// The newest version.
pub const CURRENT: Version = Version::V110;

// === impl Version ===

impl Version {
    /// As written in `cniVersion`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V010 => "0.1.0",
            Self::V020 => "0.2.0",
            Self::V030 => "0.3.0",
            Self::V031 => "0.3.1",
            Self::V040 => "0.4.0",
            Self::V100 => "1.0.0",
            Self::V110 => "1.1.0",
        }
    }

    /// The version written exactly so.
    #[must_use]
    pub fn find(text: &str) -> Option<Self> {
        ALL.into_iter().find(|version| version.as_str() == text)
    }

    /// Whether results of both versions have one schema: 0.1 to 0.2, 0.3 to 0.4, 1.x.
    #[must_use]
    pub const fn same_schema(self, other: Self) -> bool {
        self.schema() == other.schema()
    }

    const fn schema(self) -> u8 {
        match self {
            Self::V010 | Self::V020 => 0,
            Self::V030 | Self::V031 | Self::V040 => 1,
            Self::V100 | Self::V110 => 2,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
