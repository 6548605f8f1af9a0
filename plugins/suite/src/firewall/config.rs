//! The network configuration of `firewall`.

use netstate::IfName;
use protocol::{AddResult, Error, Request};
use serde::Deserialize;

use crate::firewall::nftables;

const ADMIN_CHAIN: &str = "CNI-ADMIN";
/// Longest name of a chain that iptables takes.
const CHAIN_MAX: usize = 28;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Raw {
    backend: String,
    iptables_admin_chain_name: String,
    firewalld_zone: String,
    ingress_policy: String,
}

/// Where the rules are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// In iptables where its `FORWARD` chain could discard packets, else in nftables.
    Automatic,
    /// In a table of our own.
    Nftables,
    /// In the reference's chains.
    Iptables,
}

/// Who may begin connections to the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IngressPolicy {
    /// Everybody.
    Open,
    /// Not the pods of other bridges that have a policy.
    SameBridge,
    /// As [`IngressPolicy::SameBridge`], and not the pods of its own bridge.
    Isolated,
}

/// The checked configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where the rules are kept.
    pub backend: Backend,
    /// The chain for the administrator's own rules, which come first.
    pub admin_chain: String,
    /// Who may begin connections.
    pub policy: IngressPolicy,
}

/// A bridge whose pods are kept from others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Isolation {
    /// The bridge, or whatever interface of the host the pods are behind.
    pub bridge: IfName,
    /// Whether also from each other.
    pub from_each_other: bool,
}

/// Reads the configuration.
///
/// # Errors
/// Code 6 for another form, 7 for a value that cannot be, 2 for what is not supported.
pub fn read(request: &Request<'_>) -> Result<Config, Error> {
    let raw: Raw = request.config_as()?;
    let backend = match raw.backend.as_str() {
        "" => Backend::Automatic,
        "nftables" => Backend::Nftables,
        "iptables" => Backend::Iptables,
        "firewalld" => {
            let zone = match raw.firewalld_zone.as_str() {
                "" => "trusted",
                zone => zone,
            };
            let msg = format!(
                "backend \"firewalld\" is not supported; add the pods' subnet to the zone once \
                 (firewall-cmd --permanent --zone={zone} --add-source=SUBNET) and give \"nftables\""
            );
            return Err(Error::unsupported_field(msg));
        }
        other => {
            let msg =
                format!("backend {other:?} is unknown; give \"nftables\", \"iptables\" or nothing");
            return Err(Error::config(msg));
        }
    };
    let policy = match raw.ingress_policy.as_str() {
        "" | "open" => IngressPolicy::Open,
        "same-bridge" => IngressPolicy::SameBridge,
        "isolated" => IngressPolicy::Isolated,
        other => {
            let msg = format!(
                "ingressPolicy {other:?} is unknown; give \"open\", \"same-bridge\" or \"isolated\""
            );
            return Err(Error::config(msg));
        }
    };
    let admin_chain = admin_chain(raw.iptables_admin_chain_name)?;
    Ok(Config {
        backend,
        admin_chain,
        policy,
    })
}

fn admin_chain(name: String) -> Result<String, Error> {
    if name.is_empty() {
        return Ok(ADMIN_CHAIN.to_owned());
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let taken = ["FORWARD", "INPUT", "OUTPUT"].contains(&name.as_str())
        || name.starts_with("CNI-FORWARD")
        || name.starts_with("CNI-ISOLATION-")
        || nftables::CHAINS.contains(&name.as_str());
    let sound = name.len() <= CHAIN_MAX && !name.starts_with('-') && name.chars().all(plain);
    if sound && !taken {
        return Ok(name);
    }
    Err(Error::config(format!(
        "iptablesAdminChainName {name:?} cannot be; give up to {CHAIN_MAX} letters, digits, '_', \
         '.' and '-', and no chain that is in use otherwise"
    )))
}

// === impl Config ===

impl Config {
    /// What the policy means for a pod with this result.
    ///
    /// # Errors
    /// Code 7 when the result does not name the bridge.
    pub fn isolation(&self, before: &AddResult) -> Result<Option<Isolation>, Error> {
        let from_each_other = match self.policy {
            IngressPolicy::Open => return Ok(None),
            IngressPolicy::SameBridge => false,
            IngressPolicy::Isolated => true,
        };
        let name = before.interfaces.first().map(|first| first.name.as_str());
        let bad = |error| {
            Error::config(format!(
                "ingressPolicy needs the bridge as prevResult.interfaces[0]: {error}; put firewall \
                 after bridge"
            ))
        };
        let bridge = name.unwrap_or_default().parse().map_err(bad)?;
        Ok(Some(Isolation {
            bridge,
            from_each_other,
        }))
    }
}
