//! The rules in nftables: table `inet cni_firewall`, written in one transaction.
//!
//! ```text
//! forward:     isolation first, then the administrator's chains, then what is established, then
//!              the pods
//! pods:        one rule for each address of a pod, kept by the owner's comment
//! ```
//!
//! An accept ends only this table: it cannot bring back what another table discards.

use hostnet::{Nftables, lock};
use netstate::nft::{
    Addresses, Base, Chain, ChainRef, CtStates, DeviceName, Hook, Match, Owner, Rule, SharedRule,
    SharedRules, SharedTable, Table, Verdict,
};
use netstate::route::host;
use protocol::Error;

use crate::firewall::Pod;
use crate::firewall::config::Isolation;
use crate::pod;

const TABLE: &str = "cni_firewall";
const FORWARD: &str = "forward";
const FROM_BRIDGE: &str = "isolation-stage-1";
const TO_BRIDGE: &str = "isolation-stage-2";
const OVERRIDES: &str = "overrides";
const PODS: &str = "pods";
/// Always there, whatever another network calls its own.
const ADMIN: &str = "CNI-ADMIN";
const FILTER_PRIORITY: i32 = 0;
/// A bridge's rules go with its last pod: nobody may add one in between.
const LOCK: &str = "firewall";

/// The chains that are ours.
pub const CHAINS: &[&str] = &[FORWARD, FROM_BRIDGE, TO_BRIDGE, OVERRIDES, PODS];

/// Adds a pod's rules in place of those it has already.
///
/// # Errors
/// When the kernel refuses. Nothing has changed then.
pub fn add(wanted: &Pod) -> Result<(), Error> {
    let failed = |error: hostnet::Error| pod::kernel(&error);
    let _ours = match &wanted.isolation {
        Some(_) => Some(lock::exclusive(LOCK).map_err(failed)?),
        None => None,
    };
    let mut nftables = Nftables::open().map_err(failed)?;
    if let Some(isolation) = &wanted.isolation {
        let rules = of_bridge(isolation);
        let there = nftables.owned_rules(&rules.chains()).map_err(failed)?;
        let count = there
            .iter()
            .filter(|rule| rule.owner == rules.owner)
            .count();
        // The pods before this one have made them; to write them anew would take the kernel longer
        // than all the rest.
        let wanted = rules.tables.iter().flat_map(|table| &table.rules).count();
        if count != wanted {
            let is_own = |found: &Owner| *found == rules.owner;
            let replaced = nftables.replace_rules(&rules, &rules.chains(), &is_own);
            replaced.map_err(failed)?;
        }
    }
    let rules = of_pod(wanted);
    let chains = [OVERRIDES, PODS].map(chain);
    let added = nftables.replace_rules(&rules, &chains, &|found| found.comment == wanted.owner);
    added.map(drop).map_err(failed)
}

/// Removes the rules of the owners that `is_stale` says so of, and those of bridges that have no
/// pod any more.
///
/// # Errors
/// When the kernel refuses.
pub fn remove(is_stale: &dyn Fn(&str) -> bool) -> Result<(), Error> {
    let failed = |error: hostnet::Error| pod::kernel(&error);
    let mut nftables = Nftables::open().map_err(failed)?;
    let chains = [OVERRIDES, PODS].map(chain);
    let owners = nftables.rule_owners(&chain(PODS)).map_err(failed)?;
    let stale = |owner: &Owner| is_stale(&owner.comment);
    let ours: Vec<&Owner> = owners.iter().filter(|owner| stale(owner)).collect();
    if ours.is_empty() {
        return Ok(());
    }
    let isolated = ours.iter().any(|owner| owner.tag.is_some());
    let _ours = if isolated {
        Some(lock::exclusive(LOCK).map_err(failed)?)
    } else {
        None
    };
    nftables.delete_rules(&chains, &stale).map_err(failed)?;
    if isolated {
        let left = nftables.rule_owners(&chain(PODS)).map_err(failed)?;
        let bridges = [FROM_BRIDGE, TO_BRIDGE].map(chain);
        let unused = |rule: &Owner| !left.iter().any(|pod| pod.tag == rule.tag);
        nftables.delete_rules(&bridges, &unused).map_err(failed)?;
    }
    Ok(())
}

