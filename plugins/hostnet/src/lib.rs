//! The host's network: the only place with netlink, nftables, sysctl and `setns` code.
//!
//! Everything here is blocking and works on sockets of its own. A [`Netlink`] stays in the network
//! namespace in which it was opened, so one thread can hold one socket per namespace. Messages are
//! encoded here ([`wire`](crate)) rather than by a crate, because nftables needs an encoder anyway
//! and an unknown attribute of a newer kernel must never make a reply unreadable.

pub mod addrs;
pub mod apply;
mod changes;
pub mod conntrack;
pub mod error;
mod fdb;
pub mod filters;
pub mod iptables;
pub mod links;
pub mod lock;
mod neighbours;
pub mod netns;
pub mod nft;
pub mod offload;
pub mod qdiscs;
pub mod routes;
pub mod rules;
mod settle;
pub mod socket;
pub mod sysctl;
pub mod tap;
pub mod targets;
mod wire;
pub mod wireguard;

pub use addrs::AddressInfo;
pub use changes::Changes;
pub use conntrack::{Conntrack, Flow};
pub use error::{Error, ErrorKind, Result};
pub use filters::FilterInfo;
pub use links::{LinkDetails, LinkInfo, PortFlag, PortInfo};
pub use netns::Netns;
pub use nft::{NftTarget, Nftables};
pub use qdiscs::{BucketInfo, QdiscInfo};
pub use routes::{PROTOCOL_BOOT, PROTOCOL_TOWLINE};
pub use socket::Netlink;
pub use targets::{FdbTarget, NeighbourTarget, RouteTarget};
pub use wireguard::{WireguardDeviceTarget, WireguardPeerTarget};
