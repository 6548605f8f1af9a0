//! flannel's `net-conf.json`: the pod network and the backend that carries it.
//!
//! Key names are case-insensitive, as flannel's are. What this version cannot do is refused here,
//! by name, instead of being ignored.

use std::path::Path;

use ipnetwork::Ipv4Network;
use netstate::{Mtu, Vni};
use serde_json::{Map, Value};

use super::error::ConfigError;

/// UDP port of VXLAN where the configuration says 0 or nothing: the kernel's default.
pub const VXLAN_PORT: u16 = 8472;

/// The network configuration, checked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NetConf {
    /// All pods' IPv4 addresses.
    pub network: Ipv4Network,
    /// The VXLAN backend's parameters.
    pub vxlan: Vxlan,
    /// Keys that mean nothing here, for a warning.
    pub ignored: Vec<String>,
}

/// Parameters of the VXLAN backend.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Vxlan {
    /// The network's number; the device is `flannel.<VNI>`.
    pub vni: Vni,
    /// UDP port, never 0.
    pub port: u16,
    /// MTU of the underlay; the chosen interface's if not given.
    pub mtu: Option<Mtu>,
}

/// Keys of flannel's schema that the Kubernetes lease store has no use for.
const UNUSED: [&str; 8] = [
    "enablenftables",
    "ipv6network",
    "subnetlen",
    "subnetmin",
    "subnetmax",
    "ipv6subnetlen",
    "ipv6subnetmin",
    "ipv6subnetmax",
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
        if top.bool("EnableIPv4")? == Some(false) {
            return Err(top.error(
                "EnableIPv4",
                "false",
                "IPv6 alone is not possible in this version; leave it out or write true",
            ));
        }
        if top.bool("EnableIPv6")? == Some(true) {
            return Err(top.error(
                "EnableIPv6",
                "true",
                "not possible in this version; leave it out or write false",
            ));
        }
        let network = network(&mut top)?;
        let backend = top.take("Backend").unwrap_or(Value::Null);
        let mut ignored: Vec<String> = top.rest(&UNUSED);
        let vxlan = vxlan(name, &backend, &mut ignored)?;
        Ok(Self {
            network,
            vxlan,
            ignored,
        })
    }
}

fn network(top: &mut Fields<'_>) -> Result<Ipv4Network, ConfigError> {
    let remedy = "write the pods' IPv4 network, e.g. \"10.244.0.0/16\"";
    let Some(text) = top.string("Network")? else {
        return Err(top.error("Network", "", remedy));
    };
    let parsed: Ipv4Network = text
        .parse()
        .map_err(|_| top.error("Network", &text, remedy))?;
    if parsed.prefix() == 0 || parsed.prefix() > 28 {
        return Err(top.error("Network", &text, "the prefix must be from 1 to 28"));
    }
    if parsed.ip() != parsed.network() {
        let fixed = format!(
            "host bits are set; write {}/{}",
            parsed.network(),
            parsed.prefix()
        );
        return Err(top.error("Network", &text, &fixed));
    }
    Ok(parsed)
}