/// Checks that all rules that [`add`] made are there.
///
/// # Errors
/// What is missing.
pub fn check(wanted: &Pod) -> Result<(), Error> {
    let mut nftables = Nftables::open().map_err(|error| pod::kernel(&error))?;
    let mut comments = |name: &str| -> Result<Vec<String>, Error> {
        let owners = nftables.rule_owners(&chain(name));
        let owners = owners.map_err(|error| pod::kernel(&error))?;
        Ok(owners.into_iter().map(|owner| owner.comment).collect())
    };
    let frame = frame(&wanted.admin_chain);
    let entry = frame.chains.get(FORWARD).map(|chain| &chain.rules[..]);
    let expected = entry.unwrap_or_default().iter();
    let expected: Vec<String> = expected.filter_map(|rule| rule.comment.clone()).collect();
    if comments(FORWARD)? != expected {
        return Err(gone(FORWARD));
    }
    let mut rules = vec![of_pod(wanted)];
    rules.extend(wanted.isolation.as_ref().map(of_bridge));
    for SharedRules { owner, tables } in rules {
        let own = tables.iter().flat_map(|table| &table.rules);
        for name in [FROM_BRIDGE, TO_BRIDGE, OVERRIDES, PODS] {
            let count = own.clone().filter(|rule| rule.chain == name).count();
            let found = comments(name)?.into_iter();
            if found.filter(|found| *found == owner.comment).count() < count {
                return Err(gone(name));
            }
        }
    }
    Ok(())
}

fn gone(chain: &str) -> Error {
    Error::other(format!(
        "rules of chain {chain} in nftables table inet {TABLE} are gone or changed"
    ))
}

/// PURE: a pod's own rules.
#[must_use]
pub fn of_pod(wanted: &Pod) -> SharedRules {
    let mut rules = Vec::new();
    let from = |ip| Match::Source(Addresses::Prefix(host(ip)));
    let to = |ip| Match::Destination(Addresses::Prefix(host(ip)));
    for ip in &wanted.ips {
        if wanted.admin_chain != ADMIN {
            for side in [from(*ip), to(*ip)] {
                let jump = Rule::new(vec![side], Verdict::Jump(wanted.admin_chain.clone()));
                rules.push(SharedRule::last(OVERRIDES, jump));
            }
        }
        let accept = Rule::new(vec![from(*ip)], Verdict::Accept);
        rules.push(SharedRule::last(PODS, accept));
    }
    let owner = match &wanted.isolation {
        Some(isolation) => Owner::tagged(wanted.owner.clone(), isolation.bridge.as_str()),
        None => Owner::commented(wanted.owner.clone()),
    };
    let frame = frame(&wanted.admin_chain);
    let tables = vec![SharedTable { frame, rules }];
    SharedRules { owner, tables }
}

/// PURE: the rules of a bridge, shared by its pods.
#[must_use]
pub fn of_bridge(isolation: &Isolation) -> SharedRules {
    let bridge = &isolation.bridge;
    let is = || DeviceName::Is(bridge.clone());
    let mut leaves = vec![Match::InDevice(is())];
    let policy = if isolation.from_each_other {
        "isolated"
    } else {
        leaves.push(Match::NotOutDevice(is()));
        "same-bridge"
    };
    let leave = Rule::new(leaves, Verdict::Goto(TO_BRIDGE.to_owned()));
    let enter = Rule::new(vec![Match::OutDevice(is())], Verdict::Drop);
    let rules = vec![
        SharedRule::last(FROM_BRIDGE, leave),
        SharedRule::last(TO_BRIDGE, enter),
    ];
    let comment = format!("bridge: {bridge}, ingressPolicy: {policy}");
    SharedRules {
        owner: Owner::tagged(comment, bridge.as_str()),
        tables: vec![SharedTable {
            frame: frame(ADMIN),
            rules,
        }],
    }
}

fn frame(admin_chain: &str) -> Table {
    let jump =
        |chain: &str, comment| Rule::new(vec![], Verdict::Jump(chain.to_owned())).comment(comment);
    let known = CtStates::ESTABLISHED.or(CtStates::RELATED);
    let rules = vec![
        jump(FROM_BRIDGE, "CNI firewall plugin ingress policies"),
        jump(ADMIN, "CNI firewall plugin admin overrides"),
        jump(OVERRIDES, "CNI firewall plugin admin overrides of networks"),
        Rule::new(vec![Match::CtState(known)], Verdict::Accept).comment("answers"),
        jump(PODS, "CNI firewall plugin rules"),
    ];
    let mut table = Table::new(TABLE);
    let base = Base::filter(Hook::Forward, FILTER_PRIORITY);
    for name in [ADMIN, admin_chain].iter().chain(CHAINS) {
        table.chains.insert((*name).to_owned(), Chain::default());
    }
    table
        .chains
        .insert(FORWARD.to_owned(), Chain::base(base, rules));
    table
}

fn chain(name: &str) -> ChainRef {
    ChainRef::inet(TABLE, name)
}
