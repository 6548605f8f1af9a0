//! The network configuration of `bridge`.

use netstate::{IfName, MacAddr, Mtu};
use protocol::{Dns, Error, Request};
use serde::Deserialize;
use serde_json::Value;

use crate::ipam::IpamSection;
use crate::ptp::config::{check_backend, mtu};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "the configuration's own form"
)]
struct Raw {
    bridge: String,
    is_gateway: bool,
    is_default_gateway: bool,
    force_address: bool,
    ip_masq: bool,
    ip_masq_backend: String,
    mtu: u32,
    hairpin_mode: bool,
    promisc_mode: bool,
    port_isolation: bool,
    vlan: u32,
    vlan_trunk: Option<Value>,
    macspoofchk: bool,
    disable_container_interface: bool,
    mac: Option<String>,
    args: RawArgs,
    runtime_config: RawRuntime,
    ipam: IpamSection,
    dns: Option<Dns>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawArgs {
    cni: RawRuntime,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawRuntime {
    mac: Option<String>,
}

/// The checked configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "independent switches, as in the configuration"
)]
pub struct Config {
    /// The bridge.
    pub bridge: IfName,
    /// The bridge has the gateway's address.
    pub is_gateway: bool,
    /// The pod's default route goes through it.
    pub is_default_gateway: bool,
    /// Other addresses of the bridge are removed rather than refused.
    pub force_address: bool,
    /// MTU of bridge and veth; `None` is the kernel's.
    pub mtu: Option<Mtu>,
    /// Frames may go back to the pod they came from.
    pub hairpin: bool,
    /// The bridge takes all frames.
    pub promiscuous: bool,
    /// Pods cannot reach each other through the bridge.
    pub isolated: bool,
    /// What pods send beyond their subnet gets the node's address.
    pub masquerade: bool,
    /// Ethernet address of the pod's end.
    pub mac: Option<MacAddr>,
    /// The IPAM plugin; `None` for a bridge without addresses.
    pub ipam: Option<String>,
    /// Name resolution, in place of IPAM's.
    pub dns: Option<Dns>,
}

/// Reads the configuration.
///
/// # Errors
/// Code 6 for another form, 7 for values that cannot be, 2 for what this plugin does not do.
pub fn read(request: &Request<'_>) -> Result<Config, Error> {
    let raw: Raw = request.config_as()?;
    unsupported(&raw)?;
    if raw.hairpin_mode && raw.promisc_mode {
        return Err(Error::config(
            "hairpinMode and promiscMode exclude each other; choose one",
        ));
    }
    let name = if raw.bridge.is_empty() {
        "cni0"
    } else {
        &raw.bridge
    };
    let bridge = name
        .parse()
        .map_err(|error| Error::config(format!("bridge: {error}")))?;
    Ok(Config {
        bridge,
        is_gateway: raw.is_gateway || raw.is_default_gateway,
        is_default_gateway: raw.is_default_gateway,
        force_address: raw.force_address,
        mtu: mtu(raw.mtu)?,
        hairpin: raw.hairpin_mode,
        promiscuous: raw.promisc_mode,
        isolated: raw.port_isolation,
        masquerade: raw.ip_masq,
        mac: mac(request, &raw)?,
        ipam: Some(raw.ipam.plugin).filter(|plugin| !plugin.is_empty()),
        dns: raw.dns,
    })
}

fn unsupported(raw: &Raw) -> Result<(), Error> {
    check_backend(&raw.ip_masq_backend)?;
    let asked = [
        ("vlan", raw.vlan != 0),
        (
            "vlanTrunk",
            raw.vlan_trunk
                .as_ref()
                .is_some_and(|value| !value.is_null()),
        ),
        ("macspoofchk", raw.macspoofchk),
        ("disableContainerInterface", raw.disable_container_interface),
    ];
    match asked.iter().find(|(_, asked)| *asked) {
        Some((field, _)) => {
            let msg = format!("{field} is not supported by this plugin yet; remove it");
            Err(Error::unsupported_field(msg))
        }
        None => Ok(()),
    }
}

/// `CNI_ARGS` < `args.cni.mac` < `runtimeConfig.mac`; the configuration's own `mac` is the least.
fn mac(request: &Request<'_>, raw: &Raw) -> Result<Option<MacAddr>, Error> {
    request.args.check_known(&["MAC", "IP", "GATEWAY"])?;
    let sources = [
        ("runtimeConfig.mac", raw.runtime_config.mac.as_deref()),
        ("args.cni.mac", raw.args.cni.mac.as_deref()),
        ("CNI_ARGS MAC", request.args.get("MAC")),
        ("mac", raw.mac.as_deref()),
    ];
    let Some((field, text)) = sources
        .into_iter()
        .find_map(|(field, text)| Some((field, text.filter(|t| !t.is_empty())?)))
    else {
        return Ok(None);
    };
    let mac: MacAddr = text
        .parse()
        .map_err(|error| Error::config(format!("{field}: {error}")))?;
    if mac.is_unicast() {
        Ok(Some(mac))
    } else {
        Err(Error::config(format!(
            "{field}: {mac} is zero or multicast; give a unicast address"
        )))
    }
}
