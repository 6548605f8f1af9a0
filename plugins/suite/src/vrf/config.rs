//! The network configuration of `vrf`.

use netstate::IfName;
use protocol::{Error, Request};
use serde::Deserialize;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Raw {
    vrfname: String,
    table: i64,
}

/// The checked configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The VRF's name.
    pub vrf: IfName,
    /// Its routing table; `None` for that of the one that is there, or else a free one.
    pub table: Option<u32>,
}

/// Reads the configuration.
///
/// # Errors
/// Code 6 for another form, 7 for values that are missing or cannot be.
pub fn read(request: &Request<'_>) -> Result<Config, Error> {
    let raw: Raw = request.config_as()?;
    if raw.vrfname.is_empty() {
        let msg = "vrfname is missing; name the VRF that the interface becomes a port of";
        return Err(Error::config(msg));
    }
    let vrf = raw
        .vrfname
        .parse()
        .map_err(|error| Error::config(format!("vrfname: {error}")))?;
    let table = u32::try_from(raw.table).map_err(|_| {
        let number = raw.table;
        Error::config(format!(
            "table {number} cannot be; give 1 to 4294967295, or 0 for a free one"
        ))
    })?;
    Ok(Config {
        vrf,
        table: Some(table).filter(|table| *table != 0),
    })
}
