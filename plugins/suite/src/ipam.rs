//! Addresses from an IPAM plugin, given back when the attachment does not come about.

use protocol::{AddResult, Command, Error, Request};
use serde::Deserialize;

/// The part of a configuration that names the IPAM plugin; the rest is that plugin's own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct IpamSection {
    /// The IPAM plugin.
    #[serde(default, rename = "type")]
    pub plugin: String,
}

/// Gets addresses, does `attach` with them, and gives them back when that fails.
///
/// # Errors
/// The IPAM plugin's error, code 7 when it gives no address, or `attach`'s error.
pub fn with_addresses(
    request: &Request<'_>,
    plugin: &str,
    attach: impl FnOnce(AddResult) -> Result<AddResult, Error>,
) -> Result<AddResult, Error> {
    let outcome = request
        .delegate_add(plugin, request.stdin)
        .and_then(|addresses| {
            if addresses.ips.is_empty() {
                return Err(Error::config(format!(
                    "IPAM plugin {plugin} gave no address"
                )));
            }
            attach(addresses)
        });
    outcome.map_err(|error| match release(request, plugin) {
        Ok(()) => error,
        Err(second) => {
            let details = format!(
                "{}; then, giving the addresses back: {second}",
                error.details
            );
            error.details(details.trim_start_matches("; "))
        }
    })
}

/// Gives back whatever addresses the attachment has.
///
/// # Errors
/// The IPAM plugin's error.
pub fn release(request: &Request<'_>, plugin: &str) -> Result<(), Error> {
    request.delegate_call(plugin, Command::Del, request.stdin)
}
