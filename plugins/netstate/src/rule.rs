//! Rules of the routing policy: which table a packet's route is looked up in.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// A rule for what one address sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SourceRule {
    /// The source address, in all its bits.
    pub source: IpAddr,
    /// The routing table that is asked.
    pub table: u32,
}

impl fmt::Display for SourceRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "from {} lookup {}", self.source, self.table)
    }
}
