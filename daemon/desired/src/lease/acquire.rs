//! What a node does next to hold a lease, decided from all leases there are.
//!
//! Every step names the revision it was decided at, and the store takes it only if nothing has
//! changed since: any number of nodes can race, and a lost race is one more round.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use netstate::MacAddr;

use crate::lease::{Attributes, LeaseKey, Obstacle, Pool, Pools};

/// A key under the leases' prefix, as the store holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Its name.
    pub key: LeaseKey,
    /// Its value; `None` if it could not be read, which still takes the subnets.
    pub attributes: Option<Attributes>,
    /// The store's revision of its last change.
    pub revision: i64,
}

/// Who asks for a lease.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    /// The address that others reach this node by: the lease with it is this node's.
    pub public_ip: Ipv4Addr,
    /// The same for IPv6.
    pub public_ipv6: Option<Ipv6Addr>,
    /// The MACs of this node's overlay devices, there or to be made. A lease under this node's
    /// address with other MACs is another node's.
    pub macs: &'a [MacAddr],
    /// What this node had before, from its subnet file.
    pub previous: Option<LeaseKey>,
    /// The subnets there are.
    pub pools: &'a Pools,
    /// Subnets that nobody holds but that somebody may still use: the last to be taken.
    pub avoid: &'a [IpNetwork],
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// This is the node's: write its value, if it has not changed since `revision`.
    Keep {
        /// The lease.
        key: LeaseKey,
        /// When it was seen.
        revision: i64,
    },
    /// This is the node's, but not of the network as it is configured now: delete it, if it has not
    /// changed since `revision`, and ask again.
    Discard {
        /// The lease.
        key: LeaseKey,
        /// When it was seen.
        revision: i64,
    },
    /// Create this, if it is not there; else ask again.
    Create(LeaseKey),
    /// Nothing can be done before something changes.
    Wait(Obstacle),
}

/// The next step of `claim`, given everything that is `held`. `choose` picks one of that many free
/// subnets; choosing at random keeps nodes that race apart.
pub fn next(held: &[Held], claim: &Claim<'_>, choose: &mut dyn FnMut(usize) -> usize) -> Step {
    if let Some(own) = own(held, claim) {
        let (key, revision) = (own.key, own.revision);
        return match duplicate(own, claim) {
            Some(obstacle) => Step::Wait(obstacle),
            None if fits(key, claim.pools) => Step::Keep { key, revision },
            None => Step::Discard { key, revision },
        };
    }
    let taken: Vec<IpNetwork> = held.iter().flat_map(|one| one.key.subnets()).collect();
    let previous = claim.previous.filter(|key| fits(*key, claim.pools));
    if let Some(key) = previous.filter(|key| is_free(*key, &taken)) {
        return Step::Create(key);
    }
    let avoided = [&taken, claim.avoid].concat();
    let found = pick(claim.pools, &avoided, choose);
    match found.or_else(|_| pick(claim.pools, &taken, choose)) {
        Ok(key) => Step::Create(key),
        Err(obstacle) => Step::Wait(obstacle),
    }
}

/// This node's lease. Of several with its address: what it had before, else one that is of the
/// network.
fn own<'a>(held: &'a [Held], claim: &Claim<'_>) -> Option<&'a Held> {
    let is_own = |one: &&Held| {
        let ip = one.attributes.as_ref().map(|value| value.public_ip);
        ip == Some(claim.public_ip)
    };
    held.iter().filter(is_own).min_by_key(|one| {
        let (before, fits) = (claim.previous == Some(one.key), fits(one.key, claim.pools));
        (!(before && fits), !fits)
    })
}

/// Another node that claims the same address. One without a MAC cannot be told apart.
fn duplicate(own: &Held, claim: &Claim<'_>) -> Option<Obstacle> {
    if claim.previous == Some(own.key) {
        return None;
    }
    let macs = own.attributes.as_ref()?.macs();
    let (theirs, ours) = (*macs.first()?, *claim.macs.first()?);
    let is_same = macs.iter().any(|mac| claim.macs.contains(mac));
    (!is_same).then_some(Obstacle::Duplicate {
        key: own.key,
        public_ip: claim.public_ip,
        theirs,
        ours,
    })
}

fn fits(key: LeaseKey, pools: &Pools) -> bool {
    let v6 = match (key.v6, pools.v6) {
        (None, None) => true,
        (Some(subnet), Some(pool)) => pool.has(subnet.into()),
        _ => false,
    };
    pools.v4.has(key.v4.into()) && v6
}

fn is_free(key: LeaseKey, taken: &[IpNetwork]) -> bool {
    !key.subnets()
        .any(|one| taken.iter().any(|other| overlap(one, *other)))
}

