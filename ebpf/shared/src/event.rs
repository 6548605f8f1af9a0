//! Events: what the programs put into the ring buffer, and counters.

use crate::assert_size;

/// [`Event::kind`]: a packet was dropped.
pub const EVENT_DROP: u8 = 0;
/// [`Event::kind`]: policy was asked about a new flow and allowed it (with
/// [`crate::maps::CONFIG_VERDICT_EVENTS`]).
pub const EVENT_VERDICT: u8 = 1;

/// Record of `towline_events`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Monotonic nanoseconds (coarse).
    pub time_ns: u64,
    /// Host-side device index of the pod.
    pub ifindex: u32,
    /// Packet length in bytes; 0 for a verdict, which is about a flow.
    pub len: u32,
    /// Policy set of the pod, 0 when it has none.
    pub policy_set: u32,
    /// Class of the peer, 0 when it was not looked up.
    pub class: u32,
    /// Rule that decided, 0 when none did.
    pub rule: u32,
    /// [`EVENT_DROP`] or [`EVENT_VERDICT`].
    pub kind: u8,
    /// Code of the [`crate::reason::Reason`].
    pub reason: u8,
    /// [`crate::policy::INGRESS`] or [`crate::policy::EGRESS`], from the viewpoint of the pod at `ifindex`.
    pub direction: u8,
    /// 4 or 6; 0 when the packet was not IP.
    pub family: u8,
    /// IP protocol number.
    pub proto: u8,
    /// TCP flags.
    pub tcp_flags: u8,
    /// Source port, network order.
    pub src_port: [u8; 2],
    /// Destination port, network order.
    pub dst_port: [u8; 2],
    /// Zero.
    pub pad: [u8; 2],
    /// Source address; an IPv4 address in the first four bytes.
    pub src: [u8; 16],
    /// Destination address; an IPv4 address in the first four bytes.
    pub dst: [u8; 16],
}

/// Value of `towline_counters`, one per CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    /// Packets.
    pub packets: u64,
    /// Bytes, link-layer header included.
    pub bytes: u64,
}

assert_size!(Event = 72, Counter = 16);
