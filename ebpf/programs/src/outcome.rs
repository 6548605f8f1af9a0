//! What a program decides: the only two things that `main` turns into return codes.

use ebpf_shared::reason::Reason;

/// Where a packet that is not dropped goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// On to the node's stack, or into the pod; counted under this reason.
    Pass(Reason),
    /// Directly into the pod whose host-side device has this index.
    Peer { ifindex: u32, reason: Reason },
}

/// Why a packet is dropped, with what policy knew about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denial {
    pub reason: Reason,
    /// The pod's device: for packets between two pods of this node the one whose policy denied.
    pub zone: u32,
    pub policy_set: u32,
    pub class: u32,
    pub rule: u32,
    /// Direction from the viewpoint of that pod.
    pub direction: u8,
}

impl Denial {
    /// A drop that has nothing to do with policy.
    #[inline(always)]
    pub const fn plain(reason: Reason, zone: u32, direction: u8) -> Self {
        Self {
            reason,
            zone,
            policy_set: 0,
            class: 0,
            rule: 0,
            direction,
        }
    }
}
