//! Balancing at the socket: TCP of pods and node at `connect`, UDP of the node itself.

use aya_ebpf::{
    EbpfContext,
    bindings::bpf_sock_addr,
    helpers::{bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_set_retval},
    programs::SockAddrContext,
};
use ebpf_shared::{
    V4,
    policy::PodNetnsKey,
    protocol,
    reason::Reason,
    service::{SOCK_FORWARD, SOCK_REVERSE, SockKey, SockValue},
};

use crate::{
    maps::{config, towline_pod_netns, towline_sock_v4},
    service::{self, Resolution, Target},
};

/// Let the call go on.
const PROCEED: i32 = 1;
/// Refuse the call with the error set before.
const REFUSE: i32 = 0;
const ECONNREFUSED: i32 = 111;
const EHOSTUNREACH: i32 = 113;
/// Third word of an IPv4-mapped IPv6 address (RFC 4291, 2.5.5.2); the first two are zero.
const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

/// Destination (or peer) of the call.
#[derive(Clone, Copy)]
struct Call {
    addr: V4,
    port: [u8; 2],
    proto: u8,
    cookie: u64,
}

#[inline(always)]
fn raw(ctx: &SockAddrContext) -> *mut bpf_sock_addr {
    ctx.sock_addr
}

/// Reads the call; `None` when it is on an IPv6 socket and the address is no mapped IPv4 one.
#[inline(always)]
fn call<const IPV6: bool>(ctx: &SockAddrContext) -> Option<Call> {
    // SAFETY: the context is valid while the program runs; the helper takes any such context.
    unsafe {
        let addr = if IPV6 {
            let words = &(*raw(ctx)).user_ip6;
            if words[0] != 0 || words[1] != 0 || words[2] != MAPPED {
                return None;
            }
            words[3]
        } else {
            (*raw(ctx)).user_ip4
        };
        Some(Call {
            addr: addr.to_ne_bytes(),
            port: ((*raw(ctx)).user_port as u16).to_ne_bytes(),
            proto: (*raw(ctx)).protocol as u8,
            cookie: bpf_get_socket_cookie(ctx.as_ptr()),
        })
    }
}

#[inline(always)]
fn set_address<const IPV6: bool>(ctx: &SockAddrContext, addr: V4, port: [u8; 2]) {
    // SAFETY: the context is valid while the program runs and these fields are writable.
    unsafe {
        if IPV6 {
            (*raw(ctx)).user_ip6[3] = u32::from_ne_bytes(addr);
        } else {
            (*raw(ctx)).user_ip4 = u32::from_ne_bytes(addr);
        }
        (*raw(ctx)).user_port = u16::from_ne_bytes(port).into();
    }
}

#[inline(always)]
fn refuse(errno: i32) -> i32 {
    // SAFETY: a helper call with a plain number.
    unsafe { bpf_set_retval(-errno) };
    REFUSE
}

/// `connect` on a socket of either family (and `sendmsg` with an address on an unconnected UDP socket).
#[inline(always)]
pub fn connect<const IPV6: bool>(ctx: &SockAddrContext) -> i32 {
    let Some(call) = call::<IPV6>(ctx) else {
        return PROCEED;
    };
    // SAFETY: the context is valid while the program runs.
    let netns = unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
    let client = match call.proto {
        protocol::TCP => pod_address(netns),
        // Pods' UDP is translated packet by packet at their device.
        protocol::UDP if is_node(netns) => [0; 4],
        _ => return PROCEED,
    };
    if let Some(known) = remembered(&call) {
        set_address::<IPV6>(ctx, known.addr, known.port);
        return PROCEED;
    }
    match service::resolve::<false>(call.addr, call.port, call.proto, client) {
        Ok(Resolution::Plain) => PROCEED,
        // The caller is its own backend: the packets turn round at its device.
        Ok(Resolution::To(target)) if target.addr == client => {
            service::leave_to_device(&target, client);
            PROCEED
        }
        Ok(Resolution::To(target)) => {
            remember(&call, &target);
            set_address::<IPV6>(ctx, target.addr, target.port);
            PROCEED
        }
        Ok(Resolution::Reject) => refuse(ECONNREFUSED),
        Err(Reason::NoLocalBackend) => refuse(EHOSTUNREACH),
        Err(_) => refuse(ECONNREFUSED),
    }
}

/// `recvmsg` and `getpeername`: the backend's address becomes the frontend's again.
#[inline(always)]
pub fn reverse<const IPV6: bool>(ctx: &SockAddrContext) -> i32 {
    let Some(call) = call::<IPV6>(ctx) else {
        return PROCEED;
    };
    // SAFETY: copied at once.
    let known = unsafe { towline_sock_v4.get(key(&call, SOCK_REVERSE)) }.copied();
    if let Some(frontend) = known {
        set_address::<IPV6>(ctx, frontend.addr, frontend.port);
    }
    PROCEED
}

/// Address of the pod that owns the namespace; all zero for the node.
#[inline(always)]
fn pod_address(cookie: u64) -> V4 {
    // SAFETY: copied at once.
    unsafe { towline_pod_netns.get(PodNetnsKey { cookie }) }.map_or([0; 4], |pod| pod.addr4)
}

#[inline(always)]
fn is_node(cookie: u64) -> bool {
    config().is_some_and(|c| c.node_netns == cookie && cookie != 0)
}

#[inline(always)]
fn key(call: &Call, side: u8) -> SockKey<V4> {
    SockKey {
        cookie: call.cookie,
        addr: call.addr,
        port: call.port,
        side,
        proto: call.proto,
    }
}

/// A UDP socket stays with its backend while that exists.
#[inline(always)]
fn remembered(call: &Call) -> Option<SockValue<V4>> {
    if call.proto != protocol::UDP {
        return None;
    }
    // SAFETY: copied at once.
    let known = unsafe { towline_sock_v4.get(key(call, SOCK_FORWARD)) }.copied()?;
    service::usable(known.backend, true).then_some(known)
}

/// Records the translation of a socket. When it fails, only the shown peer address is affected.
#[inline(always)]
fn remember(call: &Call, target: &Target) {
    if call.proto == protocol::UDP {
        let forward = SockValue {
            addr: target.addr,
            port: target.port,
            pad: [0; 2],
            backend: target.backend,
        };
        let _ = towline_sock_v4.insert(key(call, SOCK_FORWARD), forward, 0);
    }
    let reverse = Call {
        addr: target.addr,
        port: target.port,
        ..*call
    };
    let frontend = SockValue {
        addr: call.addr,
        port: call.port,
        pad: [0; 2],
        backend: target.backend,
    };
    let _ = towline_sock_v4.insert(key(&reverse, SOCK_REVERSE), frontend, 0);
}
