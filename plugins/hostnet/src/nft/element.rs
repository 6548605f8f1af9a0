//! Set elements. An interval is two elements: its first address and, marked as an end, the first
//! address beyond it.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use netstate::nft::{Family, Set, Table};

use crate::error::{Error, Result};
use crate::nft::message;
use crate::wire::message::{Message, NLM_F_CREATE};
use crate::wire::nf;

/// Elements of one message: the list's length must fit 16 bits.
const PER_MESSAGE: usize = 900;

/// One element: the address, and whether it ends an interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Element {
    address: u128,
    end: bool,
}

/// The messages that fill `set`.
pub(crate) fn messages(table: &Table, name: &str, set: &Set, id: u32) -> Result<Vec<Message>> {
    for element in &set.elements {
        check(name, set, element)?;
    }
    let ranges = set.elements.iter().map(|network| range(*network));
    let elements = if set.interval {
        intervals(merged(ranges.collect()), set.family)
    } else {
        ranges
            .map(|(first, _)| Element {
                address: first,
                end: false,
            })
            .collect()
    };
    Ok(elements
        .chunks(PER_MESSAGE)
        .map(|part| list(table, name, set.family, id, part))
        .collect())
}

fn check(name: &str, set: &Set, element: &IpNetwork) -> Result<()> {
    let operation = "encode set element";
    let shown = format!("{element} of set {name}");
    if Family::of(element) != set.family {
        return Err(Error::invalid(
            operation,
            shown,
            "is of the other address family",
        ));
    }
    let width = if element.is_ipv4() { 32 } else { 128 };
    if !set.interval && element.prefix() != width {
        return Err(Error::invalid(
            operation,
            shown,
            "is a prefix, but the set has no intervals",
        ));
    }
    Ok(())
}

/// First and last address.
fn range(network: IpNetwork) -> (u128, u128) {
    match network {
        IpNetwork::V4(v4) => (
            u32::from(v4.network()).into(),
            u32::from(v4.broadcast()).into(),
        ),
        IpNetwork::V6(v6) => (u128::from(v6.network()), u128::from(v6.broadcast())),
    }
}

/// Overlapping and adjoining ranges made one.
fn merged(mut ranges: Vec<(u128, u128)>) -> Vec<(u128, u128)> {
    ranges.sort_unstable();
    let mut merged: Vec<(u128, u128)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match merged.last_mut() {
            Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
            _ => merged.push((first, last)),
        }
    }
    merged
}

fn intervals(ranges: Vec<(u128, u128)>, family: Family) -> Vec<Element> {
    let highest = match family {
        Family::V4 => u32::MAX.into(),
        Family::V6 => u128::MAX,
    };
    let mut elements = Vec::with_capacity(ranges.len() * 2);
    for (first, last) in ranges {
        elements.push(Element {
            address: first,
            end: false,
        });
        if last != highest {
            elements.push(Element {
                address: last + 1,
                end: true,
            });
        }
    }
    elements
}

fn list(table: &Table, name: &str, family: Family, id: u32, elements: &[Element]) -> Message {
    let mut message = message(table.family, nf::NEWSETELEM, NLM_F_CREATE);
    message
        .text(nf::ELEM_LIST_TABLE, &table.name)
        .text(nf::ELEM_LIST_SET, name);
    message.be32(nf::ELEM_LIST_SET_ID, id);
    message.nest(nf::ELEM_LIST_ELEMENTS, |list| {
        for element in elements {
            list.nest(nf::LIST_ELEM, |one| {
                one.nest(nf::ELEM_KEY, |key| {
                    key.attr(nf::DATA_VALUE, &octets(element.address, family));
                });
                if element.end {
                    one.be32(nf::ELEM_FLAGS, nf::ELEM_INTERVAL_END);
                }
            });
        }
    });
    message
}

fn octets(address: u128, family: Family) -> Vec<u8> {
    match family {
        Family::V4 => Ipv4Addr::from(u32::try_from(address).unwrap_or(u32::MAX))
            .octets()
            .to_vec(),
        Family::V6 => Ipv6Addr::from(address).octets().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn v4(text: &str) -> u128 {
        u32::from(text.parse::<Ipv4Addr>().unwrap()).into()
    }

    #[test]
    fn overlapping_and_adjoining_prefixes_become_one_interval() {
        let networks = [
            "10.0.0.0/24",
            "10.0.1.0/24",
            "10.0.0.128/25",
            "192.168.0.0/16",
        ];
        let ranges = networks
            .iter()
            .map(|text| range(text.parse().unwrap()))
            .collect();
        assert_eq!(
            intervals(merged(ranges), Family::V4),
            [
                Element {
                    address: v4("10.0.0.0"),
                    end: false
                },
                Element {
                    address: v4("10.0.2.0"),
                    end: true
                },
                Element {
                    address: v4("192.168.0.0"),
                    end: false
                },
                Element {
                    address: v4("192.169.0.0"),
                    end: true
                },
            ]
        );
    }

    #[test]
    fn the_highest_address_has_no_end() {
        let all = vec![range("0.0.0.0/0".parse().unwrap())];
        assert_eq!(
            intervals(all, Family::V4),
            [Element {
                address: 0,
                end: false
            }]
        );
    }

    proptest! {
        #[test]
        fn merging_keeps_exactly_the_members(ranges in vec((0u128..60, 0u128..8), 0..10)) {
            let ranges: Vec<_> = ranges.into_iter().map(|(first, n)| (first, first + n)).collect();
            let members = |ranges: &[(u128, u128)]| -> BTreeSet<u128> {
                ranges.iter().flat_map(|(first, last)| *first..=*last).collect()
            };
            let joined = merged(ranges.clone());
            prop_assert_eq!(members(&joined), members(&ranges));
            prop_assert!(joined.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
        }
    }
}
