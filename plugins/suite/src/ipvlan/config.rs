//! The network configuration of `ipvlan`.

use netstate::IpvlanMode;
use protocol::{AddResult, Command, Dns, Error, Request};
use serde::Deserialize;

use crate::device::{Wish, ipam_plugin};
use crate::ipam::IpamSection;
use crate::lower::Lower;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Raw {
    master: String,
    mode: String,
    mtu: i64,
    link_in_container: bool,
    ipam: IpamSection,
    dns: Dns,
}

/// The checked configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The device it is made on.
    pub lower: Lower,
    /// How it passes packets on.
    pub mode: IpvlanMode,
    /// MTU as configured; checked against the device below by [`crate::lower::mtu`].
    pub mtu: i64,
    /// Addresses and name resolution.
    pub wish: Wish,
}

/// Reads the configuration. In a chain, the sole interface of the plugin before is the master, and
/// its addresses are the pod's, unless the configuration names others.
///
/// # Errors
/// Code 6 for another form, 7 for values that are missing or cannot be.
pub fn read(request: &Request<'_>) -> Result<Config, Error> {
    let raw: Raw = request.config_as()?;
    let mode = match raw.mode.as_str() {
        "" => IpvlanMode::L2,
        name => IpvlanMode::find(name).ok_or_else(|| {
            Error::config(format!("mode {name:?} is unknown; give l2, l3 or l3s"))
        })?,
    };
    // After ADD it is the result of this plugin itself that comes as prevResult.
    let before = request
        .prev_result
        .as_ref()
        .filter(|_| request.command == Command::Add);
    let master = match before {
        Some(before) if raw.master.is_empty() => sole_interface(before)?,
        _ => raw.master.as_str(),
    };
    let ipam = ipam_plugin(raw.ipam);
    let known = AddResult {
        interfaces: vec![],
        ..before.cloned().unwrap_or_default()
    };
    let adding = request.command == Command::Add;
    if adding && ipam.is_none() && known.ips.is_empty() && mode != IpvlanMode::L2 {
        let msg = "ipam.type is missing; modes l3 and l3s need addresses, name an IPAM plugin";
        return Err(Error::config(msg));
    }
    Ok(Config {
        lower: Lower::read(master, raw.link_in_container)?,
        mode,
        mtu: raw.mtu,
        wish: Wish {
            ipam,
            known,
            dns: raw.dns,
            announce: true,
        },
    })
}

fn sole_interface(before: &AddResult) -> Result<&str, Error> {
    match before.interfaces.as_slice() {
        [only] if !only.name.is_empty() => Ok(&only.name),
        several => Err(Error::config(format!(
            "master is missing, and prevResult has {} interfaces, not one that could be it; name \
             one",
            several.len()
        ))),
    }
}
