//! What Towline's eBPF programs and its user space must agree on: map names, key and value layouts,
//! codes, and the pure functions that both sides use.
//!
//! Layout rules (checked by the size assertions of each module): `#[repr(C)]`, byte arrays in network
//! order for addresses and ports, explicit padding that must be zero, no `bool`, `enum` or `Option`.
//! Types that hold an address are generic over its byte array: [`V4`] or [`V6`].
//! Codes (verdicts, reasons, directions) are stored as plain integers; the enums here give them names.
//!
//! The crate is `no_std` and imports nothing of Towline's. The feature `user` adds `aya::Pod`.
#![no_std]

#[cfg(test)]
extern crate std;

pub mod checksum;
pub mod conntrack;
pub mod event;
pub mod hook;
pub mod maps;
pub mod policy;
pub mod reason;
pub mod service;
#[cfg(feature = "user")]
mod user;

/// An IPv4 address as it stands in a packet.
pub type V4 = [u8; 4];
/// An IPv6 address as it stands in a packet.
pub type V6 = [u8; 16];

/// IP protocol numbers (IANA) that the data path treats specially.
pub mod protocol {
    /// Internet Control Message Protocol.
    pub const ICMP: u8 = 1;
    /// Transmission Control Protocol.
    pub const TCP: u8 = 6;
    /// User Datagram Protocol.
    pub const UDP: u8 = 17;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// Stream Control Transmission Protocol.
    pub const SCTP: u8 = 132;
}

/// Fails the build when a type's size is not the one that the other side expects.
macro_rules! assert_size {
    ($($t:ty = $n:expr),+ $(,)?) => {
        $(const _: () = assert!(core::mem::size_of::<$t>() == $n);)+
    };
}
pub(crate) use assert_size;
