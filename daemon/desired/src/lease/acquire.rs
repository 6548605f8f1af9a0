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
    /// What this node had before: by its subnet file, or until a moment ago.
    pub previous: Option<LeaseKey>,
    /// Whether that is from an earlier run, which may have had other MACs.
    pub is_inherited: bool,
    /// The subnets there are.
    pub pools: &'a Pools,
    /// Subnets that nobody holds but that somebody may still use: the last to be taken.
    pub avoid: &'a [IpNetwork],
    /// Subnets that are not to be had, though no lease has them.
    pub barred: &'a [IpNetwork],
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
    let leased = held.iter().flat_map(|one| one.key.subnets());
    let taken: Vec<IpNetwork> = leased.chain(claim.barred.iter().copied()).collect();
    let previous = claim.previous.filter(|key| fits(*key, claim.pools));
    let previous = previous.filter(|key| is_free(*key, &taken));
    if let Some(own) = own(held, claim) {
        let (key, revision) = (own.key, own.revision);
        return match (duplicate(own, claim), previous) {
            (Some(obstacle), _) => Step::Wait(obstacle),
            // A store that was restored has an old lease for the one that pods have addresses of.
            (None, Some(held)) if !claim.is_inherited => Step::Create(held),
            _ if fits(key, claim.pools) => Step::Keep { key, revision },
            _ => Step::Discard { key, revision },
        };
    }
    if let Some(key) = previous {
        return Step::Create(key);
    }
    let avoided = [&taken, claim.avoid].concat();
    let found = pick(claim.pools, &avoided, choose);
    match found.or_else(|_| pick(claim.pools, &taken, choose)) {
        Ok(key) => Step::Create(key),
        Err(obstacle) => Step::Wait(obstacle),
    }
}

/// This node's lease: with its address, or what it had before with its MAC, should the address have
/// changed while nobody was there to tell. Of several what it had before, else one that is of the
/// network.
fn own<'a>(held: &'a [Held], claim: &Claim<'_>) -> Option<&'a Held> {
    let is_own = |one: &&Held| {
        one.attributes.as_ref().is_some_and(|value| {
            let is_same = || value.macs().iter().any(|mac| claim.macs.contains(mac));
            value.public_ip == claim.public_ip || (claim.previous == Some(one.key) && is_same())
        })
    };
    held.iter().filter(is_own).min_by_key(|one| {
        let (before, fits) = (claim.previous == Some(one.key), fits(one.key, claim.pools));
        (!(before && fits), !fits)
    })
}

/// Another node that claims the same address. One without a MAC cannot be told apart.
fn duplicate(own: &Held, claim: &Claim<'_>) -> Option<Obstacle> {
    if claim.is_inherited && claim.previous == Some(own.key) {
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
    // Nodes that race and choose another IPv4 subnet choose another IPv6 subnet too if that has the
    // same place in its pool.
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
mod tests;
