//! The flow table: lookup, refresh, promotion on reply, demotion on close.

use aya_ebpf::helpers::bpf_ktime_get_coarse_ns;
use ebpf_shared::{
    V4,
    conntrack::{
        CT_CLOSED, CT_FROM_REMOTE, CT_REPLIED, CT_SERVICE, CT_TRANSLATED, CtKey, CtValue, closed,
    },
    policy,
    reason::Reason,
};

use crate::{
    events,
    maps::{towline_ct_est_v4, towline_ct_new_v4},
    packet::Packet,
};

/// An entry that was found.
pub struct Found {
    pub value: *mut CtValue<V4>,
    /// It is in the table of replied flows.
    established: bool,
}

/// Coarse monotonic clock in nanoseconds.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// Key of the packet's flow, seen from the pod at `zone`.
#[inline(always)]
pub fn key(packet: &Packet, zone: u32, direction: u8) -> CtKey<V4> {
    let from_pod = direction == policy::EGRESS;
    CtKey {
        zone,
        pod: if from_pod { packet.src } else { packet.dst },
        remote: if from_pod { packet.dst } else { packet.src },
        pod_port: if from_pod {
            packet.src_port
        } else {
            packet.dst_port
        },
        remote_port: if from_pod {
            packet.dst_port
        } else {
            packet.src_port
        },
        proto: packet.proto,
        pad: [0; 3],
    }
}

/// Looks a flow up.
#[inline(always)]
pub fn find(key: &CtKey<V4>) -> Option<Found> {
    if let Some(value) = towline_ct_est_v4.get_ptr_mut(key) {
        return Some(Found {
            value,
            established: true,
        });
    }
    let value = towline_ct_new_v4.get_ptr_mut(key)?;
    Some(Found {
        value,
        established: false,
    })
}

/// Notes that a packet of the flow passed in `direction`, and moves the entry if that changes its state.
#[inline(always)]
pub fn refresh(key: &CtKey<V4>, found: &Found, direction: u8, tcp_flags: u8, now: u64) {
    // SAFETY: a map value found in this program run; concurrent writers store single fields.
    let value = unsafe { &mut *found.value };
    if now.wrapping_sub(value.last_ns) > 1_000_000_000 {
        value.last_ns = now;
    }
    let from_pod = direction == policy::EGRESS;
    let seen = if from_pod {
        &mut value.pod_tcp
    } else {
        &mut value.remote_tcp
    };
    if tcp_flags & !*seen != 0 {
        *seen |= tcp_flags;
    }
    let by_opener = from_pod == (value.flags & CT_FROM_REMOTE == 0);
    let reply = if by_opener { 0 } else { CT_REPLIED };
    let flags = value.flags | reply | closed(value.pod_tcp, value.remote_tcp);
    if flags != value.flags {
        value.flags = flags;
        value.last_ns = now;
        transfer(key, found, flags);
    }
}

/// Moves an entry between the tables after its flags changed, together with the frontend's entry.
///
/// Not inlined: callers need the stack. Returns a number because the verifier wants a defined result
/// register.
#[inline(never)]
fn transfer(key: &CtKey<V4>, found: &Found, flags: u8) -> u32 {
    // SAFETY: a map value found in this program run.
    let value = unsafe { *found.value };
    relocate(key, &value, flags, found.established);
    if value.kind == CT_TRANSLATED && flags & CT_FROM_REMOTE == 0 {
        let front = CtKey {
            remote: value.nat_addr,
            remote_port: value.nat_port,
            ..*key
        };
        if let Some(service) = find(&front) {
            // SAFETY: a map value found in this program run.
            let ours = unsafe {
                (*service.value).kind == CT_SERVICE && (*service.value).backend == value.backend
            };
            if ours {
                settle(&front, &service, flags);
            }
        }
    }
    u32::from(flags)
}

/// Gives an entry new flags and puts it where they say.
#[inline(always)]
pub fn settle(key: &CtKey<V4>, found: &Found, flags: u8) {
    // SAFETY: a map value found in this program run; a single field is stored.
    let copy = unsafe {
        (*found.value).flags = flags;
        *found.value
    };
    relocate(key, &copy, flags, found.established);
}

/// Notes that the entry was used.
#[inline(always)]
pub fn stamp(found: &Found, now: u64) {
    // SAFETY: a map value found in this program run; a single field is stored.
    let value = unsafe { &mut *found.value };
    if now.wrapping_sub(value.last_ns) > 1_000_000_000 {
        value.last_ns = now;
    }
}

/// Puts `value` where its flags say: closed and unreplied flows are evictable, replied ones are not.
#[inline(always)]
fn relocate(key: &CtKey<V4>, value: &CtValue<V4>, flags: u8, established: bool) {
    let belongs = flags & CT_REPLIED != 0 && flags & CT_CLOSED == 0;
    if belongs && !established {
        if towline_ct_est_v4.insert(key, value, 0).is_ok() {
            let _ = towline_ct_new_v4.remove(key);
        } else {
            events::count(Reason::ConntrackFull, policy::INGRESS, 0);
        }
    } else if !belongs && established && towline_ct_new_v4.insert(key, value, 0).is_ok() {
        let _ = towline_ct_est_v4.remove(key);
    }
}

/// Starts a flow, replacing what was known under its key.
#[inline(always)]
pub fn create(key: &CtKey<V4>, value: &CtValue<V4>) -> Result<(), Reason> {
    towline_ct_new_v4
        .insert(key, value, 0)
        .map_err(|_| Reason::ConntrackInsert)?;
    let _ = towline_ct_est_v4.remove(key);
    Ok(())
}

/// Forgets a flow.
#[inline(always)]
pub fn forget(key: &CtKey<V4>) {
    let _ = towline_ct_est_v4.remove(key);
    let _ = towline_ct_new_v4.remove(key);
}

/// A fresh entry for a packet in `direction`.
#[inline(always)]
pub fn fresh(kind: u8, direction: u8, tcp_flags: u8, now: u64) -> CtValue<V4> {
    let from_pod = direction == policy::EGRESS;
    CtValue {
        created_ns: now,
        last_ns: now,
        nat_addr: [0; 4],
        nat_port: [0; 2],
        kind,
        flags: if from_pod { 0 } else { CT_FROM_REMOTE },
        backend: 0,
        service: 0,
        revision: 0,
        rule: 0,
        pod_tcp: if from_pod { tcp_flags } else { 0 },
        remote_tcp: if from_pod { 0 } else { tcp_flags },
        pad: [0; 6],
    }
}
