//! One class' verdict under one pod's rules: rules flattened to disjoint port intervals.

use std::collections::BTreeMap;

use ebpf_shared::policy::{Interval, MAX_INTERVALS, PROTO_ANY, VERDICT_ALLOW};

use crate::policy::classes::ClassContent;
use crate::policy::rule_name::{Direction, RuleName};
use crate::policy::rules::{Ports, ResolvedRule};

/// Rule id of what every node may do to its own pods (probes), whatever policies say.
pub const RULE_NODE: u32 = 1;
/// Lowest rule id that stands for a rule of a policy.
pub const RULE_FIRST: u32 = 16;

/// More intervals than a verdict entry holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooMany(pub(crate) usize);

/// What peers of a class may do: intervals in table order; none denies everything.
///
/// Where rules overlap, the first one by policy name and position is named. When that takes more
/// room than there is, neighbouring intervals are joined under the name of the first of them.
pub(crate) fn intervals(
    rules: &[ResolvedRule],
    direction: Direction,
    class: &ClassContent,
    rule_ids: &BTreeMap<RuleName, u32>,
) -> Result<Vec<Interval>, TooMany> {
    if class.node && direction == Direction::Ingress {
        return Ok(vec![interval(PROTO_ANY, 0, u16::MAX, RULE_NODE)]);
    }
    let mut any = None;
    let mut pieces = Pieces::default();
    for rule in rules.iter().filter(|rule| matches(rule, class)) {
        let id = rule_ids.get(&rule.name).copied().unwrap_or_default();
        let Some(ports) = &rule.ports else {
            any = Some(id);
            break;
        };
        for ports in ports {
            match ports {
                Ports::Range(protocol, from, to) => pieces.add(protocol.number(), *from, *to, id),
                Ports::NamedAtPeer(protocol, word) => {
                    for &number in class.ports.get(word).into_iter().flatten() {
                        pieces.add(protocol.number(), number, number, id);
                    }
                }
            }
        }
    }
    let any = any.map(|rule| interval(PROTO_ANY, 0, u16::MAX, rule));
    let room = MAX_INTERVALS - usize::from(any.is_some());
    let mut specific = pieces.joined(|one, other| one == other);
    if specific.len() > room {
        specific = pieces.joined(|_, _| true);
    }
    if specific.len() > room {
        // What allows everything needs no names of parts.
        let count = specific.len();
        return any.map(|any| vec![any]).ok_or(TooMany(count));
    }
    Ok(any.into_iter().chain(specific).collect())
}

fn matches(rule: &ResolvedRule, class: &ClassContent) -> bool {
    rule.peers
        .as_ref()
        .is_none_or(|peers| !peers.is_disjoint(&class.atoms))
}

fn interval(proto: u8, from: u16, to: u16, rule: u32) -> Interval {
    Interval {
        proto,
        verdict: VERDICT_ALLOW,
        from,
        to,
        pad: 0,
        rule,
    }
}

/// Disjoint pieces: (protocol, first port) to (last port, rule).
#[derive(Default)]
struct Pieces(BTreeMap<(u8, u16), (u16, u32)>);

impl Pieces {
    /// Adds what of a range no earlier rule has taken.
    fn add(&mut self, proto: u8, from: u16, to: u16, rule: u32) {
        let mut free = Vec::new();
        let mut next = u32::from(from);
        for (&(_, start), &(end, _)) in self.0.range((proto, 0)..=(proto, to)) {
            if u32::from(end) < next {
                continue;
            }
            if u32::from(start) > next {
                free.push((next, u32::from(start) - 1));
            }
            next = u32::from(end) + 1;
        }
        if next <= u32::from(to) {
            free.push((next, u32::from(to)));
        }
        for (start, end) in free {
            if let (Ok(start), Ok(end)) = (u16::try_from(start), u16::try_from(end)) {
                self.0.insert((proto, start), (end, rule));
            }
        }
    }

    /// The intervals in order, neighbours joined where `alike(rule, rule)`.
    fn joined(&self, alike: impl Fn(u32, u32) -> bool) -> Vec<Interval> {
        let mut joined: Vec<Interval> = Vec::new();
        for (&(proto, from), &(to, rule)) in &self.0 {
            match joined.last_mut() {
                Some(last)
                    if last.proto == proto
                        && u32::from(last.to) + 1 == u32::from(from)
                        && alike(last.rule, rule) =>
                {
                    last.to = to;
                }
                _ => joined.push(interval(proto, from, to, rule)),
            }
        }
        joined
    }
}
