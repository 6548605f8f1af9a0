//! The rules in iptables: the reference's chains and rules word by word, so that either side
//! removes what the other has made.
//!
//! The reference's rules do not say whose they are. A chain of ours that no packet goes through,
//! `CNI-FORWARD-OWNERS`, does: one rule for each address, with bridge and owner's comment.

use std::net::IpAddr;

use hostnet::{ErrorKind, iptables};
use netstate::iptables::{Batch, Rule, Saved};
use netstate::nft::Family;
use netstate::route::host;
use protocol::Error;

use crate::firewall::Pod;
use crate::firewall::config::Isolation;
use crate::pod;

const TABLE: &str = "filter";
const FORWARD: &str = "FORWARD";
const PODS: &str = "CNI-FORWARD";
const OWNERS: &str = "CNI-FORWARD-OWNERS";
const FROM_BRIDGE: &str = "CNI-ISOLATION-STAGE-1";
const TO_BRIDGE: &str = "CNI-ISOLATION-STAGE-2";
const SAME_BRIDGE: &str = "CNI firewall plugin rules (ingressPolicy: same-bridge)";
const ISOLATED: &str = "CNI firewall plugin rules (ingressPolicy: isolated)";

/// Adds what a pod needs in `family`, each rule once.
///
/// # Errors
/// When the program is not installed or refuses.
pub fn add(family: Family, wanted: &Pod) -> Result<(), Error> {
    iptables::update(family, TABLE, &|saved| plan_add(saved, wanted))
        .map_err(|error| pod::kernel(&error))
}

/// Removes the rules of the owners that `is_stale` says so of and those of `ips`, unless another
/// owner has the address by now.
///
/// # Errors
/// When the program refuses.
pub fn remove(
    family: Family,
    is_stale: &dyn Fn(&str) -> bool,
    ips: &[IpAddr],
) -> Result<(), Error> {
    let failed = |error: hostnet::Error| pod::kernel(&error);
    if !iptables::may_have_chain(family, TABLE, PODS).map_err(failed)? {
        return Ok(());
    }
    match iptables::update(family, TABLE, &|saved| plan_remove(saved, is_stale, ips)) {
        // What no program is there for, none has made, and DEL must go on.
        Err(error) if error.kind == ErrorKind::Unsupported => {
            eprintln!("firewall: {error}");
            Ok(())
        }
        other => other.map_err(failed),
    }
}

/// Checks that all rules that [`add`] made are there, in order.
///
/// # Errors
/// What is missing.
pub fn check(family: Family, wanted: &Pod) -> Result<(), Error> {
    let saved = iptables::save(family, TABLE).map_err(|error| pod::kernel(&error))?;
    let mut expected = vec![(FORWARD, to_pods()), (PODS, to_admin(&wanted.admin_chain))];
    for ip in &wanted.ips {
        expected.extend(of_address(*ip).map(|rule| (PODS, rule)));
    }
    if let Some(isolation) = &wanted.isolation {
        expected.push((FORWARD, to_stage_1(&saved)));
        expected.extend(of_bridge(isolation));
    }
    for (chain, rule) in expected {
        if !saved.has(chain, &rule) {
            let msg = format!("rule {rule} is gone from chain {chain} of iptables table {TABLE}");
            return Err(Error::other(msg));
        }
    }
    if wanted.isolation.is_some() && is_late(&saved) {
        let msg = format!("chain {FROM_BRIDGE} of iptables table {TABLE} comes after {PODS}");
        return Err(Error::other(msg));
    }
    Ok(())
}

/// PURE: what is missing for a pod, of one family.
#[must_use]
pub fn plan_add(saved: &Saved, wanted: &Pod) -> Batch {
    let mut batch = Batch::new(TABLE);
    for chain in [PODS, &wanted.admin_chain, OWNERS] {
        batch.ensure_chain(saved, chain);
    }
    batch.ensure_first(saved, FORWARD, to_pods()).ensure_first(
        saved,
        PODS,
        to_admin(&wanted.admin_chain),
    );
    for ip in &wanted.ips {
        for rule in of_address(*ip) {
            batch.ensure_last(saved, PODS, rule);
        }
        let bridge = wanted.isolation.as_ref().map(|isolation| &isolation.bridge);
        let device = bridge.map(|name| format!(" -i {name}")).unwrap_or_default();
        let owner = Rule::of(&format!("-s {}{device}", host(*ip))).comment(wanted.owner.clone());
        batch.ensure_last(saved, OWNERS, owner);
    }
    if let Some(isolation) = &wanted.isolation {
        plan_isolation(saved, isolation, &mut batch);
    }
    if is_late(saved) || (!saved.has(FORWARD, &to_pods()) && has_stage_1(saved)) {
        let jump = to_stage_1(saved);
        batch.delete(FORWARD, jump.clone()).insert(FORWARD, 1, jump);
    }
    batch
}