/// Whether two subnets share an address.
#[must_use]
pub fn overlap(one: IpNetwork, other: IpNetwork) -> bool {
    one.is_ipv4() == other.is_ipv4()
        && (one.contains(other.network()) || other.contains(one.network()))
}

/// How many free subnets are looked at: enough that nodes that race seldom meet.
const CANDIDATES: usize = 4096;

fn pick(
    pools: &Pools,
    taken: &[IpNetwork],
    choose: &mut dyn FnMut(usize) -> usize,
) -> Result<LeaseKey, Obstacle> {
    let v4 = one_of(&pools.v4, taken, choose)?;
    let IpNetwork::V4(v4) = v4 else {
        return Err(full(&pools.v4));
    };
    let Some(pool) = &pools.v6 else {
        return Ok(LeaseKey { v4, v6: None });
    };
    // The store can guard only what a key begins with, its IPv4 part: nodes that differ there
    // differ in the IPv6 part too if that has the same place in its pool.
    let place = pools.v4.place(v4.into()).and_then(|at| pool.at(at));
    let is_free = |one: &IpNetwork| !taken.iter().any(|other| overlap(*one, *other));
    let v6 = match place.filter(is_free) {
        Some(v6) => v6,
        None => one_of(pool, taken, choose)?,
    };
    match v6 {
        IpNetwork::V6(v6) => Ok(LeaseKey { v4, v6: Some(v6) }),
        IpNetwork::V4(_) => Err(full(pool)),
    }
}

fn one_of(
    pool: &Pool,
    taken: &[IpNetwork],
    choose: &mut dyn FnMut(usize) -> usize,
) -> Result<IpNetwork, Obstacle> {
    let free: Vec<IpNetwork> = pool.free(taken).take(CANDIDATES).collect();
    let chosen = match free.len() {
        0 => None,
        many => free.get(choose(many).min(many - 1)).copied(),
    };
    chosen.ok_or_else(|| full(pool))
}

