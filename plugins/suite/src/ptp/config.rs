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
    ip_masq_backend: String,
    ipam: IpamSection,
    dns: Dns,
}

/// The checked configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// MTU of the veth; `None` is the kernel's.
    pub mtu: Option<Mtu>,
    /// What the pod sends beyond its subnet gets the node's address.
    pub masquerade: bool,
    /// The IPAM plugin.
    pub ipam: String,
    /// Name resolution, in place of IPAM's.
    pub dns: Dns,
}

/// Reads the configuration.
///
/// # Errors
/// Code 6 for another form, 7 for a value that cannot be, 2 for an unknown `ipMasqBackend`.
pub fn read(request: &Request<'_>) -> Result<Config, Error> {
    let raw: Raw = request.config_as()?;
    check_backend(&raw.ip_masq_backend)?;
    if raw.ipam.plugin.is_empty() {
        return Err(Error::config(
            "ipam.type is missing; ptp needs addresses, name an IPAM plugin",
        ));
    }
    Ok(Config {
        mtu: mtu(raw.mtu)?,
        masquerade: raw.ip_masq,
        ipam: raw.ipam.plugin,
        dns: raw.dns,
    })
}

/// Refuses a backend of `ipMasq` that is not the one there is.
pub(crate) fn check_backend(backend: &str) -> Result<(), Error> {
    match backend {
        "" | "nftables" => Ok(()),
        other => {
            let msg = format!("ipMasqBackend {other:?} is not supported; give \"nftables\"");
            Err(Error::unsupported_field(msg))
        }
    }
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
