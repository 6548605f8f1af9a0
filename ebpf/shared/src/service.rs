//! Services: frontends, the slots of a service, and backends.
//!
//! A frontend names a `service` and its current `generation`; slot `{service, generation, n}` for
//! `n` in `0..n_cluster` names a backend, those on this node first (`n < n_local`). A change of a
//! service writes the slots of the next generation and then switches the one frontend value.

use crate::{V4, V6, assert_size};

/// Scope of a frontend: dialled from inside the cluster (pods and nodes).
pub const SCOPE_CLUSTER: u8 = 0;
/// Scope of a frontend: dialled from outside the cluster.
pub const SCOPE_EXTERNAL: u8 = 1;

/// Frontend flag: only backends on this node may be used (`internalTrafficPolicy: Local` for
/// [`SCOPE_CLUSTER`], `externalTrafficPolicy: Local` for [`SCOPE_EXTERNAL`]).
pub const FRONTEND_LOCAL_ONLY: u16 = 1;
/// Frontend flag: clients stick to their backend for `affinity_secs`.
pub const FRONTEND_AFFINITY: u16 = 2;

/// Backend state: new flows may be sent to it.
pub const BACKEND_SERVING: u32 = 0;
/// Backend state: keeps its flows, gets no new ones.
pub const BACKEND_TERMINATING: u32 = 1;

/// Key of `towline_frontend_v4`/`_v6`: the address and port that a client dials.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrontendKey<A> {
    /// Dialled address.
    pub addr: A,
    /// Dialled port, network order.
    pub port: [u8; 2],
    /// IP protocol number.
    pub proto: u8,
    /// [`SCOPE_CLUSTER`] or [`SCOPE_EXTERNAL`].
    pub scope: u8,
}

/// Value of `towline_frontend_v4`/`_v6`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrontendValue {
    /// Service id: first part of [`SlotKey`].
    pub service: u32,
    /// Generation of the slot list: second part of [`SlotKey`].
    pub generation: u32,
    /// Number of usable slots.
    pub n_cluster: u16,
    /// How many of them (the first ones) are on this node.
    pub n_local: u16,
    /// `FRONTEND_*` flags.
    pub flags: u16,
    /// Zero.
    pub pad: u16,
    /// Session affinity time in seconds, with [`FRONTEND_AFFINITY`].
    pub affinity_secs: u32,
}

/// Key of `towline_slot_v4`/`_v6`: the `n`-th backend of one generation of a service.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotKey {
    /// Service id.
    pub service: u32,
    /// Generation of the slot list.
    pub generation: u32,
    /// Position, from 0; backends on this node first.
    pub n: u32,
}

/// Value of `towline_slot_v4`/`_v6`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotValue {
    /// Key of the `backend` map.
    pub backend: u32,
}

/// Key of `towline_backend_v4`/`_v6`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendKey {
    /// Backend id.
    pub id: u32,
}

/// Value of `towline_backend_v4`/`_v6`: where a backend listens.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendValue<A> {
    /// Address.
    pub addr: A,
    /// Port, network order.
    pub port: [u8; 2],
    /// Zero.
    pub pad: [u8; 2],
    /// Host-side device index of the pod, 0 when it is not on this node.
    pub ifindex: u32,
    /// [`BACKEND_SERVING`] or [`BACKEND_TERMINATING`].
    pub state: u32,
}

/// Key of `towline_affinity_v4`/`_v6` (LRU, written by the programs only).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AffinityKey<A> {
    /// Service id.
    pub service: u32,
    /// Client address; for a client in the node's own namespace all zero.
    pub client: A,
}

/// Value of `towline_affinity_v4`/`_v6`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AffinityValue {
    /// Nanoseconds of the monotonic clock when the client last opened a flow.
    pub last_ns: u64,
    /// The backend it sticks to.
    pub backend: u32,
    /// Connections that the socket programs left to the device, because the pod itself was chosen,
    /// and that the device has not seen yet.
    pub left_to_device: u32,
}

