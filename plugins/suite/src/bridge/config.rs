//! The network configuration of `bridge`.

use netstate::{IfName, MacAddr, Mtu, PortVlans};
use protocol::{Dns, Error, Request};
use serde::Deserialize;

use crate::bridge::vlans::{self, RawTrunk};
use crate::dns::RawDns;
use crate::ipam::IpamSection;
use crate::mac::{self, MacArgs, MacField};
use crate::masquerade::Backend;
use crate::ptp::config::mtu;

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
    vlan: i64,
    vlan_trunk: Option<Vec<RawTrunk>>,
    preserve_default_vlan: Option<bool>,
    macspoofchk: bool,
    enabledad: bool,
    disable_container_interface: bool,
    mac: Option<String>,
    args: MacArgs,
    runtime_config: MacField,
    ipam: IpamSection,
    dns: RawDns,
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
    /// MTU of a new bridge and of the veth; `None` is the default route's device's.
    pub mtu: Option<Mtu>,
    /// Frames may go back to the pod they came from.
    pub hairpin: bool,
    /// The bridge takes all frames.
    pub promiscuous: bool,
    /// Pods cannot reach each other through the bridge.
    pub isolated: bool,
    /// VLANs of the pod's port, on a bridge that keeps VLANs apart.
    pub vlans: Option<PortVlans>,
    /// The interface with the gateway's addresses in the pod's VLAN, if the pod is in one.
    pub vlan_gateway: Option<IfName>,
    /// Frames that the pod sends under another Ethernet address are discarded.
    pub spoof_check: bool,
    /// IPv6 addresses are looked for on the link before they are used.
    pub detect_duplicates: bool,
    /// The pod's end stays down.
    pub leave_down: bool,
    /// What pods send beyond their subnet gets the node's address, by this backend.
    pub masquerade: Option<Backend>,
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
/// Code 6 for another form, 7 for values that cannot be.
pub fn read(request: &Request<'_>) -> Result<Config, Error> {
    let raw: Raw = request.config_as()?;
    let mac = mac::wished(request, raw.mac.as_deref(), &raw.args, &raw.runtime_config)?;
    let ipam = Some(raw.ipam.plugin).filter(|plugin| !plugin.is_empty());
    if raw.hairpin_mode && raw.promisc_mode {
        return Err(Error::config(
            "hairpinMode and promiscMode exclude each other; choose one",
        ));
    }
    if raw.disable_container_interface && ipam.is_some() {
        return Err(Error::config(
            "disableContainerInterface leaves the pod's interface down, so that ipam is of no \
             use; remove one",
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
    let masquerade = Backend::named(&raw.ip_masq_backend)?;
    // The reference keeps the default VLAN unless told otherwise.
    let keep_default = raw.preserve_default_vlan.unwrap_or(true);
    let vlans = vlans::read(raw.vlan, raw.vlan_trunk.as_deref(), keep_default)?;
    let is_gateway = raw.is_gateway || raw.is_default_gateway;
    let vlan_gateway = match raw.vlan {
        0 => None,
        vlan if is_gateway => Some(vlan_gateway(&bridge, vlan)?),
        _ => None,
    };
    Ok(Config {
        bridge,
        is_gateway,
        is_default_gateway: raw.is_default_gateway,
        force_address: raw.force_address,
        mtu: mtu(raw.mtu)?,
        hairpin: raw.hairpin_mode,
        promiscuous: raw.promisc_mode,
        isolated: raw.port_isolation,
        vlans,
        vlan_gateway,
        spoof_check: raw.macspoofchk,
        detect_duplicates: raw.enabledad,
        leave_down: raw.disable_container_interface,
        masquerade: raw.ip_masq.then_some(masquerade),
        mac,
        ipam,
        dns: raw.dns.chosen(),
    })
}

fn vlan_gateway(bridge: &IfName, vlan: i64) -> Result<IfName, Error> {
    format!("{bridge}.{vlan}")
        .parse()
        .map_err(|error| Error::config(format!("vlan's gateway: {error}; shorten bridge")))
}
