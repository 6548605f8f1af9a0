//! The network configuration of `flannel`.

use std::path::PathBuf;

use protocol::{Error, Request};
use serde::Deserialize;
use serde_json::{Map, Value};

const OWN_TYPE: &str = "flannel";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Raw {
    subnet_file: String,
    data_dir: String,
    delegate: Map<String, Value>,
    ipam: Map<String, Value>,
}

impl Default for Raw {
    fn default() -> Self {
        Self {
            subnet_file: "/run/flannel/subnet.env".to_owned(),
            data_dir: "/var/lib/cni/flannel".to_owned(),
            delegate: Map::new(),
            ipam: Map::new(),
        }
    }
}

/// The checked configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The subnet file that `flanneld` or `towlined` writes.
    pub subnet_file: PathBuf,
    /// Where the delegate's configurations are kept.
    pub data_dir: PathBuf,
    /// The delegate's plugin.
    pub delegate_type: String,
    /// The delegate's configuration, as far as given.
    pub delegate: Map<String, Value>,
    /// The IPAM plugin's configuration, as far as given.
    pub ipam: Map<String, Value>,
}

/// Reads the configuration.
///
/// # Errors
/// Code 6 for another form, 7 for values that cannot be.
pub fn read(request: &Request<'_>) -> Result<Config, Error> {
    let raw: Raw = request.config_as()?;
    let paths = [("subnetFile", &raw.subnet_file), ("dataDir", &raw.data_dir)];
    for (field, value) in paths {
        if !value.starts_with('/') {
            let msg = format!("{field} {value:?} is no absolute path; give one that begins with /");
            return Err(Error::config(msg));
        }
    }
    for field in ["name", "ipam"] {
        if raw.delegate.contains_key(field) {
            let msg = format!("delegate.{field} is set by flannel itself; remove it");
            return Err(Error::config(msg));
        }
    }
    let delegate_type = match raw.delegate.get("type") {
        None => "bridge".to_owned(),
        Some(Value::String(text)) if text != OWN_TYPE => text.clone(),
        Some(other) => {
            let msg = format!("delegate.type {other} must be the name of another plugin");
            return Err(Error::config(msg));
        }
    };
    match raw.ipam.get("type") {
        None | Some(Value::String(_)) => {}
        Some(other) => {
            let msg = format!("ipam.type {other} must be the name of a plugin");
            return Err(Error::config(msg));
        }
    }
    match raw.ipam.get("routes") {
        None | Some(Value::Array(_)) => {}
        Some(other) => {
            let msg = format!("ipam.routes {other} must be a list such as [{{\"dst\":\"…\"}}]");
            return Err(Error::config(msg));
        }
    }
    Ok(Config {
        subnet_file: raw.subnet_file.into(),
        data_dir: raw.data_dir.into(),
        delegate_type,
        delegate: raw.delegate,
        ipam: raw.ipam,
    })
}
