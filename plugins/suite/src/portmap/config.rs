//! The network configuration of `portmap`.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use netstate::nft::{Family, Match};
use protocol::{Error, Request};
use serde::Deserialize;

use crate::portmap::conditions;

/// The default, which is the reference's; Kubernetes uses 14 and 15, Calico 20 to 31.
pub const MARK_BIT: u8 = 13;
/// Longest name of a chain of iptables in bytes.
const CHAIN_NAME_MAX: usize = 28;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Raw {
    backend: String,
    snat: Option<bool>,
    masq_all: bool,
    mark_masq_bit: Option<i64>,
    external_set_mark_chain: Option<String>,
    conditions_v4: Vec<String>,
    conditions_v6: Vec<String>,
    runtime_config: RawRuntime,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawRuntime {
    port_mappings: Vec<RawMapping>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawMapping {
    host_port: i64,
    container_port: i64,
    protocol: String,
    #[serde(rename = "hostIP")]
    host_ip: String,
}

/// The checked configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Who holds the rules.
    pub backend: Backend,
    /// Whose source address is changed.
    pub masquerade: Masquerade,
    /// The mappings.
    pub mappings: Vec<Mapping>,
}

/// Who holds the rules, and what a packet must be besides for them to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backend {
    /// nftables. Conditions are alternatives, in each of which all must hold.
    Nftables {
        /// For packets to IPv4 addresses.
        v4: Vec<Vec<Match>>,
        /// For packets to IPv6 addresses.
        v6: Vec<Vec<Match>>,
    },
    /// The iptables programs.
    Iptables {
        /// Words of a rule, for packets to IPv4 addresses.
        v4: Vec<String>,
        /// Words of a rule, for packets to IPv6 addresses.
        v6: Vec<String>,
        /// How packets that need another source address are marked.
        marking: Marking,
    },
}

/// Whose source address is changed to the host's on the way to the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Masquerade {
    /// Nobody's.
    Nobody,
    /// That of who could not be answered otherwise: the pod's own subnet and this host's loopback.
    Needed,
    /// Everybody's.
    Everybody,
}

/// How iptables' rules mark packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Marking {
    /// By this bit of the mark, in a chain of our own.
    Bit(u8),
    /// By a chain of somebody else's, who sees to the masquerading too.
    Chain(String),
}

/// A port of the host that leads to a port of the pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// The host's port.
    pub host_port: u16,
    /// The pod's port.
    pub container_port: u16,
    /// The layer 4 protocol.
    pub protocol: Protocol,
    /// The host's address, which may be unspecified; every one of either family if `None`.
    pub host_ip: Option<IpAddr>,
}

/// A layer 4 protocol with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// SCTP.
    Sctp,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

// === impl Config ===

/// Reads the configuration.
///
/// # Errors
/// Code 6 for another form, 7 for a value that cannot be; key and value are named.
pub fn read(request: &Request<'_>) -> Result<Config, Error> {
    let raw: Raw = request.config_as()?;
    let masquerade = match (raw.snat, raw.masq_all) {
        (Some(false), _) => Masquerade::Nobody,
        (_, true) => Masquerade::Everybody,
        (_, false) => Masquerade::Needed,
    };
    Ok(Config {
        backend: backend(&raw)?,
        masquerade,
        mappings: mappings(&raw.runtime_config.port_mappings)?,
    })
}

fn backend(raw: &Raw) -> Result<Backend, Error> {
    let marking = marking(raw)?;
    let lists = [
        ("conditionsV4", &raw.conditions_v4),
        ("conditionsV6", &raw.conditions_v6),
    ];
    let is_iptables = |words: &[String]| {
        words
            .first()
            .is_some_and(|word| word.starts_with(['-', '!']))
    };
    let mut of_iptables: Vec<&str> = Vec::new();
    let mut of_nftables: Vec<&str> = Vec::new();
    for (key, words) in lists {
        match words.is_empty() {
            true => {}
            false if is_iptables(words) => of_iptables.push(key),
            false => of_nftables.push(key),
        }
    }
    if raw.external_set_mark_chain.is_some() {
        of_iptables.push("externalSetMarkChain");
    }
    let iptables = match &*raw.backend {
        "" => !of_iptables.is_empty(),
        "nftables" => false,
        "iptables" => true,
        other => {
            let msg = format!("backend {other:?} is unknown; give \"nftables\" or \"iptables\"");
            return Err(Error::config(msg));
        }
    };
    let (misplaced, named) = if iptables {
        (of_nftables, "iptables")
    } else {
        (of_iptables, "nftables")
    };
    if let Some(key) = misplaced.first() {
        let msg = format!("{key} is not written for backend {named}; change the one or the other");
        return Err(Error::config(msg));
    }
    if iptables {
        return Ok(Backend::Iptables {
            v4: raw.conditions_v4.clone(),
            v6: raw.conditions_v6.clone(),
            marking,
        });
    }
    let parse = |at: usize, family| conditions::parse(lists[at].0, lists[at].1, family);
    Ok(Backend::Nftables {
        v4: parse(0, Family::V4)?,
        v6: parse(1, Family::V6)?,
    })
}

