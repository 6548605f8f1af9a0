//! Masquerading by nftables. Table, chains and comments are the reference plugins', so that either
//! side removes what the other has made.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hostnet::Nftables;
use ipnetwork::IpNetwork;
use netstate::nft::{
    Addresses, Base, Chain, ChainRef, Hook, Match, Owner, Rule, SharedRules, Table, Verdict,
};
use netstate::route::{host, masked};
use netstate::{Op, Step};
use protocol::{Attachment, Error, IpConfig};

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

/// Removes the attachment's rules; absent ones are no error. The connection is returned so that it
/// is closed last: the kernel waits at its closing, and has done so when the link is removed
/// meanwhile.
pub(super) fn remove(network: &str, attachment: &Attachment) -> Result<Nftables, Error> {
    let comment = comment(network, attachment);
    delete(&|found| found == comment)
}

/// Removes the rules of this network's attachments that are not in `valid`.
pub(super) fn sweep(network: &str, valid: &[Attachment]) -> Result<(), Error> {
    delete(&is_stale(network, valid)).map(drop)
}

/// Whether the attachment has `count` rules, and packets get to them.
pub(super) fn is_there(
    network: &str,
    attachment: &Attachment,
    count: usize,
) -> Result<bool, Error> {
    let comment = comment(network, attachment);
    let failed = |error: hostnet::Error| pod::kernel(&error);
    let mut nftables = Nftables::open().map_err(failed)?;
    let found = nftables.rule_owners(&chain()).map_err(failed)?;
    let own = found.iter().filter(|found| found.comment == comment);
    if own.count() < count {
        return Ok(false);
    }
    let entry = nftables
        .rule_count(&ChainRef::inet(TABLE, ENTRY))
        .map_err(failed)?;
    Ok(entry.is_some_and(|rules| rules > 0))
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
