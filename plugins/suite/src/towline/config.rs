//! The network configuration of `towline`.

use std::path::PathBuf;
use std::time::Duration;

use netstate::Mtu;
use protocol::{Error, Request};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::ptp::config::mtu;

/// Longest policy timeout that the daemon takes, in seconds.
const LONGEST_TIMEOUT: u64 = 300;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Raw {
    subnet_file: String,
    socket: String,
    data_dir: String,
    policy_timeout: u64,
    mtu: u32,
    delegate: Map<String, Value>,
    ipam: Map<String, Value>,
}

impl Default for Raw {
    fn default() -> Self {
        Self {
            subnet_file: "/run/towline/subnet.env".to_owned(),
            socket: "/run/towline/towlined.sock".to_owned(),
            data_dir: "/var/lib/cni/towline".to_owned(),
            policy_timeout: 10,
            mtu: 0,
            delegate: Map::new(),
            ipam: Map::new(),
        }
    }
}

/// The checked configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The daemon's subnet file.
    pub subnet_file: PathBuf,
    /// The daemon's socket.
    pub socket: PathBuf,
    /// Where the delegate's configurations are kept.
    pub data_dir: PathBuf,
    /// How long ADD waits for the pod's policy.
    pub policy_timeout: Duration,
    /// MTU of the pod; `None` is the subnet file's.
    pub mtu: Option<Mtu>,
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
    for (field, value) in [
        ("subnetFile", &raw.subnet_file),
        ("socket", &raw.socket),
        ("dataDir", &raw.data_dir),
    ] {
        if !value.starts_with('/') {
            let msg = format!("{field} {value:?} is no absolute path; give one that begins with /");
            return Err(Error::config(msg));
        }
    }
    if !(1..=LONGEST_TIMEOUT).contains(&raw.policy_timeout) {
        let seconds = raw.policy_timeout;
        let msg = format!("policyTimeout {seconds} is not within 1 to {LONGEST_TIMEOUT} seconds");
        return Err(Error::config(msg));
    }
    for field in ["name", "ipam"] {
        if raw.delegate.contains_key(field) {
            let msg = format!("delegate.{field} is set by towline itself; remove it");
            return Err(Error::config(msg));
        }
    }
    let delegate_type = match raw.delegate.get("type") {
        None => "ptp".to_owned(),
        Some(Value::String(text)) if text == "ptp" || text == "bridge" => text.clone(),
        Some(other) => {
            let msg = format!("delegate.type {other} is unknown; give \"ptp\" or \"bridge\"");
            return Err(Error::config(msg));
        }
    };
    Ok(Config {
        subnet_file: raw.subnet_file.into(),
        socket: raw.socket.into(),
        data_dir: raw.data_dir.into(),
        policy_timeout: Duration::from_secs(raw.policy_timeout),
        mtu: mtu(raw.mtu)?,
        delegate_type,
        delegate: raw.delegate,
        ipam: raw.ipam,
    })
}
