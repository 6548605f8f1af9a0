//! PURE: port mappings as nftables rules, and which rules belong to an attachment.
//!
//! Tables, chains and comments are the reference plugin's, so that its DEL removes ours. A tag names
//! network, container and interface; rules without one were made by the reference.

use std::net::{IpAddr, Ipv4Addr};

use hostnet::nft::OwnedRule;
use ipnetwork::IpNetwork;
use netstate::nft::{
    Addresses, Base, Chain, ChainRef, Family, FibKind, Hook, Match, Owner, Rule, SharedRule,
    SharedRules, SharedTable, Table, TableFamily, Verdict,
};
use netstate::route::{host, masked};
use protocol::Attachment;

use crate::owner;
use crate::portmap::config::{Mapping, Masquerade};

const TABLE: &str = "cni_hostport";
/// Mappings of one address of the host.
const ONE_ADDRESS: &str = "hostip_hostports";
/// Mappings of every address of the host.
const EVERY_ADDRESS: &str = "hostports";
const MASQUERADING: &str = "masquerading";
const DESTINATION_NAT_PRIORITY: i32 = -100;
const SOURCE_NAT_PRIORITY: i32 = 100;
const COMMENT_MAX: usize = 128;

/// The chains that hold rules of attachments.
#[must_use]
pub fn chains() -> Vec<ChainRef> {
    let families = [TableFamily::Ip, TableFamily::Ip6];
    let of = |family| {
        [ONE_ADDRESS, EVERY_ADDRESS, MASQUERADING].map(|chain| ChainRef::of(family, TABLE, chain))
    };
    families.into_iter().flat_map(of).collect()
}

/// Whose the rules of an attachment are.
#[must_use]
pub fn owner(network: &str, attachment: &Attachment) -> Owner {
    Owner::tagged(
        comment(&attachment.container_id),
        owner::instance(network, attachment),
    )
}

/// Container IDs are ASCII.
fn comment(container_id: &str) -> String {
    container_id.chars().take(COMMENT_MAX).collect()
}

/// The table of one family with the rules that lead `mappings` to `pod`, which is of that family,
/// with its subnet's prefix length.
#[must_use]
pub fn table(
    pod: IpNetwork,
    mappings: &[&Mapping],
    conditions: &[Vec<Match>],
    masquerade: Masquerade,
) -> SharedTable {
    let family = match Family::of(&pod) {
        Family::V4 => TableFamily::Ip,
        Family::V6 => TableFamily::Ip6,
    };
    let mut rules = Vec::new();
    for mapping in mappings {
        let (chain, address) = match mapping.address() {
            Some(ip) => {
                let address = Match::Destination(Addresses::Prefix(host(ip)));
                (ONE_ADDRESS, Some(address))
            }
            None => (EVERY_ADDRESS, None),
        };
        for alternative in conditions {
            let mut matches = alternative.clone();
            matches.extend(address.clone());
            matches.push(Match::Protocol(mapping.protocol.number()));
            matches.push(Match::DestinationPort(mapping.host_port));
            let target = Verdict::Dnat {
                address: pod.ip(),
                port: Some(mapping.container_port),
            };
            // Before those of others: what is left of a dead pod must not take a new one's packets.
            rules.push(SharedRule::first(chain, Rule::new(matches, target)));
        }
    }
    let masqueraded = masqueraded(pod, mappings, masquerade).into_iter();
    rules.extend(masqueraded.map(|rule| SharedRule::last(MASQUERADING, rule)));
    SharedTable {
        frame: frame(family),
        rules,
    }
}

/// Who connects from the pod's own subnet, the pod itself included, is not answered through this
/// host, and 127.0.0.1 means something else to the pod. The first packet's port tells a mapping
/// from everything else that is on its way to the pod.
fn masqueraded(pod: IpNetwork, mappings: &[&Mapping], masquerade: Masquerade) -> Vec<Rule> {
    let from = match masquerade {
        Masquerade::Nobody => return Vec::new(),
        Masquerade::Needed => Some(Match::Source(Addresses::Prefix(masked(pod)))),
        Masquerade::Everybody => None,
    };
    let to = Match::Destination(Addresses::Prefix(host(pod.ip())));
    let random_fully = false;
    let rule = |matches| Rule::new(matches, Verdict::Masquerade { random_fully });
    let mut rules = Vec::new();
    for mapping in mappings {
        let mut matches: Vec<Match> = from.iter().cloned().collect();
        matches.extend([
            to.clone(),
            Match::Dnatted,
            Match::Protocol(mapping.protocol.number()),
            Match::OriginalDestinationPort(mapping.host_port),
        ]);
        let masqueraded = rule(matches);
        // One port may be mapped on several addresses.
        if !rules.contains(&masqueraded) {
            rules.push(masqueraded);
        }
    }
    let loopback = IpNetwork::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8);
    if let (true, Some(_), Ok(loopback)) = (pod.is_ipv4(), from, loopback) {
        let from = Match::Source(Addresses::Prefix(loopback));
        rules.push(rule(vec![from, to]));
    }
    rules
}

