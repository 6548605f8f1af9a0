//! Services: from the dialled address to a backend.

use aya_ebpf::helpers::bpf_get_prandom_u32;
use ebpf_shared::{
    V4,
    maps::CONFIG_SERVICES,
    protocol,
    reason::Reason,
    service::{
        AffinityKey, AffinityValue, BACKEND_SERVING, BackendKey, BackendValue, Choice,
        FRONTEND_AFFINITY, FrontendKey, FrontendValue, SCOPE_CLUSTER, SlotKey, choose,
    },
};

use crate::{
    conntrack,
    maps::{config, towline_affinity_v4, towline_backend_v4, towline_frontend_v4, towline_slot_v4},
};

/// Where a flow to a frontend goes.
#[derive(Clone, Copy)]
pub struct Target {
    pub addr: V4,
    pub port: [u8; 2],
    pub backend: u32,
    pub service: u32,
}

/// What the service tables say about a destination.
pub enum Resolution {
    /// Not a frontend.
    Plain,
    /// A frontend without any backend.
    Reject,
    To(Target),
}

/// The backend with this id.
#[inline(always)]
pub fn backend(id: u32) -> Option<BackendValue<V4>> {
    // SAFETY: copied at once.
    unsafe { towline_backend_v4.get(BackendKey { id }) }.copied()
}

/// Whether a flow may go on using a backend: it still exists, and serves if the flow is new.
#[inline(always)]
pub fn usable(id: u32, new_flow: bool) -> bool {
    backend(id).is_some_and(|b| !new_flow || b.state == BACKEND_SERVING)
}

/// Resolves a destination for `client` (its address; all zero for the node itself).
///
/// At the pod's device (`AT_DEVICE`) a choice made at the socket is kept, not made again.
#[inline(always)]
pub fn resolve<const AT_DEVICE: bool>(
    addr: V4,
    port: [u8; 2],
    proto: u8,
    client: V4,
) -> Result<Resolution, Reason> {
    if config().is_none_or(|c| c.flags & CONFIG_SERVICES == 0) {
        return Ok(Resolution::Plain);
    }
    let key = FrontendKey {
        addr,
        port,
        proto,
        scope: SCOPE_CLUSTER,
    };
    // SAFETY: copied at once.
    let Some(frontend) = (unsafe { towline_frontend_v4.get(key) }).copied() else {
        return Ok(Resolution::Plain);
    };
    if frontend.flags & FRONTEND_AFFINITY != 0 {
        if let Some(target) = remembered(&frontend, client) {
            return Ok(Resolution::To(target));
        }
    } else if AT_DEVICE
        && proto == protocol::TCP
        && let Some(target) = left_to_device(&frontend, client)
    {
        return Ok(Resolution::To(target));
    }
    // SAFETY: a helper without arguments.
    let n = match choose(&frontend, unsafe { bpf_get_prandom_u32() }) {
        Choice::Slot(n) => n,
        Choice::Reject => return Ok(Resolution::Reject),
        Choice::DropNoLocal => return Err(Reason::NoLocalBackend),
    };
    let slot = SlotKey {
        service: frontend.service,
        generation: frontend.generation,
        n,
    };
    // SAFETY: copied at once.
    let slot = unsafe { towline_slot_v4.get(slot) }
        .copied()
        .ok_or(Reason::BackendMissing)?;
    let chosen = backend(slot.backend).ok_or(Reason::BackendMissing)?;
    if frontend.flags & FRONTEND_AFFINITY != 0 {
        stick(&frontend, client, slot.backend);
    }
    Ok(Resolution::To(target(&frontend, slot.backend, &chosen)))
}

#[inline(always)]
fn target(frontend: &FrontendValue, id: u32, backend: &BackendValue<V4>) -> Target {
    Target {
        addr: backend.addr,
        port: backend.port,
        backend: id,
        service: frontend.service,
    }
}

/// The backend that a sticky client used last, if it is recent and still serves.
#[inline(always)]
fn remembered(frontend: &FrontendValue, client: V4) -> Option<Target> {
    let key = AffinityKey {
        service: frontend.service,
        client,
    };
    // SAFETY: copied at once.
    let last = unsafe { towline_affinity_v4.get(key) }.copied()?;
    let age = conntrack::now().wrapping_sub(last.last_ns);
    if age > u64::from(frontend.affinity_secs) * 1_000_000_000 {
        return None;
    }
    let chosen = backend(last.backend).filter(|b| b.state == BACKEND_SERVING)?;
    stick(frontend, client, last.backend);
    Some(target(frontend, last.backend, &chosen))
}

/// Remembers a sticky client's backend. When it fails the next flow chooses anew.
#[inline(always)]
fn stick(frontend: &FrontendValue, client: V4, backend: u32) {
    let key = AffinityKey {
        service: frontend.service,
        client,
    };
    let value = AffinityValue {
        last_ns: conntrack::now(),
        backend,
        left_to_device: 0,
    };
    let _ = towline_affinity_v4.insert(key, value, 0);
}

/// How long a connection takes at most from the socket to the device, in nanoseconds.
const ON_THE_WAY: u64 = 1_000_000_000;

/// At the socket: the caller itself was chosen, so the packets turn round at its device, which must
/// not choose again: a pod would reach itself by the square of its fair share. When it cannot be
/// noted, the device does choose again.
#[inline(always)]
pub fn leave_to_device(target: &Target, client: V4) {
    let key = AffinityKey {
        service: target.service,
        client,
    };
    let now = conntrack::now();
    // SAFETY: copied at once.
    let noted = unsafe { towline_affinity_v4.get(key) }
        .filter(|noted| now.wrapping_sub(noted.last_ns) <= ON_THE_WAY)
        .map_or(0, |noted| noted.left_to_device);
    let value = AffinityValue {
        last_ns: now,
        backend: target.backend,
        left_to_device: noted.saturating_add(1),
    };
    let _ = towline_affinity_v4.insert(key, value, 0);
}

/// At the device: takes one connection that the socket left.
#[inline(always)]
fn left_to_device(frontend: &FrontendValue, client: V4) -> Option<Target> {
    let key = AffinityKey {
        service: frontend.service,
        client,
    };
    // SAFETY: copied at once.
    let mut noted = unsafe { towline_affinity_v4.get(key) }.copied()?;
    if conntrack::now().wrapping_sub(noted.last_ns) > ON_THE_WAY {
        return None;
    }
    noted.left_to_device = noted.left_to_device.checked_sub(1)?;
    let _ = towline_affinity_v4.insert(key, noted, 0);
    let chosen = backend(noted.backend)?;
    Some(target(frontend, noted.backend, &chosen))
}
