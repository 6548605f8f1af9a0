//! The network configuration of `tap`.

use netstate::{IfName, MacAddr, Mtu};
use protocol::{AddResult, Dns, Error, Request};
use serde::Deserialize;

use crate::device::{Wish, ipam_plugin};
use crate::ipam::IpamSection;
use crate::mac::{self, MacArgs, MacField};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Raw {
    multi_queue: bool,
    owner: Option<u32>,
    group: Option<u32>,
    selinux_context: String,
    bridge: String,
    mac: Option<String>,
    mtu: i64,
    args: MacArgs,
    runtime_config: MacField,
    ipam: IpamSection,
    dns: Dns,
}

/// The checked configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Several queues may be opened.
    pub multi_queue: bool,
    /// The user that may open it.
    pub owner: Option<u32>,
    /// The group that may open it.
    pub group: Option<u32>,
    /// The SELinux context that it is created in.
    pub selinux_context: Option<String>,
    /// A bridge in the container that it is a port of.
    pub bridge: Option<IfName>,
    /// Ethernet address that was asked for.
    pub mac: Option<MacAddr>,
    /// MTU; `None` is the kernel's.
    pub mtu: Option<Mtu>,
    /// Addresses and name resolution.
    pub wish: Wish,
}

/// Reads the configuration.
///
/// # Errors
/// Code 6 for another form, 7 for values that cannot be, 4 for unknown keys in `CNI_ARGS`.
pub fn read(request: &Request<'_>) -> Result<Config, Error> {
    let raw: Raw = request.config_as()?;
    let mac = mac::wished(request, raw.mac.as_deref(), &raw.args, &raw.runtime_config)?;
    let bridge = match raw.bridge.as_str() {
        "" => None,
        name => Some(
            name.parse()
                .map_err(|error| Error::config(format!("bridge: {error}")))?,
        ),
    };
    let context = raw.selinux_context;
    if context.contains('\0') {
        let msg = format!("selinuxContext {context:?} holds a zero byte; remove it");
        return Err(Error::config(msg));
    }
    Ok(Config {
        multi_queue: raw.multi_queue,
        owner: raw.owner,
        group: raw.group,
        selinux_context: Some(context).filter(|context| !context.is_empty()),
        bridge,
        mac,
        mtu: mtu(raw.mtu)?,
        wish: Wish {
            ipam: ipam_plugin(raw.ipam),
            known: AddResult::default(),
            dns: raw.dns,
            announce: false,
        },
    })
}

/// What fits a frame of 65535 bytes with its header (`MAX_MTU` of the kernel's driver).
const LARGEST: u32 = 65521;

fn mtu(value: i64) -> Result<Option<Mtu>, Error> {
    if value == 0 {
        return Ok(None);
    }
    let fits = u32::try_from(value).ok().filter(|value| *value <= LARGEST);
    fits.and_then(|value| Mtu::try_from(value).ok())
        .map(Some)
        .ok_or_else(|| {
            let msg = format!(
                "mtu {value} does not go on a tap device; give 68 to {LARGEST}, or 0 for 1500"
            );
            Error::config(msg)
        })
}