/// [`SockKey::side`]: the key's address is the frontend, the value is the backend chosen.
pub const SOCK_FORWARD: u8 = 0;
/// [`SockKey::side`]: the key's address is the backend, the value is the frontend dialled.
pub const SOCK_REVERSE: u8 = 1;

/// Key of `towline_sock_v4`/`_v6` (LRU, written by the programs only): the translation of a socket.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SockKey<A> {
    /// Socket cookie.
    pub cookie: u64,
    /// Address of the side named by `side`.
    pub addr: A,
    /// Port of that side, network order.
    pub port: [u8; 2],
    /// [`SOCK_FORWARD`] or [`SOCK_REVERSE`].
    pub side: u8,
    /// IP protocol number.
    pub proto: u8,
}

/// Value of `towline_sock_v4`/`_v6`: the other side of the translation.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SockValue<A> {
    /// Address of the other side.
    pub addr: A,
    /// Port of the other side, network order.
    pub port: [u8; 2],
    /// Zero.
    pub pad: [u8; 2],
    /// Id of the backend, on both sides.
    pub backend: u32,
}

/// What to do with a new flow to a frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Use slot `n`.
    Slot(u32),
    /// There is no backend anywhere: refuse (TCP reset, port unreachable).
    Reject,
    /// Only this node's backends may be used and there is none: drop.
    DropNoLocal,
}

/// Chooses a slot of `frontend` uniformly from `random` (any u32).
#[inline(always)]
pub fn choose(frontend: &FrontendValue, random: u32) -> Choice {
    if frontend.n_cluster == 0 {
        return Choice::Reject;
    }
    let usable = if frontend.flags & FRONTEND_LOCAL_ONLY == 0 {
        frontend.n_cluster
    } else {
        frontend.n_local
    };
    if usable == 0 {
        return Choice::DropNoLocal;
    }
    Choice::Slot(pick_slot(random, usable))
}

/// Maps a uniform u32 to `0..n` without a division; 0 for `n == 0`.
#[inline(always)]
pub fn pick_slot(random: u32, n: u16) -> u32 {
    ((u64::from(random) * u64::from(n)) >> 32) as u32
}

assert_size!(
    FrontendKey<V4> = 8,
    FrontendKey<V6> = 20,
    FrontendValue = 20,
    SlotKey = 12,
    SlotValue = 4,
    BackendKey = 4,
    BackendValue<V4> = 16,
    BackendValue<V6> = 28,
    AffinityKey<V4> = 8,
    AffinityKey<V6> = 20,
    AffinityValue = 16,
    SockKey<V4> = 16,
    SockKey<V6> = 32,
    SockValue<V4> = 12,
    SockValue<V6> = 24,
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_in_range_and_uniform() {
        assert_eq!(pick_slot(u32::MAX, 0), 0);
        let mut counts = [0u32; 3];
        for step in 0..30_000u32 {
            counts[pick_slot(step.wrapping_mul(143_165), 3) as usize] += 1;
        }
        assert!(
            counts.iter().all(|n| (9_900..10_100).contains(n)),
            "{counts:?}"
        );
        assert_eq!(pick_slot(u32::MAX, 65_535), 65_534);
    }

    #[test]
    fn no_backend_rejects_and_no_local_backend_drops() {
        let mut frontend = FrontendValue::default();
        assert_eq!(choose(&frontend, 7), Choice::Reject);
        frontend.n_cluster = 4;
        assert_eq!(choose(&frontend, u32::MAX), Choice::Slot(3));
        frontend.flags = FRONTEND_LOCAL_ONLY;
        assert_eq!(choose(&frontend, 7), Choice::DropNoLocal);
        frontend.n_local = 1;
        assert_eq!(choose(&frontend, u32::MAX), Choice::Slot(0));
    }
}
