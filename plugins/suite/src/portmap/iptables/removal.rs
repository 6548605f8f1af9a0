//! PURE: which rules of iptables go, and where they led.

use std::collections::BTreeSet;
use std::net::IpAddr;

use hostnet::nft::Redirect;
use netstate::iptables::{Batch, Rule, Saved};
use protocol::Attachment;

use super::{ENTRY, Names, TABLE};
use crate::portmap::config::Protocol;

/// What DEL removes: the attachment's rules, or where it has none, those that the reference made for
/// network and container and those of the attachment under another name of the network. The latter
/// lead to one of `addresses`, if the runtime gave them.
#[must_use]
pub fn delete(
    saved: &Saved,
    network: &str,
    attachment: &Attachment,
    addresses: Option<&[IpAddr]>,
) -> (Batch, Vec<Redirect>) {
    let names = Names::of(network, attachment);
    let comment = |rule: &Rule| rule.value("--comment").unwrap_or_default().to_owned();
    let entries = saved.rules(ENTRY);
    let own_rules = saved.rules(&names.chain).iter();
    let is_there = entries.iter().any(|rule| comment(rule) == names.comment)
        || own_rules.map(comment).any(|text| text == names.interface);
    if is_there {
        return own(saved, &names);
    }
    let leads_here = |rule: &Rule| {
        let Some(addresses) = addresses else {
            return true;
        };
        let chain = saved.rules(rule.target().unwrap_or_default()).iter();
        chain
            .filter_map(redirect)
            .any(|redirect| addresses.contains(&redirect.address))
    };
    let other_names: Vec<String> = entries
        .iter()
        .filter(|rule| comment(rule).ends_with(&names.ending) && leads_here(rule))
        .map(comment)
        .collect();
    let stale = |text: &str| text == names.reference || other_names.iter().any(|n| n == text);
    remove(saved, &stale, &[(&names.chain, "")])
}

/// Removes the attachment's own rules.
#[must_use]
pub fn clear(saved: &Saved, network: &str, attachment: &Attachment) -> Batch {
    own(saved, &Names::of(network, attachment)).0
}

fn own(saved: &Saved, names: &Names) -> (Batch, Vec<Redirect>) {
    let stale = |text: &str| text == names.comment;
    remove(saved, &stale, &[(&names.chain, &names.interface)])
}

/// What GC removes: the rules of containers and interfaces of `network` that are not in `valid`.
#[must_use]
pub fn sweep(saved: &Saved, network: &str, valid: &[Attachment]) -> (Batch, Vec<Redirect>) {
    let names = valid.iter().map(|one| Names::of(network, one));
    let kept: BTreeSet<String> = names
        .flat_map(|names| [names.comment, names.reference])
        .collect();
    let beginning = format!("dnat name: \"{network}\" id: \"");
    let stale = |text: &str| text.starts_with(&beginning) && !kept.contains(text);
    remove(saved, &stale, &[])
}

/// Removes the entries whose comment `is_stale` says so, with what they lead to, and what else in
/// a chain has the interface's comment (none for the reference's) beside it in `also`.
fn remove(
    saved: &Saved,
    is_stale: &dyn Fn(&str) -> bool,
    also: &[(&str, &str)],
) -> (Batch, Vec<Redirect>) {
    let mut batch = Batch::new(TABLE);
    let mut stale: BTreeSet<(String, String)> = also
        .iter()
        .map(|(chain, interface)| ((*chain).to_owned(), (*interface).to_owned()))
        .filter(|(chain, _)| saved.chains.contains_key(chain))
        .collect();
    let is_gone = |rule: &Rule| is_stale(rule.value("--comment").unwrap_or_default());
    for entry in saved.rules(ENTRY).iter().filter(|rule| is_gone(rule)) {
        let comment = entry.value("--comment").unwrap_or_default();
        let interface = comment.find(" if: \"").map_or("", |at| &comment[at + 1..]);
        if let Some(chain) = entry.target().filter(|chain| chain.starts_with("CNI-DN-")) {
            stale.insert((chain.to_owned(), interface.to_owned()));
        }
        batch.delete(ENTRY, entry.clone());
    }
    let mut redirects = Vec::new();
    let chains: BTreeSet<&String> = stale.iter().map(|(chain, _)| chain).collect();
    for chain in chains {
        let is_own = |rule: &&Rule| {
            let comment = rule.value("--comment").unwrap_or_default().to_owned();
            stale.contains(&(chain.clone(), comment))
        };
        let rules = saved.rules(chain);
        let (own, kept): (Vec<&Rule>, Vec<&Rule>) = rules.iter().partition(is_own);
        redirects.extend(own.iter().filter_map(|rule| redirect(rule)));
        let still = |rule: &&Rule| rule.target() == Some(chain) && !is_gone(rule);
        if kept.is_empty() && !saved.rules(ENTRY).iter().any(|rule| still(&rule)) {
            batch.flush_chain(chain).delete_chain(chain);
        } else {
            for rule in own {
                batch.delete(chain, rule.clone());
            }
        }
    }
    (batch, redirects)
}

/// Where a rule sends packets, if it does.
fn redirect(rule: &Rule) -> Option<Redirect> {
    let target = rule.value("--to-destination")?;
    let (address, port) = target.rsplit_once(':')?;
    let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    let protocol = protocols
        .into_iter()
        .find(|protocol| rule.value("-p") == Some(protocol.name()))?;
    Some(Redirect {
        protocol: protocol.number(),
        port: rule.value("--dport")?.parse().ok()?,
        address: address.trim_matches(['[', ']']).parse().ok()?,
        target_port: Some(port.parse().ok()?),
    })
}
