//! flannel's network configuration: the pod networks, how they are cut into subnets, and the
//! backend that carries them. It is a file, or a key in etcd.
//!
//! Key names are case-insensitive, as flannel's are. What cannot be done is refused here, by name,
//! instead of being ignored.

mod backend;
mod fields;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use desired::lease::{Pool, PoolError, Pools};
use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use serde_json::Value;

use self::fields::Fields;
use super::error::ConfigError;

pub use self::backend::{BackendConf, VXLAN_PORT, VxlanConf, WireguardConf};

/// The network configuration, checked. It has at least one family.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NetConf {
    /// All pods' IPv4 addresses.
    pub v4: Option<Ipv4Network>,
    /// All pods' IPv6 addresses.
    pub v6: Option<Ipv6Network>,
    /// What carries packets between nodes.
    pub backend: BackendConf,
    /// How the networks are cut, as far as it says so.
    subnets: [Subnets; 2],
    /// What errors call it.
    source_name: String,
    /// Keys that mean nothing here, for a warning.
    pub ignored: Vec<String>,
}

/// `SubnetLen`, `SubnetMin` and `SubnetMax` of a family.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Subnets {
    len: Option<u8>,
    min: Option<IpAddr>,
    max: Option<IpAddr>,
}

/// The keys of each family.
const KEYS: [[&str; 3]; 2] = [
    ["SubnetLen", "SubnetMin", "SubnetMax"],
    ["IPv6SubnetLen", "IPv6SubnetMin", "IPv6SubnetMax"],
];

// === impl NetConf ===

impl NetConf {
    /// Reads and checks the file at `path`.
    ///
    /// # Errors
    /// Names file, field, value and remedy.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| {
            ConfigError::new(
                "settings",
                "net-config-path",
                &name,
                format!("{error}; mount the ConfigMap with net-conf.json there"),
            )
        })?;
        Self::parse(&name, &text)
    }

    /// Checks `text`; `name` is what errors call it.
    ///
    /// # Errors
    /// Names file, field, value and remedy.
    pub fn parse(name: &str, text: &str) -> Result<Self, ConfigError> {
        let value: Value = serde_json::from_str(text).map_err(|error| {
            ConfigError::new(
                name,
                format!("line {} column {}", error.line(), error.column()),
                error.to_string(),
                "not JSON; write e.g. {\"Network\": \"10.244.0.0/16\", \"Backend\": {\"Type\": \"vxlan\"}}",
            )
        })?;
        let mut top = Fields::of(name, "", &value)?;
        let enabled = (
            top.bool("EnableIPv4")?.unwrap_or(true),
            top.bool("EnableIPv6")?.unwrap_or(false),
        );
        if enabled == (false, false) {
            let remedy = "enable one family; leave it out or write true";
            return Err(top.error("EnableIPv4", "false", remedy));
        }
        let v4 = network(&mut top, "Network", enabled.0, "10.244.0.0/16", 28)?;
        let v6 = network(&mut top, "IPv6Network", enabled.1, "fd00:244::/48", 124)?;
        let subnets = [subnets(&mut top, KEYS[0])?, subnets(&mut top, KEYS[1])?];
        let backend = top.object("Backend");
        let mut ignored: Vec<String> = top.rest(&["enablenftables"]);
        let backend = BackendConf::read(name, &backend, &mut ignored)?;
        let conf = Self {
            v4: v4.and_then(|network| match network {
                IpNetwork::V4(v4) => Some(v4),
                IpNetwork::V6(_) => None,
            }),
            v6: v6.and_then(|network| match network {
                IpNetwork::V4(_) => None,
                IpNetwork::V6(v6) => Some(v6),
            }),
            backend,
            subnets,
            source_name: name.to_owned(),
            ignored,
        };
        conf.check_backend()?;
        Ok(conf)
    }

    /// The pod networks, IPv4 first.
    pub fn networks(&self) -> impl Iterator<Item = IpNetwork> + use<> {
        [self.v4.map(IpNetwork::from), self.v6.map(IpNetwork::from)]
            .into_iter()
            .flatten()
    }

    /// The subnets that nodes lease, for a store that gives them out.
    ///
    /// # Errors
    /// When a key cannot be, or there is no IPv4 network, without which no lease has a name.
    pub fn pools(&self) -> Result<Pools, ConfigError> {
        let Some(v4) = self.v4 else {
            let remedy =
                "leases in etcd are named by IPv4 subnets; write true, or use --kube-subnet-mgr";
            return Err(self.error("EnableIPv4", "false", remedy));
        };
        Ok(Pools {
            v4: self.pool(v4.into(), 0)?,
            v6: self.v6.map(|v6| self.pool(v6.into(), 1)).transpose()?,
        })
    }

    fn pool(&self, network: IpNetwork, family: usize) -> Result<Pool, ConfigError> {
        let Subnets { len, min, max } = self.subnets[family];
        Pool::new(network, len, min, max).map_err(|PoolError { key, value, remedy }| {
            let field = match family {
                0 => key.to_owned(),
                _ => format!("IPv6{key}"),
            };
            self.error(&field, &value, &remedy)
        })
    }

    fn check_backend(&self) -> Result<(), ConfigError> {
        if matches!(self.backend, BackendConf::Ipip { .. }) && self.v6.is_some() {
            let remedy = "ipip carries IPv4 only; use another backend, or leave EnableIPv6 out";
            return Err(self.error("Backend.Type", "ipip", remedy));
        }
        Ok(())
    }

    fn error(&self, field: &str, value: &str, remedy: &str) -> ConfigError {
        ConfigError::new(&self.source_name, field, value, remedy)
    }
}

