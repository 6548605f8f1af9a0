//! Addresses of interfaces.

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::route::Scope;

/// An address on an interface: host address and prefix length, such as `10.244.1.5/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Address {
    /// The address with its prefix length; host bits are kept.
    pub ip: IpNetwork,
    /// IPv6: skip duplicate address detection, so that the address is usable at once.
    pub nodad: bool,
    /// How far the address is valid; `None` is the kernel's choice.
    pub scope: Option<Scope>,
    /// The kernel adds no route to the address' subnet.
    pub no_prefix_route: bool,
}

// === impl Address ===

impl Address {
    /// An address usable at once: no duplicate address detection.
    #[must_use]
    pub const fn new(ip: IpNetwork) -> Self {
        Self {
            ip,
            nodad: true,
            scope: None,
            no_prefix_route: false,
        }
    }

    /// The same address without a route to its subnet.
    #[must_use]
    pub const fn without_prefix_route(mut self) -> Self {
        self.no_prefix_route = true;
        self
    }
}

impl From<IpNetwork> for Address {
    fn from(ip: IpNetwork) -> Self {
        Self::new(ip)
    }
}
