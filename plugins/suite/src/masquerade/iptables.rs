//! Masquerading by iptables. Chains and the rules that jump to them are the reference plugins', so
//! that either side removes what the other has made. Theirs belong to a container; the rules within
//! a chain of ours say in their comment which interface they are for.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use hostnet::{ErrorKind, iptables};
use ipnetwork::IpNetwork;
use netstate::iptables::{Batch, Rule, Saved};
use netstate::nft::Family;
use netstate::route::{host, masked};
use protocol::{Attachment, Error, IpConfig};
use sha2::{Digest, Sha512};

use crate::pod;

const TABLE: &str = "nat";
const ENTRY: &str = "POSTROUTING";
/// The longest comment in bytes (`XT_MAX_COMMENT_LEN` with its zero is one more).
const COMMENT_MAX: usize = 255;
/// Length of a chain's name.
const CHAIN_MAX: usize = 28;
const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// Masquerades `ips`.
pub(super) fn add(network: &str, attachment: &Attachment, ips: &[IpConfig]) -> Result<(), Error> {
    for family in FAMILIES {
        let own: Vec<&IpConfig> = ips
            .iter()
            .filter(|ip| Family::of(&ip.address) == family)
            .collect();
        if own.is_empty() {
            continue;
        }
        let plan = |saved: &Saved| addition(saved, network, attachment, &own);
        if let Err(error) = iptables::update(family, TABLE, &plan) {
            let error = pod::kernel(&error);
            return Err(match remove(network, attachment, ips) {
                Ok(()) => error,
                Err(second) => error.details(format!("then, undoing: {second}")),
            });
        }
    }
    Ok(())
}

/// Removes the attachment's rules; `known` are its addresses, as far as they are known.
pub(super) fn remove(
    network: &str,
    attachment: &Attachment,
    known: &[IpConfig],
) -> Result<(), Error> {
    let chain = chain_name(network, &attachment.container_id);
    let mut outcome = Ok(());
    for family in FAMILIES {
        let removed = iptables::may_have_chain(family, TABLE, &chain).and_then(|may| {
            let plan = |saved: &Saved| removal(saved, network, attachment, known);
            if may {
                iptables::update(family, TABLE, &plan)
            } else {
                Ok(())
            }
        });
        outcome = outcome.and(tolerant(removed));
    }
    outcome
}

/// Removes the rules of this network's attachments that are not in `valid`.
pub(super) fn sweep(network: &str, valid: &[Attachment]) -> Result<(), Error> {
    let mut outcome = Ok(());
    for family in FAMILIES {
        let swept = iptables::has_table(family, TABLE).and_then(|has| {
            let plan = |saved: &Saved| sweeping(saved, network, valid);
            if has {
                iptables::update(family, TABLE, &plan)
            } else {
                Ok(())
            }
        });
        outcome = outcome.and(tolerant(swept));
    }
    outcome
}

