//! PURE: ranges and reservations to the next address, round robin.

use std::net::IpAddr;

use crate::host_local::range::{Range, RangeSet, address, number};

/// The first free address after `last`, through all ranges and around, never a gateway. `None` when
/// there is none.
pub fn next<'a>(
    set: &'a RangeSet,
    last: Option<IpAddr>,
    is_reserved: &dyn Fn(IpAddr) -> bool,
) -> Option<(IpAddr, &'a Range)> {
    let ranges = set.ranges();
    let begin = last.and_then(|last| {
        let at = ranges.iter().position(|range| range.contains(last))?;
        Some((at, number(last)))
    });
    let free = |ip: IpAddr, range: &Range| ip != range.gateway && !is_reserved(ip);
    let search = |range: &'a Range, from: u128, to: u128| {
        let v4 = range.start.is_ipv4();
        (from..=to)
            .map(|n| address(n, v4))
            .find(|ip| free(*ip, range))
            .map(|ip| (ip, range))
    };
    let whole = |range: &'a Range| search(range, number(range.start), number(range.end));
    let Some((at, last)) = begin else {
        return ranges.iter().find_map(whole);
    };
    let current = &ranges[at];
    let rest = last
        .checked_add(1)
        .and_then(|from| search(current, from, number(current.end)));
    rest.or_else(|| ranges[at + 1..].iter().chain(&ranges[..at]).find_map(whole))
        .or_else(|| search(current, number(current.start), last))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::host_local::range::RawRange;

    fn set(subnets: &[&str]) -> RangeSet {
        let raw = |subnet: &&str| RawRange {
            subnet: Some(subnet.parse().unwrap()),
            ..RawRange::default()
        };
        RangeSet::new(&subnets.iter().map(raw).collect::<Vec<_>>()).unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_freed_address_is_given_again_only_after_the_round() {
        let set = set(&["10.1.0.0/29"]);
        let mut reserved = BTreeSet::new();
        let mut last = None;
        let mut given = Vec::new();
        for _ in 0..8 {
            let taken = reserved.clone();
            let Some((ip, _)) = next(&set, last, &|ip| taken.contains(&ip)) else {
                break;
            };
            given.push(ip.to_string());
            reserved = BTreeSet::from([ip]);
            last = Some(ip);
        }
        assert_eq!(
            given,
            [
                "10.1.0.2", "10.1.0.3", "10.1.0.4", "10.1.0.5", "10.1.0.6", "10.1.0.2", "10.1.0.3",
                "10.1.0.4"
            ]
        );
    }

    #[test]
    fn a_full_range_spills_into_the_next() {
        let set = set(&["10.1.0.0/30", "10.2.0.0/30"]);
        let next_after = |last: &str| next(&set, Some(ip(last)), &|i| i == ip("10.1.0.2"));
        assert_eq!(
            next_after("10.1.0.2").map(|(ip, _)| ip),
            Some(ip("10.2.0.2"))
        );
        assert_eq!(next(&set, None, &|_| true), None);
    }

    proptest! {
        #[test]
        fn every_free_address_is_found_and_nothing_else(
            reserved in proptest::collection::btree_set(0u8..16, 0..16),
            last in proptest::option::of(0u8..16),
        ) {
            let set = set(&["10.1.0.0/28"]);
            let at = |n: u8| IpAddr::from([10, 1, 0, n]);
            let taken = |ip: IpAddr| reserved.iter().any(|n| at(*n) == ip);
            let found = next(&set, last.map(at), &taken).map(|(ip, _)| ip);
            let free: Vec<IpAddr> = (2..15).map(at).filter(|ip| !taken(*ip)).collect();
            let start = last.map(at).filter(|ip| set.range_of(*ip).is_some());
            let after = free.iter().copied().find(|ip| start.is_none_or(|last| *ip > last));
            prop_assert_eq!(found, after.or_else(|| free.first().copied()));
        }
    }
}
