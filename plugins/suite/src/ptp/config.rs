//! The network configuration of `ptp`.

use netstate::Mtu;
use protocol::{Dns, Error, Request};
use serde::Deserialize;

use crate::ipam::IpamSection;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Raw {
    mtu: u32,
    ip_masq: bool,
    ipam: IpamSection,
    dns: Dns,
}

/// The checked configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// MTU of the veth; `None` is the kernel's.
    pub mtu: Option<Mtu>,
    /// The IPAM plugin.
    pub ipam: String,
    /// Name resolution, in place of IPAM's.
    pub dns: Dns,
}

/// Reads the configuration.
///
/// # Errors
/// Code 6 for another form, 7 for a value that cannot be, 2 for `ipMasq`.
pub fn read(request: &Request<'_>) -> Result<Config, Error> {
    let raw: Raw = request.config_as()?;
    if raw.ip_masq {
        return Err(masquerade());
    }
    if raw.ipam.plugin.is_empty() {
        return Err(Error::config(
            "ipam.type is missing; ptp needs addresses, name an IPAM plugin",
        ));
    }
    Ok(Config {
        mtu: mtu(raw.mtu)?,
        ipam: raw.ipam.plugin,
        dns: raw.dns,
    })
}

/// That this plugin does not masquerade.
pub(crate) fn masquerade() -> Error {
    Error::unsupported_field(
        "ipMasq is not supported by this plugin; remove it and let the node masquerade \
         (towlined does so for traffic that leaves the cluster)",
    )
}

/// An MTU where 0 leaves the choice to the kernel.
pub(crate) fn mtu(value: u32) -> Result<Option<Mtu>, Error> {
    match value {
        0 => Ok(None),
        _ => Mtu::try_from(value)
            .map(Some)
            .map_err(|error| Error::config(format!("mtu: {error}"))),
    }
}
