//! The `Backend` part: what carries packets between nodes.

use netstate::wireguard::Key;
use netstate::{Mtu, Vni};
use serde_json::Value;

use super::fields::Fields;
use crate::config::error::ConfigError;

/// UDP port of VXLAN where the configuration says 0 or nothing: the kernel's default.
pub const VXLAN_PORT: u16 = 8472;
/// UDP ports of WireGuard, IPv4 and IPv6.
const WIREGUARD_PORTS: (u16, u16) = (51_820, 51_821);

/// The backend, checked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum BackendConf {
    /// VXLAN devices.
    Vxlan(VxlanConf),
    /// Routes alone.
    HostGw,
    /// An IP-in-IP device.
    Ipip {
        /// Nodes on the same network are reached without it.
        direct_routing: bool,
    },
    /// WireGuard devices.
    Wireguard(WireguardConf),
    /// Somebody else carries packets.
    Alloc,
}

/// Parameters of the VXLAN backend.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct VxlanConf {
    /// The network's number; the devices are `flannel.<VNI>` and `flannel-v6.<VNI>`.
    pub vni: Vni,
    /// UDP port, never 0.
    pub port: u16,
    /// MTU of the underlay; the chosen interface's if not given.
    pub mtu: Option<Mtu>,
    /// Nodes on the same network are reached without the device.
    pub direct_routing: bool,
    /// The device learns addresses from traffic.
    pub learning: bool,
    /// Packets carry their mark (group based policy).
    pub gbp: bool,
}

/// Parameters of the WireGuard backend.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WireguardConf {
    /// UDP port of the IPv4 device.
    pub port: u16,
    /// UDP port of the IPv6 device.
    pub port_v6: u16,
    /// MTU of the underlay; the chosen interface's if not given.
    pub mtu: Option<Mtu>,
    /// A key that all nodes share.
    pub preshared_key: Option<Key>,
    /// Seconds between packets that keep a way through NAT open; 0 for none.
    pub keepalive: u16,
}

// === impl BackendConf ===

impl BackendConf {
    /// Reads the object; keys that mean nothing are added to `ignored`.
    pub(super) fn read(
        source_name: &str,
        object: &Value,
        ignored: &mut Vec<String>,
    ) -> Result<Self, ConfigError> {
        let mut fields = Fields::of(source_name, "Backend.", object)?;
        let kind = fields.string("Type")?.unwrap_or_default();
        let backend = match kind.to_ascii_lowercase().as_str() {
            "vxlan" => Self::Vxlan(vxlan(&mut fields)?),
            "host-gw" => Self::HostGw,
            "alloc" => Self::Alloc,
            "ipip" => Self::Ipip {
                direct_routing: fields.bool("DirectRouting")?.unwrap_or(false),
            },
            "wireguard" => Self::Wireguard(wireguard(&mut fields)?),
            _ => {
                let remedy = "write \"vxlan\", \"host-gw\", \"ipip\", \"wireguard\" or \"alloc\"";
                return Err(fields.error("Type", &kind, remedy));
            }
        };
        ignored.extend(fields.rest(&["macprefix"]));
        Ok(backend)
    }

    /// The MTU of the underlay, where it is given.
    #[must_use]
    pub const fn mtu(&self) -> Option<Mtu> {
        match self {
            Self::Vxlan(vxlan) => vxlan.mtu,
            Self::Wireguard(wireguard) => wireguard.mtu,
            Self::HostGw | Self::Ipip { .. } | Self::Alloc => None,
        }
    }
}

fn vxlan(fields: &mut Fields<'_>) -> Result<VxlanConf, ConfigError> {
    let vni = fields.number("VNI", 1, (1 << 24) - 1)?.unwrap_or(1);
    let vni = fields.checked("VNI", vni, |vni| {
        Vni::try_from(u32::try_from(vni).unwrap_or(u32::MAX))
    })?;
    Ok(VxlanConf {
        vni,
        port: port(fields, "Port")?.unwrap_or(VXLAN_PORT),
        mtu: mtu(fields)?,
        direct_routing: fields.bool("DirectRouting")?.unwrap_or(false),
        learning: fields.bool("Learning")?.unwrap_or(false),
        gbp: fields.bool("GBP")?.unwrap_or(false),
    })
}

fn wireguard(fields: &mut Fields<'_>) -> Result<WireguardConf, ConfigError> {
    if let Some(mode) = fields.string("Mode")?.filter(|mode| mode != "separate") {
        let remedy =
            "one device for each family is what there is; leave it out or write \"separate\"";
        return Err(fields.error("Mode", &mode, remedy));
    }
    let preshared_key = match fields.string("PSK")?.filter(|text| !text.is_empty()) {
        None => None,
        Some(text) => Some(text.parse().map_err(|_| {
            // It is a secret: the log does not repeat it.
            fields.error(
                "PSK",
                "…",
                "write 32 bytes in base64, as `wg genpsk` prints them",
            )
        })?),
    };
    let keepalive = fields.number("PersistentKeepaliveInterval", 0, 65_535)?;
    Ok(WireguardConf {
        port: port(fields, "ListenPort")?.unwrap_or(WIREGUARD_PORTS.0),
        port_v6: port(fields, "ListenPortV6")?.unwrap_or(WIREGUARD_PORTS.1),
        mtu: mtu(fields)?,
        preshared_key,
        keepalive: keepalive
            .and_then(|seconds| seconds.try_into().ok())
            .unwrap_or(0),
    })
}

/// A UDP port, where 0 is as good as nothing.
fn port(fields: &mut Fields<'_>, name: &str) -> Result<Option<u16>, ConfigError> {
    let port = fields.number(name, 0, u64::from(u16::MAX))?;
    Ok(port
        .and_then(|port| port.try_into().ok())
        .filter(|port| *port != 0))
}

/// An MTU, where 0 is as good as nothing.
fn mtu(fields: &mut Fields<'_>) -> Result<Option<Mtu>, ConfigError> {
    match fields.number("MTU", 0, 65_535)? {
        None | Some(0) => Ok(None),
        Some(mtu) => fields
            .checked("MTU", mtu, |mtu| {
                Mtu::try_from(u32::try_from(mtu).unwrap_or(u32::MAX))
            })
            .map(Some),
    }
}
