//! Map names, default capacities, and the configuration entry.

use crate::{V4, V6, assert_size};

/// Names of all maps. Map-name suffixes `_V4`/`_V6` tell the address family.
pub mod name {
    /// [`crate::service::FrontendKey`] → [`crate::service::FrontendValue`].
    pub const FRONTEND_V4: &str = "towline_frontend_v4";
    /// As [`FRONTEND_V4`].
    pub const FRONTEND_V6: &str = "towline_frontend_v6";
    /// [`crate::service::SlotKey`] → [`crate::service::SlotValue`].
    pub const SLOT_V4: &str = "towline_slot_v4";
    /// As [`SLOT_V4`].
    pub const SLOT_V6: &str = "towline_slot_v6";
    /// [`crate::service::BackendKey`] → [`crate::service::BackendValue`].
    pub const BACKEND_V4: &str = "towline_backend_v4";
    /// As [`BACKEND_V4`].
    pub const BACKEND_V6: &str = "towline_backend_v6";
    /// [`crate::service::SockKey`] → [`crate::service::SockValue`].
    pub const SOCK_V4: &str = "towline_sock_v4";
    /// As [`SOCK_V4`].
    pub const SOCK_V6: &str = "towline_sock_v6";
    /// [`crate::service::AffinityKey`] → [`crate::service::AffinityValue`].
    pub const AFFINITY_V4: &str = "towline_affinity_v4";
    /// As [`AFFINITY_V4`].
    pub const AFFINITY_V6: &str = "towline_affinity_v6";
    /// [`crate::policy::PodKey`] → [`crate::policy::PodValue`].
    pub const POD: &str = "towline_pod";
    /// [`crate::policy::LocalKey`] → [`crate::policy::LocalValue`].
    pub const LOCAL_V4: &str = "towline_local_v4";
    /// As [`LOCAL_V4`].
    pub const LOCAL_V6: &str = "towline_local_v6";
    /// [`crate::policy::PodNetnsKey`] → [`crate::policy::PodNetnsValue`].
    pub const POD_NETNS: &str = "towline_pod_netns";
    /// [`crate::policy::ClassKey`] → [`crate::policy::ClassValue`].
    pub const CLASS_V4: &str = "towline_class_v4";
    /// As [`CLASS_V4`].
    pub const CLASS_V6: &str = "towline_class_v6";
    /// [`crate::policy::CidrKey`] → [`crate::policy::ClassValue`].
    pub const CIDR_CLASS_V4: &str = "towline_cidr_class_v4";
    /// As [`CIDR_CLASS_V4`].
    pub const CIDR_CLASS_V6: &str = "towline_cidr_class_v6";
    /// [`crate::policy::VerdictKey`] → [`crate::policy::VerdictValue`].
    pub const VERDICT: &str = "towline_verdict";
    /// [`crate::conntrack::CtKey`] → [`crate::conntrack::CtValue`]: unreplied and closed flows.
    pub const CT_NEW_V4: &str = "towline_ct_new_v4";
    /// As [`CT_NEW_V4`].
    pub const CT_NEW_V6: &str = "towline_ct_new_v6";
    /// [`crate::conntrack::CtKey`] → [`crate::conntrack::CtValue`]: replied flows.
    pub const CT_EST_V4: &str = "towline_ct_est_v4";
    /// As [`CT_EST_V4`].
    pub const CT_EST_V6: &str = "towline_ct_est_v6";
    /// [`super::FragmentKey`] → [`super::FragmentValue`].
    pub const FRAGMENT_V4: &str = "towline_fragment_v4";
    /// As [`FRAGMENT_V4`].
    pub const FRAGMENT_V6: &str = "towline_fragment_v6";
    /// [`crate::reason::counter_index`] → [`crate::event::Counter`], per CPU.
    pub const COUNTERS: &str = "towline_counters";
    /// Ring buffer of [`crate::event::Event`].
    pub const EVENTS: &str = "towline_events";
    /// 0 → [`super::Config`].
    pub const CONFIG: &str = "towline_config";
}

/// Default capacities, in entries.
pub mod capacity {
    /// Frontends of one family.
    pub const FRONTEND: usize = 65_536;
    /// Slots of one family; two generations of a changing service exist at a time.
    pub const SLOT: usize = 524_288;
    /// Backends of one family.
    pub const BACKEND: usize = 262_144;
    /// Socket translations of one family.
    pub const SOCK: usize = 65_536;
    /// Sticky clients of one family.
    pub const AFFINITY: usize = 65_536;
    /// Pods of this node.
    pub const POD: usize = 1_024;
    /// Classified addresses of one family.
    pub const CLASS: usize = 65_536;
    /// Classified prefixes of one family.
    pub const CIDR_CLASS: usize = 16_384;
    /// Verdict entries.
    pub const VERDICT: usize = 65_536;
    /// Embryonic flows of one family.
    pub const CT_NEW: usize = 65_536;
    /// Established flows of one family.
    pub const CT_EST: usize = 131_072;
    /// Fragmented datagrams in flight of one family.
    pub const FRAGMENT: usize = 8_192;
    /// Bytes of the event ring (a power of two, a multiple of the page size).
    pub const EVENT_BYTES: usize = 1 << 20;
    /// Counters: both directions.
    pub const COUNTERS: usize = 2 * crate::reason::REASON_SLOTS as usize;
}

/// [`Config::flags`]: packets between pods of this node go directly to the peer's device.
pub const CONFIG_LOCAL_REDIRECT: u32 = 1;
/// [`Config::flags`]: an event for every new flow that policy allowed.
pub const CONFIG_VERDICT_EVENTS: u32 = 4;
/// [`Config::flags`]: the tables hold services; without it frontends are not looked up.
pub const CONFIG_SERVICES: u32 = 8;

/// Raised when the meaning of a map changes without its sizes: part of the pin path.
pub const LAYOUT_VERSION: u32 = 1;

/// The one entry of `towline_config`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// `SO_NETNS_COOKIE` of the node's own network namespace: its UDP is translated at the socket.
    pub node_netns: u64,
    /// Cluster CIDR's network address, IPv6.
    pub cluster6: V6,
    /// Cluster CIDR's network address, IPv4.
    pub cluster4: V4,
    /// Cluster CIDR's netmask, IPv4; all zero when there is no IPv4 cluster CIDR.
    pub cluster4_mask: V4,
    /// Prefix length of the IPv6 cluster CIDR; 0 when there is none.
    pub cluster6_prefix: u32,
    /// `CONFIG_*` flags.
    pub flags: u32,
}

/// Key of `towline_fragment_v4`/`_v6` (LRU, written by the programs only).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FragmentKey<A> {
    /// Source address.
    pub src: A,
    /// Destination address.
    pub dst: A,
    /// Fragment identification, as it stands in the packet (IPv4: first two bytes).
    pub id: [u8; 4],
    /// Device index, so that both ends on one node do not share an entry.
    pub ifindex: u32,
    /// IP protocol number.
    pub proto: u8,
    /// Direction, as in [`crate::policy`].
    pub direction: u8,
    /// Zero.
    pub pad: [u8; 2],
}

/// Value of `towline_fragment_v4`/`_v6`: the ports of the datagram's first fragment.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentValue {
    /// Source port, network order.
    pub src_port: [u8; 2],
    /// Destination port, network order.
    pub dst_port: [u8; 2],
}

assert_size!(
    Config = 40,
    FragmentKey<V4> = 20,
    FragmentKey<V6> = 44,
    FragmentValue = 4,
);
