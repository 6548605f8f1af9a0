//! Entry points, and the one place where decisions become return codes.
#![expect(
    clippy::needless_pass_by_value,
    reason = "aya's macros hand contexts over by value"
)]

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC},
    helpers::bpf_redirect_peer,
    macros::{cgroup_sock_addr, classifier},
    programs::{SockAddrContext, TcContext},
};
use ebpf_shared::{
    policy::{EGRESS, INGRESS},
    reason::Reason,
};

use crate::{
    events, from_pod,
    outcome::{Denial, Outcome},
    socket, to_pod,
};

#[classifier]
pub fn towline_from_pod(ctx: TcContext) -> i32 {
    let result = from_pod::run(&ctx);
    conclude(&ctx, &result, EGRESS)
}

#[classifier]
pub fn towline_to_pod(ctx: TcContext) -> i32 {
    let result = to_pod::run(&ctx);
    conclude(&ctx, &result, INGRESS)
}

#[cgroup_sock_addr(connect4)]
pub fn towline_connect4(ctx: SockAddrContext) -> i32 {
    socket::connect::<false>(&ctx)
}

#[cgroup_sock_addr(sendmsg4)]
pub fn towline_sendmsg4(ctx: SockAddrContext) -> i32 {
    socket::connect::<false>(&ctx)
}

#[cgroup_sock_addr(recvmsg4)]
pub fn towline_recvmsg4(ctx: SockAddrContext) -> i32 {
    socket::reverse::<false>(&ctx)
}

#[cgroup_sock_addr(getpeername4)]
pub fn towline_getpeername4(ctx: SockAddrContext) -> i32 {
    socket::reverse::<false>(&ctx)
}

#[cgroup_sock_addr(connect6)]
pub fn towline_connect6(ctx: SockAddrContext) -> i32 {
    socket::connect::<true>(&ctx)
}

#[cgroup_sock_addr(recvmsg6)]
pub fn towline_recvmsg6(ctx: SockAddrContext) -> i32 {
    socket::reverse::<true>(&ctx)
}

#[cgroup_sock_addr(getpeername6)]
pub fn towline_getpeername6(ctx: SockAddrContext) -> i32 {
    socket::reverse::<true>(&ctx)
}

/// Turns a decision into tc's return code, counts it and reports drops.
///
/// A packet that passes leaves the verdict to filters after ours (`TC_ACT_UNSPEC`).
#[inline(always)]
fn conclude(ctx: &TcContext, result: &Result<Outcome, Denial>, direction: u8) -> i32 {
    match result {
        Ok(outcome) => {
            events::count(outcome.reason, direction, ctx.len());
            if outcome.peer == 0 {
                return TC_ACT_UNSPEC;
            }
            // SAFETY: a helper call with plain numbers.
            unsafe { bpf_redirect_peer(outcome.peer, 0) as i32 }
        }
        Err(denial) => {
            events::count(denial.reason, denial.direction, ctx.len());
            // IPv6 chatter of a pod without an IPv6 address would drown everything else.
            if denial.reason != Reason::UnknownFamily {
                events::drop(ctx, denial);
            }
            TC_ACT_SHOT
        }
    }
}