fn full(pool: &Pool) -> Obstacle {
    Obstacle::Full {
        network: pool.network(),
        size: pool.size(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::Pool;

    const OURS: &str = "02:00:00:00:00:01";

    fn pools(v4: &str, v6: Option<&str>) -> Pools {
        let pool = |text: &str| Pool::new(text.parse().unwrap(), None, None, None).unwrap();
        Pools {
            v4: pool(v4),
            v6: v6.map(pool),
        }
    }

    fn held(key: &str, ip: &str, mac: &str) -> Held {
        let value = format!(
            r#"{{"PublicIP":"{ip}","BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"{mac}"}}}}"#
        );
        Held {
            key: key.parse().unwrap(),
            attributes: Some(Attributes::decode(value.as_bytes()).unwrap()),
            revision: 7,
        }
    }

    fn step(held: &[Held], pools: &Pools, previous: Option<&str>) -> Step {
        let macs = [OURS.parse().unwrap()];
        let claim = Claim {
            public_ip: "192.0.2.1".parse().unwrap(),
            public_ipv6: None,
            macs: &macs,
            previous: previous.map(|key| key.parse().unwrap()),
            pools,
            avoid: &[],
        };
        next(held, &claim, &mut |count| count - 1)
    }

    fn create(key: &str) -> Step {
        Step::Create(key.parse().unwrap())
    }

    #[test]
    fn a_node_keeps_what_is_its_own_even_with_another_lease_in_its_subnet_file() {
        let pools = pools("10.5.0.0/16", None);
        let all = [
            held("10.5.2.0-24", "192.0.2.2", "02:00:00:00:00:02"),
            held("10.5.1.0-24", "192.0.2.1", OURS),
        ];
        let keep = Step::Keep {
            key: "10.5.1.0-24".parse().unwrap(),
            revision: 7,
        };
        assert_eq!(step(&all, &pools, Some("10.5.9.0-24")), keep);
    }

    #[test]
    fn what_a_node_had_before_it_gets_again_unless_it_is_taken() {
        let pools = pools("10.5.0.0/21", None);
        let other = held("10.5.3.0-24", "192.0.2.2", "02:00:00:00:00:02");
        assert_eq!(
            step(&[], &pools, Some("10.5.3.0-24")),
            create("10.5.3.0-24")
        );
        let taken = std::slice::from_ref(&other);
        assert_eq!(
            step(taken, &pools, Some("10.5.3.0-24")),
            create("10.5.7.0-24")
        );
        assert_eq!(
            step(taken, &pools, Some("10.9.3.0-24")),
            create("10.5.7.0-24")
        );
    }

    #[test]
    fn a_lease_of_another_network_or_family_is_given_up() {
        let all = [held("10.5.1.0-24", "192.0.2.1", OURS)];
        let discard = Step::Discard {
            key: "10.5.1.0-24".parse().unwrap(),
            revision: 7,
        };
        assert_eq!(step(&all, &pools("10.6.0.0/16", None), None), discard);
        let dual = pools("10.5.0.0/16", Some("fc00::/48"));
        assert_eq!(step(&all, &dual, None), discard);
    }

    #[test]
    fn subnets_that_overlap_any_lease_even_an_unreadable_one_are_not_taken() {
        let mut junk = held("10.5.2.0-23&fc00:0:0:ffff::-64", "192.0.2.9", OURS);
        junk.attributes = None;
        let v4 = pools("10.5.0.0/22", None);
        assert_eq!(
            step(std::slice::from_ref(&junk), &v4, None),
            create("10.5.1.0-24")
        );
        let dual = pools("10.5.0.0/22", Some("fc00:0:0:fffc::/62"));
        assert_eq!(
            step(&[junk], &dual, None),
            create("10.5.1.0-24&fc00:0:0:fffd::-64")
        );
    }

    #[test]
    fn of_several_leases_with_its_address_a_node_keeps_one_of_the_network() {
        let pools = pools("10.5.0.0/16", None);
        let all = [
            held("10.4.1.0-24", "192.0.2.1", OURS),
            held("10.5.1.0-24", "192.0.2.1", OURS),
            held("10.5.2.0-24", "192.0.2.1", OURS),
        ];
        let keep = |key: &str| Step::Keep {
            key: key.parse().unwrap(),
            revision: 7,
        };
        assert_eq!(step(&all, &pools, None), keep("10.5.1.0-24"));
        assert_eq!(step(&all, &pools, Some("10.5.2.0-24")), keep("10.5.2.0-24"));
        assert_eq!(step(&all, &pools, Some("10.4.1.0-24")), keep("10.5.1.0-24"));
    }

    #[test]
    fn what_may_be_in_use_is_the_last_to_be_taken() {
        let pools = pools("10.5.0.0/22", None);
        let macs = [OURS.parse().unwrap()];
        let avoid: Vec<IpNetwork> = ["10.5.1.0/24", "10.5.3.0/24"]
            .map(|text| text.parse().unwrap())
            .to_vec();
        let claim = Claim {
            public_ip: "192.0.2.1".parse().unwrap(),
            public_ipv6: None,
            macs: &macs,
            previous: None,
            pools: &pools,
            avoid: &avoid,
        };
        let taken = held("10.5.2.0-24", "192.0.2.2", "02:00:00:00:00:02");
        assert_eq!(next(&[], &claim, &mut |_| 0), create("10.5.2.0-24"));
        assert_eq!(next(&[taken], &claim, &mut |_| 0), create("10.5.1.0-24"));
    }

    #[test]
    fn obstacles_are_named() {
        let full = pools("10.5.0.0/24", None);
        let all = [held("10.5.0.0-16", "192.0.2.2", "02:00:00:00:00:02")];
        let Step::Wait(obstacle) = step(&all, &full, None) else {
            panic!("not full");
        };
        assert_eq!(
            obstacle.to_string(),
            "out of subnets: all 3 of 10.5.0.0/24 are leased or overlap a lease; free one, or make Network larger"
        );
        let pools = pools("10.5.0.0/16", None);
        let twin = [held("10.5.1.0-24", "192.0.2.1", "02:00:00:00:00:09")];
        let Step::Wait(obstacle) = step(&twin, &pools, None) else {
            panic!("took another node's lease");
        };
        assert_eq!(
            obstacle.to_string(),
            "lease 10.5.1.0-24 has this node's PublicIP 192.0.2.1 but VtepMAC 02:00:00:00:00:09, which is not this \
             node's 02:00:00:00:00:01: give each node an address of its own (public-ip, iface), or release that lease \
             if its node is gone"
        );
        // A node that succeeds flanneld knows its lease by the subnet file.
        let keep = Step::Keep {
            key: "10.5.1.0-24".parse().unwrap(),
            revision: 7,
        };
        assert_eq!(step(&twin, &pools, Some("10.5.1.0-24")), keep);
    }

    #[test]
    fn a_reservation_without_a_mac_is_the_nodes() {
        let mut reserved = held("10.5.4.0-24", "192.0.2.1", OURS);
        reserved.attributes = Attributes::decode(br#"{"PublicIP":"192.0.2.1"}"#).ok();
        let keep = Step::Keep {
            key: "10.5.4.0-24".parse().unwrap(),
            revision: 7,
        };
        assert_eq!(step(&[reserved], &pools("10.5.0.0/16", None), None), keep);
    }
}