fn vxlan(name: &str, backend: &Value, ignored: &mut Vec<String>) -> Result<Vxlan, ConfigError> {
    let mut fields = if backend.is_null() {
        Fields::of(name, "Backend.", &Value::Object(Map::new()))?
    } else {
        Fields::of(name, "Backend.", backend)?
    };
    let kind = fields.string("Type")?.unwrap_or_default();
    if !kind.eq_ignore_ascii_case("vxlan") {
        return Err(fields.error(
            "Type",
            &kind,
            "this version carries pods by \"vxlan\" only; write that",
        ));
    }
    let vni = fields.number("VNI", 1, (1 << 24) - 1)?.unwrap_or(1);
    let port = fields.number("Port", 0, u64::from(u16::MAX))?.unwrap_or(0);
    let mtu = fields.number("MTU", 0, 65_535)?.unwrap_or(0);
    for unsupported in ["DirectRouting", "Learning", "GBP"] {
        if fields.bool(unsupported)? == Some(true) {
            return Err(fields.error(
                unsupported,
                "true",
                "not possible in this version; leave it out or write false",
            ));
        }
    }
    ignored.extend(fields.rest(&["macprefix"]));
    let as_error = |field: &str, value: u64, error: String| {
        ConfigError::new(name, format!("Backend.{field}"), value.to_string(), error)
    };
    let vni = u32::try_from(vni)
        .map_err(|error| error.to_string())
        .and_then(|vni| Vni::try_from(vni).map_err(|error| error.to_string()))
        .map_err(|error| as_error("VNI", vni, error))?;
    let mtu = if mtu == 0 {
        None
    } else {
        let checked = u32::try_from(mtu)
            .map_err(|error| error.to_string())
            .and_then(|mtu| Mtu::try_from(mtu).map_err(|error| error.to_string()))
            .map_err(|error| as_error("MTU", mtu, error))?;
        Some(checked)
    };
    let port = u16::try_from(port).ok().filter(|port| *port != 0);
    Ok(Vxlan {
        vni,
        port: port.unwrap_or(VXLAN_PORT),
        mtu,
    })
}

/// One JSON object, its keys taken away as they are read.
struct Fields<'a> {
    source_name: &'a str,
    prefix: &'a str,
    left: Vec<(String, Value)>,
}

impl<'a> Fields<'a> {
    fn of(source_name: &'a str, prefix: &'a str, value: &Value) -> Result<Self, ConfigError> {
        let Value::Object(map) = value else {
            let field = if prefix.is_empty() {
                "(document)"
            } else {
                prefix.trim_end_matches('.')
            };
            return Err(ConfigError::new(
                source_name,
                field,
                value.to_string(),
                "write a JSON object",
            ));
        };
        let left = map.iter().map(|(key, value)| (key.clone(), value.clone()));
        Ok(Self {
            source_name,
            prefix,
            left: left.collect(),
        })
    }

    fn error(&self, field: &str, value: &str, remedy: &str) -> ConfigError {
        ConfigError::new(
            self.source_name,
            format!("{}{field}", self.prefix),
            value,
            remedy,
        )
    }

    /// The value of `field`; an explicit null counts as missing, as in Go.
    fn take(&mut self, field: &str) -> Option<Value> {
        let index = self
            .left
            .iter()
            .position(|(key, _)| key.eq_ignore_ascii_case(field))?;
        Some(self.left.swap_remove(index).1).filter(|value| !value.is_null())
    }

    fn bool(&mut self, field: &str) -> Result<Option<bool>, ConfigError> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(value)),
            Some(other) => Err(self.error(field, &other.to_string(), "write true or false")),
        }
    }

    fn string(&mut self, field: &str) -> Result<Option<String>, ConfigError> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::String(value)) if value.is_empty() => Ok(None),
            Some(Value::String(value)) => Ok(Some(value)),
            Some(other) => {
                Err(self.error(field, &other.to_string(), "write a string in double quotes"))
            }
        }
    }

    fn number(&mut self, field: &str, low: u64, high: u64) -> Result<Option<u64>, ConfigError> {
        let Some(value) = self.take(field) else {
            return Ok(None);
        };
        match value
            .as_u64()
            .filter(|number| (low..=high).contains(number))
        {
            Some(number) => Ok(Some(number)),
            None => {
                let remedy = format!("write a whole number from {low} to {high}");
                Err(self.error(field, &value.to_string(), &remedy))
            }
        }
    }

    /// The keys that were not read and that are not in `known` (lower case).
    fn rest(self, known: &[&str]) -> Vec<String> {
        self.left
            .into_iter()
            .map(|(key, _)| key)
            .filter(|key| !known.contains(&key.to_lowercase().as_str()))
            .map(|key| format!("{}{key}", self.prefix))
            .collect()
    }
}
