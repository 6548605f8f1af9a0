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
    header::has_ports,
    maps::{towline_cidr_class_v4, towline_class_v4, towline_verdict},
    outcome::Denial,
};

/// A flow that policy lets through.
#[derive(Clone, Copy)]
pub struct Allowed {
    pub class: u32,
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

/// Judges the flow `key`, opened in `direction`, by the policy of its pod.
#[inline(always)]
pub fn judge(pod: &PodValue, key: &CtKey<V4>, direction: u8) -> Result<Allowed, Denial> {
    let isolated = if direction == INGRESS {
        INGRESS_ISOLATED
    } else {
        EGRESS_ISOLATED
    };
    if pod.flags & isolated == 0 {
        return Ok(Allowed { class: 0, rule: 0 });
    }
    let class = class_of(key.remote);
    if direction == INGRESS && class == CLASS_NODE {
        return Ok(Allowed { class, rule: 0 });
    }
    let port = if !has_ports(key.proto) {
        0
    } else if direction == EGRESS {
        u16::from_be_bytes(key.remote_port)
    } else {
        u16::from_be_bytes(key.pod_port)
    };
    let wanted = VerdictKey {
        policy_set: pod.policy_set,
        class,
        direction,
        pad: [0; 3],
    };
    let mut denial = Denial {
        reason: Reason::PolicyNoMatch,
        zone: key.zone,
        policy_set: pod.policy_set,
        class,
        rule: 0,
        direction,
    };
    // SAFETY: user space replaces whole values; a reader keeps the old one for its RCU section.
    let found = unsafe { towline_verdict.get(wanted) };
    match found.and_then(|value| find_interval(value, key.proto, port)) {
        Some(interval) if interval.verdict == VERDICT_ALLOW => Ok(Allowed {
            class,
            rule: interval.rule,
        }),
        Some(interval) => {
            denial.reason = Reason::PolicyDenied;
            denial.rule = interval.rule;
            Err(denial)
        }
        None => Err(denial),
    }
}
