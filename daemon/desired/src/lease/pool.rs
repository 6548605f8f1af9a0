//! The subnets that nodes lease: `SubnetMin` to `SubnetMax` in steps of `SubnetLen`, by flannel's
//! rules and defaults.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use thiserror::Error;

/// The subnets of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    network: IpNetwork,
    /// Length of a subnet's prefix.
    len: u8,
    /// First address of the first and of the last subnet.
    min: u128,
    max: u128,
}

/// The pools of a network, dual-stack if there are two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pools {
    /// IPv4.
    pub v4: Pool,
    /// IPv6.
    pub v6: Option<Pool>,
}

/// A key of the network configuration that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{key} {value}: {remedy}")]
pub struct PoolError {
    /// The key, without the `IPv6` of the other family.
    pub key: &'static str,
    /// Its value.
    pub value: String,
    /// What to write instead.
    pub remedy: String,
}

/// What only one family has.
struct Rules {
    width: u8,
    /// Longest prefix of a network and of a subnet.
    network_max: u8,
    len_max: u8,
    /// Length of subnets in networks that are at least four times as large.
    len_usual: u8,
}

// === impl Pool ===

impl Pool {
    /// The subnets of `network`; what is `None` has flannel's default.
    ///
    /// # Errors
    /// Names the key, its value and what to write instead.
    pub fn new(
        network: IpNetwork,
        len: Option<u8>,
        min: Option<IpAddr>,
        max: Option<IpAddr>,
    ) -> Result<Self, PoolError> {
        let rules = rules(&network);
        let prefix = network.prefix();
        if network.ip() != network.network() {
            let fixed = format!("host bits are set; write {}/{prefix}", network.network());
            return Err(error("Network", network, fixed));
        }
        if prefix == 0 || prefix > rules.network_max {
            let remedy = format!("the prefix must be from 1 to {}", rules.network_max);
            return Err(error("Network", network, remedy));
        }
        let shortest = prefix + 2;
        let len = len.unwrap_or(shortest.max(rules.len_usual));
        if len < shortest || len > rules.len_max {
            let remedy = format!("write {shortest} to {}", rules.len_max);
            return Err(error("SubnetLen", len, remedy));
        }
        let step = 1 << (rules.width - len);
        let start = number(network.network());
        let end = start + ((1 << (rules.width - prefix)) - step);
        let min = bound("SubnetMin", min, &network, len, start + step)?;
        let max = bound("SubnetMax", max, &network, len, end)?;
        let pool = Self {
            network,
            len,
            min,
            max,
        };
        if max < min {
            let remedy = format!("it is below SubnetMin {}", pool.address(min));
            return Err(error("SubnetMax", pool.address(max), remedy));
        }
        Ok(pool)
    }

    /// All addresses of pods.
    #[must_use]
    pub const fn network(&self) -> IpNetwork {
        self.network
    }

    /// How many subnets there are.
    #[must_use]
    pub fn size(&self) -> u128 {
        (self.max - self.min) / self.step() + 1
    }

    /// Whether `subnet` is one of them.
    #[must_use]
    pub fn has(&self, subnet: IpNetwork) -> bool {
        let start = number(subnet.network());
        subnet.is_ipv4() == self.network.is_ipv4()
            && subnet.prefix() == self.len
            && (self.min..=self.max).contains(&start)
    }

    /// How many subnets come before this one of them.
    #[must_use]
    pub fn place(&self, subnet: IpNetwork) -> Option<u128> {
        let at = || (number(subnet.network()) - self.min) / self.step();
        self.has(subnet).then(at)
    }

    /// The subnet that has `place` before it, if there are so many.
    #[must_use]
    pub fn at(&self, place: u128) -> Option<IpNetwork> {
        if place >= self.size() {
            return None;
        }
        IpNetwork::new(self.address(self.min + self.step() * place), self.len).ok()
    }

    /// The subnets that share no address with any of `taken`, in order.
    pub fn free(&self, taken: &[IpNetwork]) -> impl Iterator<Item = IpNetwork> {
        let mut ranges: Vec<(u128, u128)> = taken
            .iter()
            .filter(|other| other.is_ipv4() == self.network.is_ipv4())
            .map(|other| (number(other.network()), number(other.broadcast())))
            .collect();
        ranges.sort_unstable();
        let pool = *self;
        let mut at = 0;
        let mut next = Some(pool.min);
        std::iter::from_fn(move || {
            loop {
                let start = next.filter(|start| *start <= pool.max)?;
                let end = start + (pool.step() - 1);
                while ranges.get(at).is_some_and(|(_, last)| *last < start) {
                    at += 1;
                }
                match ranges.get(at) {
                    Some((first, last)) if *first <= end => {
                        // The first subnet that begins after the range.
                        let beyond = last.checked_add(1)?.max(start + 1);
                        next = beyond.checked_next_multiple_of(pool.step());
                    }
                    _ => {
                        next = start.checked_add(pool.step());
                        return IpNetwork::new(pool.address(start), pool.len).ok();
                    }
                }
            }
        })
    }

    fn step(&self) -> u128 {
        1 << (rules(&self.network).width - self.len)
    }

    fn address(&self, number: u128) -> IpAddr {
        match self.network {
            // A number of this pool is within the family.
            IpNetwork::V4(_) => Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX)).into(),
            IpNetwork::V6(_) => Ipv6Addr::from(number).into(),
        }
    }
}

const fn rules(network: &IpNetwork) -> Rules {
    match network {
        IpNetwork::V4(_) => Rules {
            width: 32,
            network_max: 28,
            len_max: 30,
            len_usual: 24,
        },
        IpNetwork::V6(_) => Rules {
            width: 128,
            network_max: 124,
            len_max: 126,
            len_usual: 64,
        },
    }
}

