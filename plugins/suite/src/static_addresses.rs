//! `static`: the addresses that the configuration or the runtime names, kept nowhere.

pub mod config;

use protocol::{AddResult, Attachment, Error, IpConfig, Plugin, Request};

use crate::static_addresses::config::Config;

/// The plugin.
#[derive(Debug)]
pub struct Static;

impl Plugin for Static {
    fn name(&self) -> &'static str {
        "static"
    }

    fn add(&self, request: &Request<'_>) -> Result<AddResult, Error> {
        let Config {
            addresses,
            routes,
            dns,
        } = config::read(request)?;
        Ok(AddResult {
            interfaces: Vec::new(),
            ips: addresses,
            routes,
            dns,
        })
    }

    /// Nothing is kept, so there is nothing to free, whatever the configuration says.
    fn delete(&self, _: &Request<'_>) -> Result<(), Error> {
        Ok(())
    }

    fn check(&self, request: &Request<'_>) -> Result<(), Error> {
        let config = config::read(request)?;
        let Some(before) = &request.prev_result else {
            return Err(Error::config(
                "prevResult is missing; CHECK compares with it",
            ));
        };
        config
            .addresses
            .iter()
            .try_for_each(|wanted| compare(wanted, &before.ips))
    }

    fn gc(&self, _: &Request<'_>, _: Option<&[Attachment]>) -> Result<(), Error> {
        Ok(())
    }

    fn status(&self, request: &Request<'_>) -> Result<(), Error> {
        config::read(request).map(drop)
    }
}

/// Whether the attachment has the address, and its gateway where the configuration names one.
fn compare(wanted: &IpConfig, held: &[IpConfig]) -> Result<(), Error> {
    let address = wanted.address;
    let Some(found) = held.iter().find(|ip| ip.address.ip() == address.ip()) else {
        return Err(Error::other(format!(
            "static: the attachment does not have address {address}"
        )));
    };
    match (wanted.gateway, found.gateway) {
        (Some(wanted), found) if found != Some(wanted) => {
            let found = found.map_or_else(|| "none".to_owned(), |ip| ip.to_string());
            Err(Error::other(format!(
                "static: address {address} has gateway {found}, not {wanted}"
            )))
        }
        _ => Ok(()),
    }
}
