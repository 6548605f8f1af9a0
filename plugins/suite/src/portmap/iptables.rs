//! PURE: port mappings as rules of the iptables programs.
//!
//! Chains and comments are the reference plugin's. A comment goes on with the interface, which the
//! reference does not say, so that two interfaces of one container share a chain in peace.

mod removal;

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netstate::iptables::{Batch, Rule, Saved};
use netstate::route::masked;
use protocol::Attachment;
use sha2::{Digest, Sha512};

use crate::portmap::config::{Mapping, Marking, Masquerade, Protocol};

pub use removal::{clear, delete, sweep};

/// The table.
pub const TABLE: &str = "nat";
/// The chain that leads to every container's.
pub const ENTRY: &str = "CNI-HOSTPORT-DNAT";
const SET_MARK: &str = "CNI-HOSTPORT-SETMARK";
const MASQUERADE: &str = "CNI-HOSTPORT-MASQ";
const CHAIN_NAME_MAX: usize = 28;
const COMMENT_MAX: usize = 255;
/// What one match of several ports holds.
const PORTS_MAX: usize = 15;

/// The rules of one attachment and family.
#[derive(Debug, Clone)]
pub struct Wanted {
    names: Names,
    marking: Option<Marking>,
    conditions: Vec<String>,
    /// Protocol and ports of the rules that lead to the container's chain.
    ports: Vec<(Protocol, String)>,
    rules: Vec<Rule>,
}

#[derive(Debug, Clone)]
struct Names {
    chain: String,
    /// Of the rule that leads to the chain.
    comment: String,
    /// The same as the reference writes it.
    reference: String,
    /// Of the rules in the chain.
    interface: String,
    /// How comments of the attachment end under whatever name of the network.
    ending: String,
}

// === impl Names ===

impl Names {
    fn of(network: &str, attachment: &Attachment) -> Self {
        let Attachment {
            container_id,
            ifname,
        } = attachment;
        let reference = format!("dnat name: \"{network}\" id: \"{container_id}\"");
        let interface = format!("if: \"{ifname}\"");
        Self {
            chain: chain(network, container_id),
            comment: trimmed(format!("{reference} {interface}")),
            reference: trimmed(reference),
            ending: format!(" id: \"{container_id}\" {interface}"),
            interface,
        }
    }
}

/// `CNI-DN-` and a hash of network and container.
fn chain(network: &str, container_id: &str) -> String {
    let digest = Sha512::digest(format!("{network}{container_id}").as_bytes());
    let mut name = "CNI-DN-".to_owned();
    for byte in digest {
        name.push_str(&format!("{byte:02x}"));
    }
    name.truncate(CHAIN_NAME_MAX);
    name
}

fn trimmed(mut comment: String) -> String {
    if comment.len() > COMMENT_MAX {
        while comment.len() > COMMENT_MAX - 3 {
            comment.pop();
        }
        comment.push_str("...");
    }
    comment
}

// === impl Wanted ===

impl Wanted {
    /// What leads `mappings` to `pod`, all of one family.
    #[must_use]
    pub fn new(
        network: &str,
        attachment: &Attachment,
        pod: IpNetwork,
        mappings: &[&Mapping],
        masquerade: Masquerade,
        (marking, conditions): (&Marking, &[String]),
    ) -> Self {
        let names = Names::of(network, attachment);
        let marking = (masquerade != Masquerade::Nobody).then(|| marking.clone());
        let mut rules = Vec::new();
        for mapping in mappings {
            for source in sources(pod, masquerade) {
                let target = match &marking {
                    Some(Marking::Chain(chain)) => chain,
                    _ => SET_MARK,
                };
                let rule = matching(source.as_deref(), mapping).comment(&names.interface);
                rules.push(rule.jump(target));
            }
            let rule = matching(None, mapping)
                .comment(&names.interface)
                .jump("DNAT");
            let port = mapping.container_port;
            let target = match pod.ip() {
                IpAddr::V4(ip) => format!("{ip}:{port}"),
                IpAddr::V6(ip) => format!("[{ip}]:{port}"),
            };
            rules.push(rule.and(["--to-destination", &target]));
        }
        Self {
            names,
            marking,
            conditions: conditions.to_vec(),
            ports: ports(mappings),
            rules,
        }
    }

    /// The changes that make it so.
    #[must_use]
    pub fn add(&self, saved: &Saved) -> Batch {
        let mut batch = Batch::new(TABLE);
        let chain = &*self.names.chain;
        let frame = self.frame();
        let mut chains = BTreeSet::from([ENTRY, chain]);
        chains.extend(frame.iter().map(|(name, ..)| *name));
        for name in chains.into_iter().filter(|name| name.starts_with("CNI-")) {
            batch.ensure_chain(saved, name);
        }
        for (name, rule, first) in frame {
            if first {
                batch.ensure_first(saved, name, rule);
            } else {
                batch.ensure_last(saved, name, rule);
            }
        }
        batch.delete_where(saved, ENTRY, |rule| self.is_own_entry(rule));
        batch.delete_where(saved, chain, |rule| self.is_own(rule));
        for rule in &self.rules {
            batch.append(chain, rule.clone());
        }
        for entry in self.entries() {
            // Before those of others: what is left of a dead pod must not take a new one's packets.
            batch.insert(ENTRY, 1, entry);
        }
        batch
    }

