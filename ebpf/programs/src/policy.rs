//! Policy: class of the peer, verdict entry, interval.

use aya_ebpf::btf_maps::lpm_trie::Key;
use ebpf_shared::{
    V4,
    conntrack::CtKey,
    policy::{
        CLASS_NODE, CLASS_WORLD, ClassKey, EGRESS, EGRESS_ISOLATED, INGRESS, INGRESS_ISOLATED,
        PodValue, VERDICT_ALLOW, VerdictKey, find_interval,
    },
    reason::Reason,
};

use crate::{
    events,
    header::has_ports,
    maps::{towline_cidr_class_v4, towline_class_v4, towline_verdict},
    outcome::Denial,
};

/// A flow that policy lets through.
#[derive(Clone, Copy)]
pub struct Allowed {
    /// 0 when the pod is not isolated in this direction.
    pub rule: u32,
}

/// Class of an address.
#[inline(always)]
fn class_of(addr: V4) -> u32 {
    // SAFETY: copied at once.
    if let Some(value) = unsafe { towline_class_v4.get(ClassKey { addr }) } {
        return value.class;
    }
    towline_cidr_class_v4
        .get(&Key::new(32, addr))
        .map_or(CLASS_WORLD, |value| value.class)
}

/// What [`towline_judge`] is asked, and its answer.
#[repr(C)]
pub struct Question {
    key: CtKey<V4>,
    policy_set: u32,
    direction: u32,
    class: u32,
    rule: u32,
}

/// Judges the flow `key`, opened in `direction`, by the policy of its pod.
#[inline(always)]
pub fn judge(pod: &PodValue, key: &CtKey<V4>, direction: u8) -> Result<Allowed, Denial> {
    let isolated = if direction == INGRESS {
        INGRESS_ISOLATED
    } else {
        EGRESS_ISOLATED
    };
    if pod.flags & isolated == 0 {
        return Ok(Allowed { rule: 0 });
    }
    let (policy_set, direction32) = (pod.policy_set, u32::from(direction));
    let mut question = Question {
        key: *key,
        policy_set,
        direction: direction32,
        class: 0,
        rule: 0,
    };
    let answer = towline_judge(&raw mut question);
    let (class, rule) = (question.class, question.rule);
    if answer == 0 {
        return Ok(Allowed { rule });
    }
    let denied = answer == Reason::PolicyDenied as u32;
    let reason = if denied {
        Reason::PolicyDenied
    } else {
        Reason::PolicyNoMatch
    };
    Err(Denial {
        reason,
        zone: key.zone,
        policy_set,
        class,
        rule,
        direction,
    })
}

/// Looks the verdict up: 0 allows, otherwise the code of a reason.
///
/// A global function: the verifier looks at it once and for all, not once for every way that leads
/// here, which would exceed its limits.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn towline_judge(question: *mut Question) -> u32 {
    let no_match = Reason::PolicyNoMatch as u32;
    // SAFETY: the verifier checks every caller's pointer, and this for null.
    let Some(question) = (unsafe { question.as_mut() }) else {
        return no_match;
    };
    let key = &question.key;
    let direction = question.direction as u8;
    let class = class_of(key.remote);
    let port = if direction == EGRESS {
        key.remote_port
    } else {
        key.pod_port
    };
    let port = if has_ports(key.proto) {
        u16::from_be_bytes(port)
    } else {
        0
    };
    question.class = class;
    if direction == INGRESS && class == CLASS_NODE {
        return 0;
    }
    let wanted = VerdictKey {
        policy_set: question.policy_set,
        class,
        direction,
        pad: [0; 3],
    };
    // SAFETY: user space replaces whole values; a reader keeps the old one for its RCU section.
    let Some(value) = (unsafe { towline_verdict.get(wanted) }) else {
        return no_match;
    };
    match find_interval(value, question.key.proto, port) {
        Some(interval) => {
            question.rule = interval.rule;
            if interval.verdict != VERDICT_ALLOW {
                return Reason::PolicyDenied as u32;
            }
            events::allowed(
                &question.key,
                question.policy_set,
                class,
                interval.rule,
                direction,
            );
            0
        }
        None => no_match,
    }
}
