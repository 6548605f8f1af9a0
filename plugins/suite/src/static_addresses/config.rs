//! The network configuration of `static`.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use protocol::{Dns, Error, IpConfig, Request, Route, Version};
use serde::Deserialize;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Raw {
    ipam: Option<RawIpam>,
    args: RawArgs,
    runtime_config: RawIps,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawIpam {
    addresses: Vec<RawAddress>,
    routes: Vec<Route>,
    dns: Dns,
}

#[derive(Debug, Deserialize)]
struct RawAddress {
    address: String,
    #[serde(default)]
    gateway: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawArgs {
    cni: RawIps,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawIps {
    ips: Vec<String>,
}

/// The checked configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The addresses, each once.
    pub addresses: Vec<IpConfig>,
    /// Routes of the result.
    pub routes: Vec<Route>,
    /// Name resolution of the result.
    pub dns: Dns,
}

/// Reads the configuration. `CNI_ARGS` adds to its addresses; `args.cni.ips`, then
/// `runtimeConfig.ips`, replace them all.
///
/// # Errors
/// Code 6 for another form, 7 for values that cannot be, 2 for more addresses than the version's
/// result has room for.
pub fn read(request: &Request<'_>) -> Result<Config, Error> {
    let raw: Raw = request.config_as()?;
    let ipam = raw
        .ipam
        .ok_or_else(|| Error::config("ipam is missing; configure static"))?;
    let mut addresses = ipam
        .addresses
        .iter()
        .map(configured)
        .collect::<Result<Vec<_>, _>>()?;
    request.args.check_known(&["IP", "GATEWAY", "MAC"])?;
    for text in list(request.args.get("IP")) {
        addresses.push(bare("CNI_ARGS IP", text)?);
    }
    for text in list(request.args.get("GATEWAY")) {
        fill_gateway(&mut addresses, ip("CNI_ARGS GATEWAY", text)?);
    }
    for (field, ips) in [
        ("args.cni.ips", &raw.args.cni.ips),
        ("runtimeConfig.ips", &raw.runtime_config.ips),
    ] {
        if !ips.is_empty() {
            addresses = ips
                .iter()
                .map(|text| bare(field, text))
                .collect::<Result<Vec<_>, _>>()?;
        }
    }
    let addresses = distinct(addresses);
    check_room(request.version, &addresses)?;
    Ok(Config {
        addresses,
        routes: ipam.routes,
        dns: ipam.dns,
    })
}

fn list(text: Option<&str>) -> impl Iterator<Item = &str> {
    text.into_iter()
        .flat_map(|text| text.split(','))
        .map(str::trim)
        .filter(|part| !part.is_empty())
}

fn configured(raw: &RawAddress) -> Result<IpConfig, Error> {
    let mut address = bare("ipam.addresses: address", &raw.address)?;
    if !raw.gateway.is_empty() {
        let gateway = ip("ipam.addresses: gateway", &raw.gateway)?;
        if gateway.is_ipv4() != address.address.is_ipv4() {
            let of = address.address;
            return Err(Error::config(format!(
                "ipam.addresses: gateway {gateway} is of another family than {of}; give one of \
                 the same"
            )));
        }
        address.gateway = Some(gateway);
    }
    Ok(address)
}

/// An address with its prefix length, without a gateway.
fn bare(field: &str, text: &str) -> Result<IpConfig, Error> {
    let address = text
        .contains('/')
        .then(|| text.parse::<IpNetwork>().ok())
        .flatten();
    match address {
        Some(address) => Ok(IpConfig {
            interface: None,
            address,
            gateway: None,
        }),
        None => Err(Error::config(format!(
            "{field}: {text:?} is not in CIDR notation; write an address such as 10.1.0.5/24"
        ))),
    }
}

fn ip(field: &str, text: &str) -> Result<IpAddr, Error> {
    text.parse()
        .map_err(|_| Error::config(format!("{field}: {text:?} is no IP address")))
}

/// Makes `gateway` the gateway of every address in whose subnet it is.
fn fill_gateway(addresses: &mut [IpConfig], gateway: IpAddr) {
    for address in addresses {
        if address.address.contains(gateway) {
            address.gateway = Some(gateway);
        }
    }
}

/// An address named twice counts once; the kernel would refuse it the second time.
fn distinct(addresses: Vec<IpConfig>) -> Vec<IpConfig> {
    let mut kept: Vec<IpConfig> = Vec::new();
    for address in addresses {
        if kept.iter().all(|one| one.address != address.address) {
            kept.push(address);
        }
    }
    kept
}

/// Results up to 0.2.0 hold one address of each family.
fn check_room(version: Version, addresses: &[IpConfig]) -> Result<(), Error> {
    let of = |v4: bool| {
        addresses
            .iter()
            .filter(|ip| ip.address.is_ipv4() == v4)
            .count()
    };
    if version > Version::V020 || of(true).max(of(false)) <= 1 {
        return Ok(());
    }
    Err(Error::unsupported_field(format!(
        "ipam.addresses: cniVersion {version} has room for one address of each family; name \
         fewer, or a cniVersion from 0.3.0"
    )))
}