/// A given bound, which must be the first address of a subnet, or the default.
fn bound(
    key: &'static str,
    given: Option<IpAddr>,
    network: &IpNetwork,
    len: u8,
    default: u128,
) -> Result<u128, PoolError> {
    let Some(given) = given else {
        return Ok(default);
    };
    if !network.contains(given) {
        return Err(error(
            key,
            given,
            format!("it is not within Network {network}"),
        ));
    }
    let start = IpNetwork::new(given, len).map_or(given, |subnet| subnet.network());
    if start != given {
        return Err(error(
            key,
            given,
            format!("write a subnet's first address, {start}"),
        ));
    }
    Ok(number(given))
}

fn error(key: &'static str, value: impl std::fmt::Display, remedy: String) -> PoolError {
    let value = value.to_string();
    PoolError { key, value, remedy }
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(v4) => u32::from(v4).into(),
        IpAddr::V6(v6) => v6.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn pool(network: &str) -> Pool {
        Pool::new(network.parse().unwrap(), None, None, None).unwrap()
    }

    fn shown(network: &str, taken: &[&str]) -> Vec<String> {
        let taken: Vec<IpNetwork> = taken.iter().map(|text| text.parse().unwrap()).collect();
        pool(network)
            .free(&taken)
            .map(|subnet| subnet.to_string())
            .collect()
    }

    #[test]
    fn defaults_are_flannels() {
        assert_eq!(pool("10.5.0.0/16").size(), 255);
        assert_eq!(pool("10.5.0.0/22").size(), 3);
        assert_eq!(
            shown("10.5.0.0/24", &[]),
            ["10.5.0.64/26", "10.5.0.128/26", "10.5.0.192/26"]
        );
        assert!(pool("10.5.0.0/16").has("10.5.255.0/24".parse().unwrap()));
        assert!(!pool("10.5.0.0/16").has("10.5.0.0/24".parse().unwrap()));
        assert!(!pool("10.5.0.0/16").has("10.5.4.0/25".parse().unwrap()));
        let first = pool("fc00::/48").free(&[]).next().unwrap();
        assert_eq!(first.to_string(), "fc00:0:0:1::/64");
        assert_eq!(pool("128.0.0.0/1").size(), (1 << 23) - 1);
        assert_eq!(pool("8000::/1").size(), (1 << 63) - 1);
        let all = pool("10.5.0.0/22");
        for (place, subnet) in all.free(&[]).enumerate() {
            assert_eq!(all.place(subnet), Some(place as u128));
            assert_eq!(all.at(place as u128), Some(subnet));
        }
        assert_eq!(all.at(3), None);
        assert_eq!(all.place("10.5.0.0/24".parse().unwrap()), None);
    }

    #[test]
    fn subnets_of_any_length_are_stepped_over() {
        assert_eq!(
            shown(
                "10.5.0.0/21",
                &["10.5.2.0/23", "10.5.5.128/25", "fc00::/64"]
            ),
            ["10.5.1.0/24", "10.5.4.0/24", "10.5.6.0/24", "10.5.7.0/24"]
        );
        assert_eq!(shown("10.5.0.0/22", &["10.0.0.0/8"]), [""; 0]);
        assert_eq!(shown("255.255.255.0/24", &["255.255.255.192/26"]).len(), 2);
    }

    #[test]
    fn what_cannot_be_is_named() {
        let said = |network: &str, len, min: Option<&str>, max: Option<&str>| {
            let ip = |text: Option<&str>| text.map(|text| text.parse().unwrap());
            Pool::new(network.parse().unwrap(), len, ip(min), ip(max))
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            said("10.5.0.1/16", None, None, None),
            "Network 10.5.0.1/16: host bits are set; write 10.5.0.0/16"
        );
        assert_eq!(
            said("10.5.0.0/29", None, None, None),
            "Network 10.5.0.0/29: the prefix must be from 1 to 28"
        );
        assert_eq!(
            said("10.5.0.0/16", Some(17), None, None),
            "SubnetLen 17: write 18 to 30"
        );
        assert_eq!(
            said("10.5.0.0/16", None, Some("10.5.1.7"), None),
            "SubnetMin 10.5.1.7: write a subnet's first address, 10.5.1.0"
        );
        assert_eq!(
            said("10.5.0.0/16", None, None, Some("10.6.0.0")),
            "SubnetMax 10.6.0.0: it is not within Network 10.5.0.0/16"
        );
        assert_eq!(
            said("10.5.0.0/16", None, Some("10.5.9.0"), Some("10.5.8.0")),
            "SubnetMax 10.5.8.0: it is below SubnetMin 10.5.9.0"
        );
    }

    proptest! {
        #[test]
        fn free_is_everything_that_overlaps_nothing(
            taken in prop::collection::vec((0u32..1 << 12, 20u8..=30), 0..12),
        ) {
            let base = u32::from(Ipv4Addr::new(10, 5, 0, 0));
            let taken: Vec<IpNetwork> = taken
                .into_iter()
                .map(|(offset, len)| {
                    let ip = IpAddr::V4(Ipv4Addr::from(base + offset));
                    let one = IpNetwork::new(ip, len).unwrap();
                    IpNetwork::new(one.network(), len).unwrap()
                })
                .collect();
            let pool = pool("10.5.0.0/20");
            let overlaps = |a: &IpNetwork, b: &IpNetwork| {
                a.contains(b.network()) || b.contains(a.network())
            };
            let expected: BTreeSet<IpNetwork> = pool
                .free(&[])
                .filter(|one| !taken.iter().any(|other| overlaps(one, other)))
                .collect();
            let found: BTreeSet<IpNetwork> = pool.free(&taken).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