    /// What is missing or differs, in words. Rules that the reference made are as good as ours.
    #[must_use]
    pub fn damage(&self, saved: &Saved) -> Option<String> {
        let chain = &self.names.chain;
        for (name, rule, _) in self.frame() {
            if !saved.has(name, &rule) {
                return Some(format!("rule {rule} of iptables chain {name} is gone"));
            }
        }
        let entries: Vec<&Rule> = saved
            .rules(ENTRY)
            .iter()
            .filter(|rule| rule.target() == Some(chain))
            .collect();
        for (protocol, ports) in &self.ports {
            let is_entry = |rule: &&&Rule| {
                let comment = rule.value("--comment");
                rule.value("-p") == Some(protocol.name())
                    && rule.value("--dports") == Some(ports)
                    && [&self.names.comment, &self.names.reference]
                        .into_iter()
                        .any(|ours| comment == Some(ours))
            };
            if entries.iter().find(is_entry).is_none() {
                return Some(format!(
                    "iptables chain {ENTRY} leads no {protocol} {ports} to {chain}"
                ));
            }
        }
        let there: Vec<Rule> = saved.rules(chain).iter().map(without_comment).collect();
        let missing = self
            .rules
            .iter()
            .map(without_comment)
            .find(|rule| !there.contains(rule));
        missing.map(|rule| format!("rule {rule} of iptables chain {chain} is gone"))
    }

    fn entries(&self) -> Vec<Rule> {
        let entry = |(protocol, ports): &(Protocol, String)| {
            let rule = Rule::of(&format!("-p {protocol}")).comment(&self.names.comment);
            let rule = rule.and(["-m", "multiport", "--dports", ports]);
            rule.and(&self.conditions).jump(&self.names.chain)
        };
        self.ports.iter().map(entry).collect()
    }

    fn is_own_entry(&self, rule: &Rule) -> bool {
        rule.target() == Some(&self.names.chain)
            && rule.value("--comment") == Some(&self.names.comment)
    }

    fn is_own(&self, rule: &Rule) -> bool {
        rule.value("--comment") == Some(&self.names.interface)
    }

    /// The rules that all share: chain, rule, and whether it comes first.
    fn frame(&self) -> Vec<(&'static str, Rule, bool)> {
        let local = || Rule::of("-m addrtype --dst-type LOCAL").jump(ENTRY);
        let mut frame = vec![("PREROUTING", local(), false), ("OUTPUT", local(), false)];
        if let Some(Marking::Bit(bit)) = self.marking {
            let mark = format!("{0:#x}/{0:#x}", 1_u32 << bit);
            let set = Rule::of("")
                .comment("CNI portfwd masquerade mark")
                .jump("MARK");
            frame.push((SET_MARK, set.and(["--set-xmark", &mark]), false));
            let masquerade = Rule::of(&format!("-m mark --mark {mark}")).jump("MASQUERADE");
            frame.push((MASQUERADE, masquerade, false));
            let jump = Rule::of("")
                .comment("CNI portfwd requiring masquerade")
                .jump(MASQUERADE);
            // What the masquerading of bridge and ptp accepts would never come here.
            frame.push(("POSTROUTING", jump, true));
        }
        frame
    }
}

/// The sources whose packets are marked; one that is `None` is any.
fn sources(pod: IpNetwork, masquerade: Masquerade) -> Vec<Option<String>> {
    match masquerade {
        Masquerade::Nobody => Vec::new(),
        Masquerade::Everybody => vec![None],
        Masquerade::Needed => {
            let mut sources = vec![Some(masked(pod).to_string())];
            if pod.is_ipv4() {
                sources.push(Some("127.0.0.1/32".to_owned()));
            }
            sources
        }
    }
}

fn matching(source: Option<&str>, mapping: &Mapping) -> Rule {
    let mut text = String::new();
    if let Some(source) = source {
        text += &format!("-s {source} ");
    }
    if let Some(ip) = mapping.address() {
        text += &format!("-d {ip}/{} ", if ip.is_ipv4() { 32 } else { 128 });
    }
    let (protocol, port) = (mapping.protocol, mapping.host_port);
    Rule::of(&format!("{text}-p {protocol} -m {protocol} --dport {port}"))
}

/// The ports of `mappings` by protocol, in lists short enough for one match.
fn ports(mappings: &[&Mapping]) -> Vec<(Protocol, String)> {
    let mut lists = Vec::new();
    for protocol in [Protocol::Sctp, Protocol::Tcp, Protocol::Udp] {
        let of_protocol = mappings.iter().filter(|m| m.protocol == protocol);
        let ports: BTreeSet<u16> = of_protocol.map(|mapping| mapping.host_port).collect();
        let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
        lists.extend(
            ports
                .chunks(PORTS_MAX)
                .map(|part| (protocol, part.join(","))),
        );
    }
    lists
}

fn without_comment(rule: &Rule) -> Rule {
    let words = rule.words();
    let Some(at) = words.windows(3).position(|w| w[..2] == ["-m", "comment"]) else {
        return rule.clone();
    };
    let kept = words[..at].iter().chain(words.iter().skip(at + 4));
    Rule::default().and(kept)
}
