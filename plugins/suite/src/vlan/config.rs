//! The network configuration of `vlan`.

use protocol::{AddResult, Dns, Error, Request};
use serde::Deserialize;

use crate::device::{Wish, ipam_plugin};
use crate::ipam::IpamSection;
use crate::lower::Lower;

/// The largest identifier; 4095 is reserved (IEEE 802.1Q).
const LARGEST: u16 = 4094;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Raw {
    master: String,
    vlan_id: i64,
    mtu: i64,
    link_in_container: bool,
    ipam: IpamSection,
    dns: Dns,
}

/// The checked configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The device it is made on, always by name.
    pub lower: Lower,
    /// VLAN identifier.
    pub id: u16,
    /// MTU as configured; checked against the device below by [`crate::lower::mtu`].
    pub mtu: i64,
    /// Addresses and name resolution.
    pub wish: Wish,
}

/// Reads the configuration.
///
/// # Errors
/// Code 6 for another form, 7 for values that are missing or cannot be.
pub fn read(request: &Request<'_>) -> Result<Config, Error> {
    let raw: Raw = request.config_as()?;
    if raw.master.is_empty() {
        let msg = "master is missing; name the device that the VLAN is on";
        return Err(Error::config(msg));
    }
    let id = u16::try_from(raw.vlan_id).ok().filter(|id| *id <= LARGEST);
    let id = id.ok_or_else(|| {
        let wrong = raw.vlan_id;
        Error::config(format!("vlanId {wrong} is no VLAN; give 0 to {LARGEST}"))
    })?;
    Ok(Config {
        lower: Lower::read(&raw.master, raw.link_in_container)?,
        id,
        mtu: raw.mtu,
        wish: Wish {
            ipam: ipam_plugin(raw.ipam),
            known: AddResult::default(),
            dns: raw.dns,
            announce: false,
        },
    })
}
