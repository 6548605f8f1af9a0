//! PURE: the ranges of keys that must be empty for a subnet to be free.
//!
//! Keys are text: the leases that share addresses with `10.5.34.64-26` are not neighbours of it in
//! etcd. A transaction that compares these ranges is refused if any of them exists, whatever its
//! length and whatever its IPv6 part.

use ipnetwork::Ipv4Network;

/// From the first name to the one after the last.
pub(super) type Names = (String, String);

/// The ranges of names of all leases whose IPv4 subnet shares an address with `subnet`.
pub(super) fn overlapping(subnet: Ipv4Network) -> Vec<Names> {
    let mut all: Vec<Names> = (0..subnet.prefix())
        .filter_map(|len| {
            let wider = Ipv4Network::new(subnet.ip(), len).ok()?;
            let name = format!("{}-{len}", wider.network());
            // The key, and the same with an IPv6 part, which is after an ampersand.
            Some((name.clone(), format!("{name}'")))
        })
        .collect();
    all.extend(within(subnet));
    all
}

/// The ranges of names that begin with an address of `subnet`.
fn within(subnet: Ipv4Network) -> Vec<Names> {
    let (first, last) = (subnet.network().octets(), subnet.broadcast().octets());
    let Some(at) = (0..4).find(|at| first[*at] != last[*at]) else {
        let name = subnet.network().to_string();
        return vec![(format!("{name}-"), format!("{name}."))];
    };
    // What comes after the octet that differs, and the next byte: a name is at most a byte longer.
    let (after, beyond) = if at == 3 { ('-', '.') } else { ('.', '/') };
    let before: String = first[..at]
        .iter()
        .map(|octet| format!("{octet}."))
        .collect();
    let mut octets: Vec<u8> = (0..=255).collect();
    octets.sort_by_key(|octet| format!("{octet}{after}"));
    let is_in = |octet: &u8| (first[at]..=last[at]).contains(octet);
    octets
        .chunk_by(|one, other| is_in(one) == is_in(other))
        .filter(|run| run.first().is_some_and(is_in))
        .filter_map(|run| {
            let (first, last) = (run.first()?, run.last()?);
            Some((
                format!("{before}{first}{after}"),
                format!("{before}{last}{beyond}"),
            ))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_of_a_quarter_of_an_octet_are_few_ranges() {
        let names = within("10.5.34.64/26".parse().unwrap());
        let expected = [
            ("10.5.34.100-", "10.5.34.109."),
            ("10.5.34.110-", "10.5.34.119."),
            ("10.5.34.120-", "10.5.34.127."),
            ("10.5.34.64-", "10.5.34.69."),
            ("10.5.34.70-", "10.5.34.79."),
            ("10.5.34.80-", "10.5.34.89."),
            ("10.5.34.90-", "10.5.34.99."),
        ];
        assert_eq!(
            names,
            expected.map(|(first, last)| (first.to_owned(), last.to_owned()))
        );
        assert_eq!(
            within("10.5.34.0/24".parse().unwrap()),
            [("10.5.34.0-".to_owned(), "10.5.34.99.".to_owned())]
        );
    }

    proptest! {
        #[test]
        fn exactly_the_leases_that_overlap_are_in_the_ranges(
            one: u32, other: u32, near in 0u32..32, len in 1u8..=30, other_len in 0u8..=32, dual: bool,
        ) {
            let subnet = |number: u32, len| {
                let ip = Ipv4Addr::from(number);
                Ipv4Network::new(Ipv4Network::new(ip, len).unwrap().network(), len).unwrap()
            };
            // Often near each other: they share the high bits.
            let mask = u32::MAX.checked_shr(near).unwrap_or(0);
            let (one, other) = (
                subnet(one, len),
                subnet((one & !mask) | (other & mask), other_len),
            );
            let v6 = if dual { "&fc00:5::-64" } else { "" };
            let name = format!("{}-{}{v6}", other.network(), other.prefix());
            let ranges = overlapping(one);
            prop_assert!(ranges.len() < 100, "etcd takes 128");
            let found = ranges.iter().any(|(first, end)| *first <= name && name < *end);
            let overlap = one.contains(other.network()) || other.contains(one.network());
            prop_assert_eq!(found, overlap, "{} {}", one, name);
        }
    }
}
