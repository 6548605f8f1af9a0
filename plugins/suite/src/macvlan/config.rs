//! The network configuration of `macvlan`.

use netstate::{MacAddr, MacvlanMode};
use protocol::{AddResult, Dns, Error, Request};
use serde::Deserialize;

use crate::device::{Wish, ipam_plugin};
use crate::ipam::IpamSection;
use crate::lower::Lower;
use crate::mac::{self, MacArgs, MacField};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Raw {
    master: String,
    mode: String,
    mtu: i64,
    mac: Option<String>,
    bcqueuelen: u32,
    link_in_container: bool,
    args: MacArgs,
    runtime_config: MacField,
    ipam: IpamSection,
    dns: Dns,
}

/// The checked configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The device it is made on.
    pub lower: Lower,
    /// Who reaches whom.
    pub mode: MacvlanMode,
    /// MTU as configured; checked against the device below by [`crate::lower::mtu`].
    pub mtu: i64,
    /// Ethernet address that was asked for.
    pub mac: Option<MacAddr>,
    /// Broadcast frames that may wait; `None` is the kernel's default.
    pub broadcast_queue: Option<u32>,
    /// Addresses and name resolution.
    pub wish: Wish,
}

/// Reads the configuration.
///
/// # Errors
/// Code 6 for another form, 7 for values that cannot be, 4 for unknown keys in `CNI_ARGS`.
pub fn read(request: &Request<'_>) -> Result<Config, Error> {
    let raw: Raw = request.config_as()?;
    let mode = match raw.mode.as_str() {
        "" => MacvlanMode::Bridge,
        name => MacvlanMode::find(name).ok_or_else(|| {
            Error::config(format!(
                "mode {name:?} is unknown; give bridge, private, vepa or passthru"
            ))
        })?,
    };
    Ok(Config {
        lower: Lower::read(&raw.master, raw.link_in_container)?,
        mode,
        mtu: raw.mtu,
        mac: mac::wished(request, raw.mac.as_deref(), &raw.args, &raw.runtime_config)?,
        broadcast_queue: Some(raw.bcqueuelen).filter(|length| *length != 0),
        wish: Wish {
            ipam: ipam_plugin(raw.ipam),
            known: AddResult::default(),
            dns: raw.dns,
            announce: true,
        },
    })
}