fn frame(family: TableFamily) -> Table {
    let jump = |matches, chain: &str| Rule::new(matches, Verdict::Jump(chain.to_owned()));
    let entry = || {
        vec![
            jump(vec![], ONE_ADDRESS),
            jump(vec![Match::DestinationKind(FibKind::Local)], EVERY_ADDRESS),
        ]
    };
    let destination = |hook| Chain::base(Base::nat(hook, DESTINATION_NAT_PRIORITY), entry());
    let source = Base::nat(Hook::Postrouting, SOURCE_NAT_PRIORITY);
    let mut table = Table::of(family, TABLE);
    let chains = [
        (ONE_ADDRESS, Chain::default()),
        (EVERY_ADDRESS, Chain::default()),
        ("prerouting", destination(Hook::Prerouting)),
        ("output", destination(Hook::Output)),
        (MASQUERADING, Chain::base(source, vec![])),
    ];
    table.chains = chains.map(|(name, chain)| (name.to_owned(), chain)).into();
    table
}

/// Which of `rules` DEL removes: the attachment's, or where it has none, those that the reference
/// made for the container and those of the attachment under another name of the network. The latter
/// lead to one of `addresses`, if the runtime gave them.
#[must_use]
pub fn deleted(
    rules: Vec<OwnedRule>,
    network: &str,
    attachment: &Attachment,
    addresses: Option<&[IpAddr]>,
) -> Vec<OwnedRule> {
    let own = owner(network, attachment);
    if rules.iter().any(|rule| rule.owner == own) {
        return rules.into_iter().filter(|r| r.owner == own).collect();
    }
    let instance = own.tag.as_deref().unwrap_or_default();
    let same_attachment = instance.rsplit('-').next().unwrap_or_default();
    let is_other_name = |owner: &Owner| {
        let tag = owner.tag.as_deref().unwrap_or_default();
        owner.comment == own.comment && tag.rsplit('-').next() == Some(same_attachment)
    };
    let leads_here = |owner: &Owner| {
        let Some(addresses) = addresses else {
            return true;
        };
        let mut of_owner = rules.iter().filter(|rule| rule.owner == *owner);
        of_owner.any(|r| r.redirect.is_some_and(|to| addresses.contains(&to.address)))
    };
    let is_ours = |owner: &Owner| match owner.tag {
        None => owner.comment == own.comment,
        Some(_) => is_other_name(owner) && leads_here(owner),
    };
    let ours = rules.iter().filter(|rule| is_ours(&rule.owner));
    ours.cloned().collect()
}

/// Which of `rules` GC removes: those of attachments of `network` that are not in `valid`. Rules that
/// the reference made say no network, and stay.
#[must_use]
pub fn swept(rules: Vec<OwnedRule>, network: &str, valid: &[Attachment]) -> Vec<OwnedRule> {
    let is_stale = owner::is_stale(network, valid);
    let tagged = |rule: &OwnedRule| rule.owner.tag.as_deref().is_some_and(&is_stale);
    rules.into_iter().filter(tagged).collect()
}

/// Whether rules that the reference made for the container lead every one of `mappings` to `pod`.
#[must_use]
pub fn is_mapped_by_reference(
    rules: &[OwnedRule],
    container_id: &str,
    pod: IpNetwork,
    mappings: &[&Mapping],
) -> bool {
    let owner = Owner::commented(comment(container_id));
    let redirects: Vec<_> = rules
        .iter()
        .filter(|rule| rule.owner == owner)
        .filter_map(|rule| rule.redirect)
        .collect();
    mappings.iter().all(|mapping| {
        redirects.iter().any(|redirect| {
            redirect.protocol == mapping.protocol.number()
                && redirect.port == mapping.host_port
                && redirect.address == pod.ip()
                && redirect.target_port == Some(mapping.container_port)
        })
    })
}

/// The rules of an attachment.
#[must_use]
pub fn rules(network: &str, attachment: &Attachment, tables: Vec<SharedTable>) -> SharedRules {
    let owner = owner(network, attachment);
    SharedRules { owner, tables }
}
