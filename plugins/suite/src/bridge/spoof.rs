//! `macspoofchk`: frames that a pod sends under another Ethernet address are discarded.
//!
//! Table, chains and comments are the reference plugin's, so that either side removes what the
//! other has made: `PREROUTING` jumps by the host's end to a chain of the attachment, that to a
//! second one, which lets the pod's own address return and drops the rest. The jump also carries
//! the network's name, by which GC knows whose it is.

use std::collections::BTreeSet;

use hostnet::{Netlink, Nftables};
use netstate::nft::{
    Base, Chain, ChainRef, DeviceName, Hook, Match, Owner, Rule, SharedRule, SharedRules,
    SharedTable, Table, TableFamily, Verdict,
};
use netstate::{IfName, Op, Step};
use protocol::{Attachment, Error, Request};

use crate::pair::Pair;
use crate::pod;

const TABLE: &str = "nat";
const ENTRY: &str = "PREROUTING";
const PRIORITY: i32 = -300;
const CHAIN_PREFIX: &str = "cni-br-iface-";
const MAC_SUFFIX: &str = "-mac";
const COMMENT_PREFIX: &str = "macspoofchk-";
/// Longest comment and longest tag in bytes.
const COMMENT_MAX: usize = 128;
const TAG_MAX: usize = 100;

/// PURE: the step that makes the rules.
#[must_use]
pub fn step(request: &Request<'_>, pair: &Pair) -> Step {
    let attachment = request.attachment();
    let [device_chain, mac_chain] = chains(&attachment);
    let jump = |to: &str| Verdict::Jump(to.to_owned());
    let comes_by = Match::InDevice(DeviceName::Is(pair.host.clone()));
    let own_mac = Match::EthernetSource(pair.pod_mac);
    let rules = vec![
        SharedRule::last(ENTRY, Rule::new(vec![comes_by], jump(&device_chain))),
        SharedRule::last(&device_chain, Rule::new(vec![], jump(&mac_chain))),
        SharedRule::last(&mac_chain, Rule::new(vec![own_mac], Verdict::Return)),
        SharedRule::last(&mac_chain, Rule::new(vec![], Verdict::Drop)),
    ];
    let mut frame = Table::new(TABLE);
    frame.family = TableFamily::Bridge;
    let entry = Chain::base(Base::filter(Hook::Prerouting, PRIORITY), vec![]);
    frame.chains.insert(ENTRY.to_owned(), entry);
    for chain in [device_chain, mac_chain] {
        frame.chains.insert(chain, Chain::default());
    }
    Step::host(Op::AddRules(SharedRules {
        owner: Owner::tagged(comment(&attachment), clipped(&request.network, TAG_MAX)),
        tables: vec![SharedTable { frame, rules }],
    }))
}

/// Removes the attachment's rules and chains; absent ones are no error.
///
/// # Errors
/// When the kernel refuses.
pub fn remove(request: &Request<'_>, nftables: &mut Nftables) -> Result<(), Error> {
    let attachment = request.attachment();
    let chains = chains(&attachment);
    let own = comment(&attachment);
    // Without its first chain there is no rule that jumps there either.
    let removed = match nftables.rule_count(&chain(&chains[0])) {
        Ok(Some(_)) => nftables.remove_chains(&chain(ENTRY), &|o| o.comment == own, &chains),
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    removed.map_err(|error| pod::kernel(&error))
}

/// Removes the rules and chains of attachments of this network that are not in `valid`, if the
/// runtime said which are. Rules of the reference plugin name no network; they are removed when
/// neither the runtime nor the host knows their interface any more.
///
/// # Errors
/// When the kernel refuses.
pub fn sweep(request: &Request<'_>, valid: Option<&[Attachment]>) -> Result<(), Error> {
    let Some(valid) = valid else { return Ok(()) };
    stale(&clipped(&request.network, TAG_MAX), valid).map_err(|error| pod::kernel(&error))
}

fn stale(network: &str, valid: &[Attachment]) -> hostnet::Result<()> {
    let mut nftables = Nftables::open()?;
    let rules = nftables.rules_by_device(&chain(ENTRY))?;
    if rules.is_empty() {
        return Ok(());
    }
    // Asked for after the rules: an interface is made before its rules are.
    let links = Netlink::open()?.links()?;
    let present: BTreeSet<&IfName> = links.iter().map(|link| &link.name).collect();
    let kept: BTreeSet<String> = valid.iter().map(comment).collect();
    let is_stale = |owner: &Owner, device: Option<&IfName>| {
        let ours = owner.comment.starts_with(COMMENT_PREFIX) && !kept.contains(&owner.comment);
        let lost = || device.is_some_and(|device| !present.contains(device));
        ours && owner.tag.as_deref().map_or_else(lost, |tag| tag == network)
    };
    for (owner, device) in rules {
        if !is_stale(&owner, device.as_ref()) {
            continue;
        }
        let reference = owner.comment.trim_start_matches(COMMENT_PREFIX);
        let chains = named(reference);
        nftables.remove_chains(&chain(ENTRY), &|found| *found == owner, &chains)?;
    }
    Ok(())
}

/// Whether all rules of the attachment are there.
///
/// # Errors
/// When one is missing.
pub fn check(request: &Request<'_>) -> Result<(), Error> {
    let attachment = request.attachment();
    let [device_chain, mac_chain] = chains(&attachment);
    let own = comment(&attachment);
    let count = Nftables::open().and_then(|mut nftables| {
        let mut count = 0;
        for name in [ENTRY, &device_chain, &mac_chain] {
            let owners = nftables.rule_owners(&chain(name))?;
            count += owners.iter().filter(|owner| owner.comment == own).count();
        }
        Ok(count)
    });
    if count.map_err(|error| pod::kernel(&error))? >= 4 {
        return Ok(());
    }
    let container = &request.container_id;
    let msg = format!("the check of {container}'s Ethernet address is gone");
    Err(Error::other(msg))
}

fn chain(name: &str) -> ChainRef {
    ChainRef::of(TableFamily::Bridge, TABLE, name)
}

fn reference(attachment: &Attachment) -> String {
    format!("{}-{}", attachment.container_id, attachment.ifname)
}

/// The chain of the host's end, and the one of the pod's address.
fn chains(attachment: &Attachment) -> [String; 2] {
    named(&reference(attachment))
}

fn named(reference: &str) -> [String; 2] {
    let first = format!("{CHAIN_PREFIX}{reference}");
    let second = format!("{first}{MAC_SUFFIX}");
    [first, second]
}

fn comment(attachment: &Attachment) -> String {
    clipped(
        &format!("{COMMENT_PREFIX}{}", reference(attachment)),
        COMMENT_MAX,
    )
}

fn clipped(text: &str, max: usize) -> String {
    let mut text = text.to_owned();
    while text.len() > max {
        text.pop();
    }
    text
}
