//! The Ethernet address that somebody asks for in one of four places.

use netstate::MacAddr;
use protocol::{Error, Request};
use serde::Deserialize;

/// An object with `mac`, as `runtimeConfig` is.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct MacField {
    mac: Option<String>,
}

/// The object `args`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct MacArgs {
    cni: MacField,
}

/// The wished address: the configuration's `mac` < `MAC` in `CNI_ARGS` < `args.cni.mac` <
/// `runtimeConfig.mac`.
///
/// # Errors
/// Code 7 for what is no unicast address, 4 for unknown keys in `CNI_ARGS`.
pub fn wished(
    request: &Request<'_>,
    own: Option<&str>,
    args: &MacArgs,
    runtime: &MacField,
) -> Result<Option<MacAddr>, Error> {
    request.args.check_known(&["MAC", "IP", "GATEWAY"])?;
    let sources = [
        ("runtimeConfig.mac", runtime.mac.as_deref()),
        ("args.cni.mac", args.cni.mac.as_deref()),
        ("CNI_ARGS MAC", request.args.get("MAC")),
        ("mac", own),
    ];
    let given = |(field, text): (_, Option<&str>)| {
        Some((field, text.filter(|t| !t.is_empty())?.to_owned()))
    };
    let Some((field, text)) = sources.into_iter().find_map(given) else {
        return Ok(None);
    };
    let mac: MacAddr = text
        .parse()
        .map_err(|error| Error::config(format!("{field}: {error}")))?;
    if mac.is_unicast() {
        return Ok(Some(mac));
    }
    let msg = format!("{field}: {mac} is zero or multicast; give a unicast address");
    Err(Error::config(msg))
}
