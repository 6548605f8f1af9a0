//! What a program decides: the only two things that `main` turns into return codes.

use ebpf_shared::reason::Reason;

/// Where a packet that is not dropped goes. A struct without variants: the verifier refuses copies of
/// the undefined bytes that an enum's smaller variants have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What it is counted under.
    pub reason: Reason,
    /// Host-side device of the pod that it goes directly into; 0 for the node's stack, or into the pod
    /// at hand.
    pub peer: u32,
}

impl Outcome {
    /// On to the node's stack, or into the pod.
    #[inline(always)]
    pub const fn pass(reason: Reason) -> Self {
        Self { reason, peer: 0 }
    }

    /// Directly into the pod whose host-side device has this index.
    #[inline(always)]
    pub const fn peer(peer: u32, reason: Reason) -> Self {
        Self { reason, peer }
    }
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