fn plan_isolation(saved: &Saved, isolation: &Isolation, batch: &mut Batch) {
    for chain in [FROM_BRIDGE, TO_BRIDGE] {
        batch.ensure_chain(saved, chain);
    }
    batch.ensure_first(saved, FORWARD, to_stage_1(saved));
    for (chain, rule) in of_bridge(isolation) {
        batch.ensure_first(saved, chain, rule);
    }
    for chain in [FROM_BRIDGE, TO_BRIDGE] {
        let back = || Rule::default().comment(SAME_BRIDGE).jump("RETURN");
        batch.ensure_last(saved, chain, back());
    }
}

/// PURE: what goes with the stale owners and with `ips`.
#[must_use]
pub fn plan_remove(saved: &Saved, is_stale: &dyn Fn(&str) -> bool, ips: &[IpAddr]) -> Batch {
    let mut batch = Batch::new(TABLE);
    let is_stale = |rule: &Rule| rule.value("--comment").is_some_and(is_stale);
    let (stale, kept): (Vec<&Rule>, Vec<&Rule>) =
        saved.rules(OWNERS).iter().partition(|rule| is_stale(rule));
    batch.delete_where(saved, OWNERS, is_stale);
    let has = |rules: &[&Rule], flag: &str, value: &str| {
        let mut values = rules.iter().filter_map(|rule| rule.value(flag));
        values.any(|found| found == value)
    };
    let mut addresses: Vec<String> = ips.iter().map(|ip| host(*ip).to_string()).collect();
    addresses.extend(
        stale
            .iter()
            .filter_map(|r| r.value("-s"))
            .map(str::to_owned),
    );
    addresses.retain(|address| !has(&kept, "-s", address));
    let is_theirs = |rule: &Rule| {
        let address = rule.value("-s").or_else(|| rule.value("-d"));
        let address = address.filter(|found| addresses.iter().any(|one| one == found));
        address.is_some_and(|found| rules_of(found).contains(rule))
    };
    batch.delete_where(saved, PODS, is_theirs);
    // A pod of the reference has no owner; its bridge may be any.
    let unknown = saved.rules(PODS).iter().any(|rule| {
        let is_known = |address: &str| has(&kept, "-s", address);
        let source = rule.value("-s").filter(|_| !is_theirs(rule));
        source.is_some_and(|address| !is_known(address))
    });
    if unknown {
        return batch;
    }
    let unused = |bridge: &str| has(&stale, "-i", bridge) && !has(&kept, "-i", bridge);
    batch.delete_where(saved, FROM_BRIDGE, |rule| {
        rule.value("-i").is_some_and(unused)
    });
    batch.delete_where(saved, TO_BRIDGE, |rule| {
        rule.value("-o").is_some_and(unused)
    });
    batch
}

fn to_pods() -> Rule {
    Rule::default()
        .comment("CNI firewall plugin rules")
        .jump(PODS)
}

fn to_admin(chain: &str) -> Rule {
    let comment = "CNI firewall plugin admin overrides";
    Rule::default().comment(comment).jump(chain)
}

/// The jump to the first stage: the reference's, or ours that says the same in the same words.
fn to_stage_1(saved: &Saved) -> Rule {
    let there = saved.rules(FORWARD).iter();
    let found = there
        .filter(|rule| rule.target() == Some(FROM_BRIDGE))
        .find(|rule| rule.words().len() == Rule::default().comment("").jump("").words().len());
    let own = || Rule::default().comment(SAME_BRIDGE).jump(FROM_BRIDGE);
    found.cloned().unwrap_or_else(own)
}

fn has_stage_1(saved: &Saved) -> bool {
    saved.has(FORWARD, &to_stage_1(saved))
}

/// Whether the pods' accepts come before what keeps bridges apart.
fn is_late(saved: &Saved) -> bool {
    let place = |rule: &Rule| saved.rules(FORWARD).iter().position(|found| found == rule);
    match (place(&to_stage_1(saved)), place(&to_pods())) {
        (Some(stage), Some(pods)) => stage > pods,
        _ => false,
    }
}

fn of_address(ip: IpAddr) -> [Rule; 2] {
    rules_of(&host(ip).to_string())
}

fn rules_of(address: &str) -> [Rule; 2] {
    let answers = format!("-d {address} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT");
    [
        Rule::of(&answers),
        Rule::of(&format!("-s {address} -j ACCEPT")),
    ]
}

fn of_bridge(isolation: &Isolation) -> [(&'static str, Rule); 2] {
    let bridge = &isolation.bridge;
    let (leaves, comment) = if isolation.from_each_other {
        (format!("-i {bridge}"), ISOLATED)
    } else {
        (format!("-i {bridge} ! -o {bridge}"), SAME_BRIDGE)
    };
    let leave = Rule::of(&leaves).comment(comment).jump(TO_BRIDGE);
    let enter = Rule::of(&format!("-o {bridge}"));
    let enter = enter.comment(SAME_BRIDGE).jump("DROP");
    [(FROM_BRIDGE, leave), (TO_BRIDGE, enter)]
}
