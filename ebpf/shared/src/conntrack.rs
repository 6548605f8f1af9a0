//! Our own connection tracking.
//!
//! A key is written from the pod's viewpoint, so both directions of a flow have one key. A flow
//! through a frontend has two entries: the main one under the backend's address (kind
//! [`CT_TRANSLATED`]) and a [`CT_SERVICE`] one under the frontend's address that leads to it.
//! Unreplied and closed flows live in the LRU map `ct_new`, replied ones in the hash `ct_est`, so a
//! flood evicts only embryonic flows.

use crate::{V4, V6, assert_size, protocol};

/// [`CtValue::kind`]: addresses pass unchanged.
pub const CT_PLAIN: u8 = 0;
/// [`CtValue::kind`]: main entry of a service flow; `nat` is the frontend that replies must come from.
pub const CT_TRANSLATED: u8 = 1;
/// [`CtValue::kind`]: entry under the frontend's address; `nat` is the backend.
pub const CT_SERVICE: u8 = 2;
/// [`CtValue::kind`]: under the frontend's address; the pod is its own backend and `nat` is itself.
pub const CT_HAIRPIN: u8 = 3;
/// [`CtValue::kind`]: what a hairpin's reply looks like when the pod sends it; `nat` is the frontend.
pub const CT_HAIRPIN_REPLY: u8 = 4;
/// [`CtValue::kind`]: under the frontend's address; there was no backend and the packet was marked
/// for rejection. The next packet chooses anew.
pub const CT_REJECTED: u8 = 5;

/// [`CtValue::flags`]: the remote side opened the flow (else the pod did).
pub const CT_FROM_REMOTE: u8 = 1;
/// [`CtValue::flags`]: the side that did not open the flow has answered.
pub const CT_REPLIED: u8 = 2;
/// [`CtValue::flags`]: TCP FIN or RST ended it.
pub const CT_CLOSED: u8 = 4;

/// TCP flag FIN as in the header's 14th byte.
pub const TCP_FIN: u8 = 0x01;
/// TCP flag SYN.
pub const TCP_SYN: u8 = 0x02;
/// TCP flag RST.
pub const TCP_RST: u8 = 0x04;
/// TCP flag ACK.
pub const TCP_ACK: u8 = 0x10;

/// Key of `towline_ct_new_*` and `towline_ct_est_*`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CtKey<A> {
    /// Host-side device index of the pod.
    pub zone: u32,
    /// The pod's address.
    pub pod: A,
    /// The other side's address.
    pub remote: A,
    /// The pod's port, network order; for ICMP echo that the pod requests its identifier, else 0.
    pub pod_port: [u8; 2],
    /// The other side's port, network order; for ICMP echo that it requests its identifier, else 0.
    pub remote_port: [u8; 2],
    /// IP protocol number.
    pub proto: u8,
    /// Zero.
    pub pad: [u8; 3],
}

/// Value of `towline_ct_new_*` and `towline_ct_est_*`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CtValue<A> {
    /// Monotonic nanoseconds (coarse) of the first packet.
    pub created_ns: u64,
    /// Monotonic nanoseconds of a recent packet; written at most once a second.
    pub last_ns: u64,
    /// Address that `kind` gives a meaning to; else zero.
    pub nat_addr: A,
    /// Port that goes with it, network order.
    pub nat_port: [u8; 2],
    /// `CT_PLAIN` and its siblings.
    pub kind: u8,
    /// `CT_FROM_REMOTE` | `CT_REPLIED` | `CT_CLOSED`.
    pub flags: u8,
    /// Id of the backend of a service flow, else 0.
    pub backend: u32,
    /// Id of the service of a service flow, else 0.
    pub service: u32,
    /// Policy revision under which the flow was allowed.
    pub revision: u32,
    /// Rule that allowed it; 0 when no policy applied.
    pub rule: u32,
    /// TCP flags seen from the pod, or-ed.
    pub pod_tcp: u8,
    /// TCP flags seen from the other side, or-ed.
    pub remote_tcp: u8,
    /// Zero.
    pub pad: [u8; 6],
}

/// How long idle flows are kept, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP, not replied.
    pub tcp_new: u64,
    /// TCP, replied.
    pub tcp_established: u64,
    /// TCP after FIN from both sides, or RST.
    pub tcp_closed: u64,
    /// UDP, not replied.
    pub udp_new: u64,
    /// UDP, replied.
    pub udp_established: u64,
    /// ICMP.
    pub icmp: u64,
    /// Everything else.
    pub other: u64,
}

impl Timeouts {
    /// Close to netfilter's defaults; a day for established TCP.
    pub const DEFAULT: Self = Self {
        tcp_new: 60,
        tcp_established: 86_400,
        tcp_closed: 10,
        udp_new: 30,
        udp_established: 120,
        icmp: 30,
        other: 600,
    };

    /// Seconds that an idle flow of `proto` with these `CT_*` flags is kept.
    pub const fn seconds(&self, proto: u8, flags: u8) -> u64 {
        let replied = flags & CT_REPLIED != 0;
        match proto {
            protocol::TCP if flags & CT_CLOSED != 0 => self.tcp_closed,
            protocol::TCP if replied => self.tcp_established,
            protocol::TCP => self.tcp_new,
            protocol::UDP if replied => self.udp_established,
            protocol::UDP => self.udp_new,
            protocol::ICMP | protocol::ICMPV6 => self.icmp,
            _ => self.other,
        }
    }

    /// Whether a flow last seen at `last_ns` is to be forgotten at `now_ns`.
    pub const fn expired(&self, proto: u8, flags: u8, last_ns: u64, now_ns: u64) -> bool {
        now_ns.saturating_sub(last_ns) > self.seconds(proto, flags) * 1_000_000_000
    }
}

/// The `CT_CLOSED` bit for these TCP flags of both sides.
#[inline(always)]
pub const fn closed(pod_tcp: u8, remote_tcp: u8) -> u8 {
    let reset = (pod_tcp | remote_tcp) & TCP_RST != 0;
    let finished = pod_tcp & remote_tcp & TCP_FIN != 0;
    if reset || finished { CT_CLOSED } else { 0 }
}

assert_size!(
    CtKey<V4> = 20,
    CtKey<V6> = 44,
    CtValue<V4> = 48,
    CtValue<V6> = 64,
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_is_closed_by_one_reset_or_two_fins() {
        assert_eq!(closed(TCP_FIN | TCP_ACK, TCP_ACK), 0);
        assert_eq!(closed(TCP_FIN, TCP_FIN), CT_CLOSED);
        assert_eq!(closed(0, TCP_RST), CT_CLOSED);
    }

    #[test]
    fn timeouts_follow_protocol_and_state() {
        let t = Timeouts::DEFAULT;
        let second = 1_000_000_000;
        assert!(!t.expired(protocol::TCP, CT_REPLIED, 0, 86_400 * second));
        assert!(t.expired(protocol::TCP, CT_REPLIED | CT_CLOSED, 0, 11 * second));
        assert!(t.expired(protocol::UDP, 0, 5 * second, 36 * second));
        assert!(!t.expired(protocol::UDP, CT_REPLIED, 5 * second, 36 * second));
        assert!(
            !t.expired(protocol::UDP, 0, 50 * second, 36 * second),
            "clock read before the write"
        );
    }
}
