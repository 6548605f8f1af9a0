//! `ipMasq`: what a pod sends beyond its own subnet gets the node's address.
//!
//! Table, chains and comments are the reference plugins' (nftables backend), so that either side
//! removes what the other has made.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hostnet::Nftables;
use ipnetwork::IpNetwork;
use netstate::nft::{
    Addresses, Base, Chain, ChainRef, Hook, Match, Owner, Rule, SharedRules, Table, Verdict,
};
use netstate::route::{host, masked};
use netstate::{Op, Step};
use protocol::{Attachment, Error, IpConfig, Request};

use crate::owner::{comment, is_stale};
use crate::pod;

const TABLE: &str = "cni_plugins_masquerade";
const CHAIN: &str = "masq_checks";
const ENTRY: &str = "postrouting";
const SOURCE_NAT_PRIORITY: i32 = 100;

/// PURE: the step that masquerades `ips`.
#[must_use]
pub fn step(network: &str, attachment: &Attachment, ips: &[IpConfig]) -> Step {
    let rules = ips.iter().map(|ip| {
        let own = Match::Source(Addresses::Prefix(host(ip.address.ip())));
        let beyond = Match::NotDestination(Addresses::Prefix(masked(ip.address)));
        Rule::new(
            vec![own, beyond],
            Verdict::Masquerade {
                random_fully: false,
            },
        )
    });
    Step::host(Op::AddRules(SharedRules::in_chain(
        frame(),
        CHAIN,
        comment(network, attachment),
        rules.collect(),
    )))
}

/// Removes the attachment's rules, where the configuration `asked` for them; absent ones are no
/// error. The connection is returned so that it is closed last: the kernel waits at its closing,
/// and has done so when the link is removed meanwhile.
///
/// # Errors
/// When the kernel refuses.
pub fn remove(request: &Request<'_>, asked: bool) -> Result<Option<Nftables>, Error> {
    if !asked {
        return Ok(None);
    }
    let comment = comment(&request.network, &request.attachment());
    delete(&|found| found == comment).map(Some)
}

/// Removes the rules of this network's attachments that are not in `valid`, if the runtime said
/// which are and the configuration `asked` for rules.
///
/// # Errors
/// When the kernel refuses.
pub fn sweep(
    request: &Request<'_>,
    asked: bool,
    valid: Option<&[Attachment]>,
) -> Result<(), Error> {
    let Some(valid) = valid.filter(|_| asked) else {
        return Ok(());
    };
    delete(&is_stale(&request.network, valid)).map(drop)
}

/// Whether the attachment has a rule for each of `count` addresses, where `asked` for.
///
/// # Errors
/// When one is missing.
pub fn check(request: &Request<'_>, asked: bool, count: usize) -> Result<(), Error> {
    if !asked {
        return Ok(());
    }
    let comment = comment(&request.network, &request.attachment());
    let found = Nftables::open()
        .and_then(|mut nftables| nftables.rule_owners(&chain()))
        .map_err(|error| pod::kernel(&error))?;
    if found
        .iter()
        .filter(|found| found.comment == comment)
        .count()
        < count
    {
        return Err(Error::other(format!(
            "masquerading of {} is gone",
            request.container_id
        )));
    }
    Ok(())
}

fn delete(is_stale: &dyn Fn(&str) -> bool) -> Result<Nftables, Error> {
    let is_stale = |owner: &Owner| is_stale(&owner.comment);
    let deleted = Nftables::open().and_then(|mut nftables| {
        nftables.delete_rules(&[chain()], &is_stale)?;
        Ok(nftables)
    });
    deleted.map_err(|error| pod::kernel(&error))
}

fn chain() -> ChainRef {
    ChainRef::inet(TABLE, CHAIN)
}

fn frame() -> Table {
    let multicast = [
        IpNetwork::new(IpAddr::V4(Ipv4Addr::new(224, 0, 0, 0)), 4),
        IpNetwork::new(IpAddr::V6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0)), 8),
    ];
    let to = |network| Match::Destination(Addresses::Prefix(network));
    let leave = multicast.into_iter().flatten();
    let mut rules: Vec<Rule> = leave
        .map(|network| Rule::new(vec![to(network)], Verdict::Return))
        .collect();
    rules.push(Rule::new(vec![], Verdict::Goto(CHAIN.to_owned())));
    let mut table = Table::new(TABLE);
    let entry = Chain::base(Base::nat(Hook::Postrouting, SOURCE_NAT_PRIORITY), rules);
    table.chains.insert(ENTRY.to_owned(), entry);
    table.chains.insert(CHAIN.to_owned(), Chain::default());
    table
}
