//! Network state as values, and the one idea of Towline: everything we program is a keyed table.
//!
//! Nothing in this crate touches the kernel, the clock or a file. [`names`] parses text from
//! outside into checked newtypes once; [`link`], [`addr`], [`route`], [`neighbour`], [`qdisc`]
//! and [`nft`] hold what a node has or should have; [`step`] is an ordered plan with its undo;
//! [`target`], [`mod@diff`] and [`mod@reconcile`] make an actual table equal a wanted one.
#![forbid(unsafe_code)]

pub mod addr;
pub mod cached;
pub mod diff;
pub mod iptables;
pub mod kept;
pub mod link;
pub mod mac;
pub mod names;
pub mod neighbour;
pub mod nft;
pub mod numbers;
pub mod qdisc;
pub mod reconcile;
pub mod route;
pub mod rule;
pub mod step;
pub mod tap;
pub mod target;
pub mod wireguard;

pub use addr::Address;
pub use cached::Cached;
pub use diff::{Diff, diff};
pub use kept::Kept;
pub use link::{IpvlanMode, Link, LinkKind, Macvlan, MacvlanMode, PortVlans, VethPeer, Vxlan};
pub use mac::MacAddr;
pub use names::{IfName, NameError, NetnsPath};
pub use neighbour::{FdbEntry, FdbKey, Neighbour, NeighbourKey};
pub use numbers::{Mtu, Vni};
pub use qdisc::{Bucket, Htb, Qdisc, QdiscAt, Remote};
pub use reconcile::{Failure, Report, Stage, Wanted, reconcile};
pub use route::{Route, RouteKey, RouteKind, Scope};
pub use rule::SourceRule;
pub use step::{LinkAt, Op, Place, Step, undo};
pub use tap::Tap;
pub use target::Target;
