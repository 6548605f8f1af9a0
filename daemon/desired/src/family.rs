//! Address families as the data path's tables see them: IPv4 and IPv6 apart, bytes in network
//! order.

use std::net::IpAddr;

use ebpf_shared::{V4, V6};

/// An address as it stands in a table of its family.
pub trait TableAddress: Copy + Ord {
    /// The address, when it is of this family.
    fn from_ip(address: IpAddr) -> Option<Self>;
    /// The address as text and arithmetic know it.
    fn to_ip(self) -> IpAddr;
}

impl TableAddress for V4 {
    fn from_ip(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V4(v4) => Some(v4.octets()),
            IpAddr::V6(_) => None,
        }
    }

    fn to_ip(self) -> IpAddr {
        self.into()
    }
}

impl TableAddress for V6 {
    fn from_ip(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(v6) => Some(v6.octets()),
        }
    }

    fn to_ip(self) -> IpAddr {
        self.into()
    }
}