/// Whether `ips` are masqueraded.
pub(super) fn is_there(
    network: &str,
    attachment: &Attachment,
    ips: &[IpConfig],
) -> Result<bool, Error> {
    let failed = |error: hostnet::Error| pod::kernel(&error);
    let chain = chain_name(network, &attachment.container_id);
    for family in FAMILIES {
        let mut own = ips
            .iter()
            .filter(|ip| Family::of(&ip.address) == family)
            .peekable();
        if own.peek().is_none() {
            continue;
        }
        if !iptables::may_have_chain(family, TABLE, &chain).map_err(failed)? {
            return Ok(false);
        }
        let saved = iptables::save(family, TABLE).map_err(failed)?;
        let masquerades = |rule: &Rule| rule.target() == Some("MASQUERADE");
        let jumps = |ip: &IpConfig| {
            let source = host(ip.address.ip());
            saved
                .rules(ENTRY)
                .iter()
                .any(|rule| rule.target() == Some(&chain) && source_of(rule) == Some(source))
        };
        if !saved.rules(&chain).iter().any(masquerades) || !own.all(jumps) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A table that no program here can change holds nothing that one of ours has made.
fn tolerant(outcome: hostnet::Result<()>) -> Result<(), Error> {
    match outcome {
        Err(error) if error.kind == ErrorKind::Unsupported => {
            eprintln!("masquerading rules are not looked for: {error}");
            Ok(())
        }
        other => other.map_err(|error| pod::kernel(&error)),
    }
}

/// PURE: the rules of `ips`, all of one family.
fn addition(saved: &Saved, network: &str, attachment: &Attachment, ips: &[&IpConfig]) -> Batch {
    let chain = chain_name(network, &attachment.container_id);
    let common = comment(network, &attachment.container_id);
    let own = own_comment(network, attachment);
    let mut batch = Batch::new(TABLE);
    batch.ensure_chain(saved, &chain);
    for ip in ips {
        let (source, subnet) = (host(ip.address.ip()), masked(ip.address));
        let multicast = if ip.address.is_ipv4() {
            "224.0.0.0/4"
        } else {
            "ff00::/8"
        };
        let within = Rule::of(&format!("-s {source} -d {subnet}"));
        let beyond = Rule::of(&format!("-s {source} ! -d {multicast}"));
        let jump = Rule::of(&format!("-s {source}"));
        batch
            .ensure_last(saved, &chain, within.comment(&own).jump("ACCEPT"))
            .ensure_last(saved, &chain, beyond.comment(&own).jump("MASQUERADE"))
            .ensure_last(saved, ENTRY, jump.comment(&common).jump(&chain));
    }
    batch
}

/// PURE: the removal of an attachment's rules, and of its container's chain when nothing else of
/// the container needs it.
fn removal(saved: &Saved, network: &str, attachment: &Attachment, known: &[IpConfig]) -> Batch {
    let mut batch = Batch::new(TABLE);
    let chain = chain_name(network, &attachment.container_id);
    let is_own = |rule: &Rule| interface_of(rule) == Some(&attachment.ifname);
    let rules = saved.rules(&chain);
    let others = rules
        .iter()
        .any(|rule| interface_of(rule).is_some() && !is_own(rule));
    let mut sources: BTreeSet<IpNetwork> = known.iter().map(|ip| host(ip.address.ip())).collect();
    sources.extend(
        rules
            .iter()
            .filter(|rule| is_own(rule))
            .filter_map(source_of),
    );
    // The reference plugins of old jumped from the whole subnet.
    let from_own = |rule: &Rule| {
        let source = source_of(rule);
        let within = |ip: &IpNetwork| source.is_some_and(|source| source.contains(ip.ip()));
        sources.iter().any(within) || (sources.is_empty() && !others)
    };
    let jumps = |rule: &Rule| rule.target() == Some(&chain);
    let needed = saved
        .rules(ENTRY)
        .iter()
        .any(|rule| jumps(rule) && !from_own(rule));
    batch.delete_where(saved, ENTRY, |rule| jumps(rule) && from_own(rule));
    if needed || others {
        batch.delete_where(saved, &chain, is_own);
    } else if saved.chains.contains_key(&chain) {
        batch.flush_chain(&chain).delete_chain(&chain);
    }
    batch
}

/// PURE: the removal of what belongs to attachments of `network` that are not in `valid`.
fn sweeping(saved: &Saved, network: &str, valid: &[Attachment]) -> Batch {
    let mut batch = Batch::new(TABLE);
    let chains = saved.chains.values();
    let comments = chains
        .flat_map(|chain| &chain.rules)
        .filter_map(|rule| rule.value("--comment"));
    let containers: BTreeSet<&str> = comments.filter_map(|c| container_of(c, network)).collect();
    for container in containers {
        let chain = chain_name(network, container);
        let kept: Vec<&str> = valid
            .iter()
            .filter(|one| one.container_id == container)
            .map(|one| one.ifname.as_str())
            .collect();
        if kept.is_empty() {
            batch.delete_where(saved, ENTRY, |rule| rule.target() == Some(&chain));
            if saved.chains.contains_key(&chain) {
                batch.flush_chain(&chain).delete_chain(&chain);
            }
            continue;
        }
        let is_stale = |rule: &Rule| interface_of(rule).is_some_and(|name| !kept.contains(&name));
        let rules = saved.rules(&chain).iter();
        let sources: BTreeSet<IpNetwork> = rules
            .filter(|rule| is_stale(rule))
            .filter_map(source_of)
            .collect();
        batch.delete_where(saved, &chain, is_stale);
        batch.delete_where(saved, ENTRY, |rule| {
            let source = source_of(rule);
            rule.target() == Some(&chain) && source.is_some_and(|ip| sources.contains(&ip))
        });
    }
    batch
}

fn chain_name(network: &str, container_id: &str) -> String {
    let mut name = "CNI-".to_owned();
    for byte in Sha512::digest(format!("{network}{container_id}")) {
        // Writing to a String does not fail.
        let _ = write!(name, "{byte:02x}");
    }
    name.truncate(CHAIN_MAX);
    name
}

fn comment(network: &str, container_id: &str) -> String {
    clipped(format!("name: \"{network}\" id: \"{container_id}\""))
}

fn own_comment(network: &str, attachment: &Attachment) -> String {
    let Attachment {
        container_id,
        ifname,
    } = attachment;
    let common = comment(network, container_id);
    clipped(format!("if: \"{ifname}\" {common}"))
}

fn clipped(mut text: String) -> String {
    while text.len() > COMMENT_MAX {
        text.pop();
    }
    text
}

/// The interface that a rule of ours is for; `None` for a rule of the reference plugins.
fn interface_of(rule: &Rule) -> Option<&str> {
    let rest = rule.value("--comment")?.strip_prefix("if: \"")?;
    rest.split_once("\" name: ").map(|(name, _)| name)
}

/// The container that a comment names, if it is of `network`.
fn container_of<'a>(comment: &'a str, network: &str) -> Option<&'a str> {
    let start = format!("name: \"{network}\" id: \"");
    let at = comment.find(&start)?;
    // Other plugins' comments begin with other words.
    if at != 0 && !comment.starts_with("if: \"") {
        return None;
    }
    comment[at + start.len()..].strip_suffix('"')
}

