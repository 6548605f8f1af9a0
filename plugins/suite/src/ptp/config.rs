//! The network configuration of `ptp`.

use netstate::Mtu;
use protocol::{Dns, Error, Request};
use serde::Deserialize;

use crate::dns::RawDns;
use crate::ipam::IpamSection;
use crate::masquerade::Backend;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Raw {
    mtu: u32,
    ip_masq: bool,
    ip_masq_backend: String,
    ipam: IpamSection,
    dns: RawDns,
}

/// The checked configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// MTU of the veth; `None` is the default route's device's.
    pub mtu: Option<Mtu>,
    /// What the pod sends beyond its subnet gets the node's address, by this backend.
    pub masquerade: Option<Backend>,
    /// The IPAM plugin.
    pub ipam: String,
    /// Name resolution, in place of IPAM's.
    pub dns: Option<Dns>,
}

/// Reads the configuration.
///
/// # Errors
/// Code 6 for another form, 7 for a value that cannot be.
pub fn read(request: &Request<'_>) -> Result<Config, Error> {
    let raw: Raw = request.config_as()?;
    let masquerade = Backend::named(&raw.ip_masq_backend)?;
    if raw.ipam.plugin.is_empty() {
        return Err(Error::config(
            "ipam.type is missing; ptp needs addresses, name an IPAM plugin",
        ));
    }
    Ok(Config {
        mtu: mtu(raw.mtu)?,
        masquerade: raw.ip_masq.then_some(masquerade),
        ipam: raw.ipam.plugin,
        dns: raw.dns.chosen(),
    })
}

/// An MTU where 0 leaves the choice to the plugin.
pub(crate) fn mtu(value: u32) -> Result<Option<Mtu>, Error> {
    match value {
        0 => Ok(None),
        _ => Mtu::try_from(value)
            .map(Some)
            .map_err(|error| Error::config(format!("mtu: {error}"))),
    }
}