/// A network of the family that `example` is of; wanted if `enabled`, else not looked at.
fn network(
    top: &mut Fields<'_>,
    key: &str,
    enabled: bool,
    example: &str,
    longest: u8,
) -> Result<Option<IpNetwork>, ConfigError> {
    let text = top.string(key)?;
    if !enabled {
        return Ok(None);
    }
    let is_v4 = example.contains('.');
    let family = if is_v4 { "IPv4" } else { "IPv6" };
    let remedy = format!("write the pods' {family} network, e.g. \"{example}\"");
    let Some(text) = text else {
        return Err(top.error(key, "", &remedy));
    };
    let parsed = match is_v4 {
        true => text.parse::<Ipv4Network>().map(IpNetwork::from),
        false => text.parse::<Ipv6Network>().map(IpNetwork::from),
    };
    let parsed = parsed.map_err(|_| top.error(key, &text, &remedy))?;
    let prefix = parsed.prefix();
    if prefix == 0 || prefix > longest {
        let remedy = format!("the prefix must be from 1 to {longest}");
        return Err(top.error(key, &text, &remedy));
    }
    if parsed.ip() != parsed.network() {
        let fixed = format!("host bits are set; write {}/{prefix}", parsed.network());
        return Err(top.error(key, &text, &fixed));
    }
    Ok(Some(parsed))
}

fn subnets(top: &mut Fields<'_>, [len, min, max]: [&str; 3]) -> Result<Subnets, ConfigError> {
    let is_v4 = len == KEYS[0][0];
    let mut address = |key: &str| -> Result<Option<IpAddr>, ConfigError> {
        let Some(text) = top.string(key)? else {
            return Ok(None);
        };
        let read = match is_v4 {
            true => text.parse::<Ipv4Addr>().map(IpAddr::from),
            false => text.parse::<Ipv6Addr>().map(IpAddr::from),
        };
        let remedy = "write the first address of a subnet";
        read.map(Some).map_err(|_| top.error(key, &text, remedy))
    };
    let (min, max) = (address(min)?, address(max)?);
    let len = top.number(len, 0, 128)?.filter(|len| *len != 0);
    Ok(Subnets {
        len: len.and_then(|len| len.try_into().ok()),
        min,
        max,
    })
}