fn source_of(rule: &Rule) -> Option<IpNetwork> {
    rule.value("-s")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;

    use super::*;

    fn attachment(ifname: &str) -> Attachment {
        Attachment {
            container_id: "c1".into(),
            ifname: ifname.into(),
        }
    }

    fn ip(address: &str) -> IpConfig {
        IpConfig {
            interface: None,
            address: address.parse().unwrap(),
            gateway: None,
        }
    }

    fn lines(batch: &Batch) -> Vec<String> {
        let text = batch.render().unwrap();
        let inner = text.lines().filter(|line| !line.starts_with('*'));
        inner
            .filter(|line| *line != "COMMIT")
            .map(str::to_owned)
            .collect()
    }

    /// What the table holds after `batch`, which only adds.
    fn saved(batch: &Batch) -> Saved {
        let text = batch.render().unwrap().replace("-N ", ":");
        Saved::parse(&text, TABLE)
    }

    #[test]
    fn chain_and_jump_are_the_reference_plugins() {
        let ip = ip("10.1.0.5/24");
        let batch = addition(&Saved::default(), "net", &attachment("eth0"), &[&ip]);
        // printf netc1 | sha512sum | cut -c-24
        let chain = chain_name("net", "c1");
        assert_eq!(chain.len(), 28);
        let common = r#"-m comment --comment "name: \"net\" id: \"c1\"""#;
        let own = r#"-m comment --comment "if: \"eth0\" name: \"net\" id: \"c1\"""#;
        assert_eq!(
            lines(&batch),
            [
                format!("-N {chain}"),
                format!("-A {chain} -s 10.1.0.5/32 -d 10.1.0.0/24 {own} -j ACCEPT"),
                format!("-A {chain} -s 10.1.0.5/32 ! -d 224.0.0.0/4 {own} -j MASQUERADE"),
                format!("-A POSTROUTING -s 10.1.0.5/32 {common} -j {chain}"),
            ]
        );
        let again = addition(&saved(&batch), "net", &attachment("eth0"), &[&ip]);
        assert!(again.is_empty());
    }

    #[test]
    fn an_interface_leaves_its_containers_other_one_alone() {
        let (first, second) = (ip("10.1.0.5/24"), ip("10.1.0.6/24"));
        let mut both = addition(&Saved::default(), "net", &attachment("eth0"), &[&first])
            .render()
            .unwrap();
        let after_first = Saved::parse(&both.replace("-N ", ":"), TABLE);
        both += &addition(&after_first, "net", &attachment("eth1"), &[&second])
            .render()
            .unwrap();
        let both = Saved::parse(&both.replace("-N ", ":"), TABLE);
        let chain = chain_name("net", "c1");
        let gone = lines(&removal(&both, "net", &attachment("eth1"), &[]));
        assert_eq!(gone.len(), 3, "{gone:?}");
        assert!(gone.iter().all(|line| line.contains("-s 10.1.0.6/32")));
        let kept = [attachment("eth0")];
        assert_eq!(lines(&sweeping(&both, "net", &kept)).len(), 3);
        assert!(sweeping(&both, "other", &[]).is_empty());
        let all = lines(&sweeping(&both, "net", &[]));
        assert_eq!(all.last(), Some(&format!("-X {chain}")));
    }

    #[test]
    fn what_the_reference_plugins_made_is_removed() {
        let chain = chain_name("net", "c1");
        let comment = r#"-m comment --comment "name: \"net\" id: \"c1\"""#;
        let text = format!(
            "*nat\n:POSTROUTING ACCEPT [0:0]\n:{chain} - [0:0]\n\
             -A POSTROUTING -s 10.1.0.5/32 {comment} -j {chain}\n\
             -A {chain} -d 10.1.0.0/24 {comment} -j ACCEPT\n\
             -A {chain} ! -d 224.0.0.0/4 {comment} -j MASQUERADE\nCOMMIT\n"
        );
        let theirs = Saved::parse(&text, TABLE);
        let everything = [
            format!("-D POSTROUTING -s 10.1.0.5/32 {comment} -j {chain}"),
            format!("-F {chain}"),
            format!("-X {chain}"),
        ];
        let one = attachment("eth0");
        assert_eq!(lines(&removal(&theirs, "net", &one, &[])), everything);
        let known = [ip("10.1.0.5/24")];
        assert_eq!(lines(&removal(&theirs, "net", &one, &known)), everything);
        assert_eq!(lines(&sweeping(&theirs, "net", &[])), everything);
        assert!(sweeping(&theirs, "net", &[one]).is_empty());
        // Another of the container's interfaces is still in use.
        let other = [ip("10.1.0.9/24")];
        assert!(removal(&theirs, "net", &attachment("eth1"), &other).is_empty());
    }
}