fn marking(raw: &Raw) -> Result<Marking, Error> {
    let bit = match raw.mark_masq_bit {
        None => MARK_BIT,
        Some(bit) => match u8::try_from(bit) {
            Ok(bit) if bit < 32 => bit,
            _ => {
                let msg = format!("markMasqBit {bit} is no bit of a mark; give 0 to 31");
                return Err(Error::config(msg));
            }
        },
    };
    let Some(chain) = &raw.external_set_mark_chain else {
        return Ok(Marking::Bit(bit));
    };
    if raw.mark_masq_bit.is_some() {
        let msg = format!(
            "markMasqBit {bit} and externalSetMarkChain {chain:?} exclude each other; give one"
        );
        return Err(Error::config(msg));
    }
    let sound = |c: char| c.is_ascii_graphic() && !matches!(c, '!' | '"' | '\'' | '\\');
    if chain.is_empty()
        || chain.len() > CHAIN_NAME_MAX
        || chain.starts_with('-')
        || !chain.chars().all(sound)
    {
        let msg = format!("externalSetMarkChain {chain:?} is no name of a chain; name one");
        return Err(Error::config(msg));
    }
    Ok(Marking::Chain(chain.clone()))
}

fn mappings(raw: &[RawMapping]) -> Result<Vec<Mapping>, Error> {
    let mut mappings = Vec::with_capacity(raw.len());
    let mut seen = BTreeSet::new();
    for (at, one) in raw.iter().enumerate() {
        let mapping = one.check(&format!("runtimeConfig.portMappings[{at}]"))?;
        let Mapping {
            host_port,
            protocol,
            host_ip,
            ..
        } = mapping;
        if !seen.insert((host_port, protocol, host_ip)) {
            let on = host_ip.map(|ip| format!(" on {ip}")).unwrap_or_default();
            return Err(Error::config(format!(
                "runtimeConfig.portMappings[{at}].hostPort {host_port} of {protocol}{on} is mapped \
                 twice; map it once"
            )));
        }
        mappings.push(mapping);
    }
    Ok(mappings)
}

// === impl RawMapping ===

impl RawMapping {
    fn check(&self, key: &str) -> Result<Mapping, Error> {
        let port = |name: &str, value: i64| match u16::try_from(value) {
            Ok(port) if port != 0 => Ok(port),
            _ => {
                let msg = format!("{key}.{name} {value} is no port; give 1 to 65535");
                Err(Error::config(msg))
            }
        };
        let host_ip = match &*self.host_ip {
            "" => None,
            text => match text.parse::<IpAddr>() {
                Ok(ip) => Some(ip.to_canonical()),
                Err(_) => {
                    let msg = format!("{key}.hostIP {text:?} is no IP address; give one or none");
                    return Err(Error::config(msg));
                }
            },
        };
        let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
        let protocol = match &*self.protocol {
            "" => Protocol::Tcp,
            text => protocols
                .into_iter()
                .find(|protocol| text.eq_ignore_ascii_case(protocol.name()))
                .ok_or_else(|| {
                    let msg = format!("{key}.protocol {text:?} is unknown; give tcp, udp or sctp");
                    Error::config(msg)
                })?,
        };
        Ok(Mapping {
            host_port: port("hostPort", self.host_port)?,
            container_port: port("containerPort", self.container_port)?,
            protocol,
            host_ip,
        })
    }
}

// === impl Mapping ===

impl Mapping {
    /// Whether it is for packets of `family`.
    #[must_use]
    pub fn is_of(&self, family: Family) -> bool {
        self.host_ip
            .is_none_or(|ip| ip.is_ipv4() == (family == Family::V4))
    }

    /// The one address of the host that it is for.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        self.host_ip.filter(|ip| !ip.is_unspecified())
    }
}

// === impl Protocol ===

impl Protocol {
    /// In small letters, as nftables and iptables write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sctp => "sctp",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    /// The number in an IP header.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Sctp => 132,
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
