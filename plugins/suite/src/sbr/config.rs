//! The network configuration of `sbr`.

use std::net::IpAddr;

use protocol::{Error, Request};
use serde::Deserialize;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Raw {
    table: Option<i64>,
    gateways: Vec<String>,
    add_source_hints: bool,
}

/// The checked configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// The table that all addresses are led to; it is filled by whoever chose it.
    pub table: Option<u32>,
    /// Gateways in place of those in `prevResult`, at most one per family.
    pub gateways: Vec<IpAddr>,
    /// Routes name the address as their preferred source.
    pub source_hints: bool,
}

/// Tables that the kernel has for itself: unspecified, default, main and local.
const RESERVED: [u32; 4] = [0, 253, 254, 255];

/// Reads the configuration.
///
/// # Errors
/// Code 6 for another form, 7 for values that cannot be.
pub fn read(request: &Request<'_>) -> Result<Config, Error> {
    let raw: Raw = request.config_as()?;
    let table = match raw.table {
        None => None,
        Some(number) => {
            let table = u32::try_from(number).ok();
            let table = table.filter(|table| !RESERVED.contains(table));
            Some(table.ok_or_else(|| {
                let msg = format!("table {number} cannot be; give 1 to 4294967295, not 253 to 255");
                Error::config(msg)
            })?)
        }
    };
    let mut gateways: Vec<IpAddr> = Vec::new();
    for text in &raw.gateways {
        let gateway: IpAddr = text
            .parse()
            .map_err(|_| Error::config(format!("gateways: {text:?} is no IP address")))?;
        if gateways
            .iter()
            .any(|other| other.is_ipv4() == gateway.is_ipv4())
        {
            let msg = format!("gateways: {gateway} is the second of its family; give one of each");
            return Err(Error::config(msg));
        }
        gateways.push(gateway);
    }
    Ok(Config {
        table,
        gateways,
        source_hints: raw.add_source_hints,
    })
}
