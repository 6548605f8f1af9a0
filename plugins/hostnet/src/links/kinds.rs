//! What only some kinds of interfaces have (`IFLA_INFO_DATA`): written on creation, read back.

use std::net::Ipv4Addr;

use netstate::{IpvlanMode, LinkKind, MacvlanMode};

use crate::wire::message::{Message, find, read_u16, read_u32};
use crate::wire::rt::{
    IFLA_INFO_DATA, IFLA_IPTUN_LOCAL, IFLA_IPVLAN_MODE, IFLA_MACVLAN_BC_QUEUE_LEN,
    IFLA_MACVLAN_MODE, IFLA_TUN_GROUP, IFLA_TUN_MULTI_QUEUE, IFLA_TUN_OWNER, IFLA_TUN_TYPE,
    IFLA_VLAN_ID, IFLA_VRF_TABLE,
};

/// `IFF_TAP` as the kernel reports it.
const IFF_TAP: u8 = 2;

/// What only an interface of its kind has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkDetails {
    /// Nothing, or nothing that is read here.
    #[default]
    None,
    /// A macvlan device's mode; `None` for one that cannot be asked for here (`source`).
    Macvlan(Option<MacvlanMode>),
    /// An ipvlan device's mode.
    Ipvlan(Option<IpvlanMode>),
    /// A VLAN device's identifier.
    Vlan(u16),
    /// A VRF's routing table.
    Vrf(u32),
    /// An IP-in-IP device's source address.
    Ipip(Ipv4Addr),
    /// A tap device.
    Tap {
        /// Whether it has several queues.
        multi_queue: bool,
        /// The user that may open it.
        owner: Option<u32>,
        /// The group that may open it.
        group: Option<u32>,
    },
}

/// The kernel's name of a kind that can be created.
pub(super) fn name(kind: &LinkKind) -> Option<&'static str> {
    Some(match kind {
        LinkKind::Veth(_) => "veth",
        LinkKind::Bridge => "bridge",
        LinkKind::Vxlan(_) => "vxlan",
        LinkKind::Macvlan(_) => "macvlan",
        LinkKind::Ipvlan { .. } => "ipvlan",
        LinkKind::Vlan { .. } => "vlan",
        LinkKind::Dummy => "dummy",
        LinkKind::Ifb => "ifb",
        LinkKind::Ipip { .. } => "ipip",
        LinkKind::Wireguard => "wireguard",
        LinkKind::Vrf { .. } => "vrf",
        _ => return None,
    })
}

/// Appends what `kind` has, for the kinds with little of it.
pub(super) fn encode(info: &mut Message, kind: &LinkKind) {
    match kind {
        LinkKind::Macvlan(macvlan) => info.nest(IFLA_INFO_DATA, |data| {
            data.u32(IFLA_MACVLAN_MODE, macvlan.mode.number());
            if let Some(length) = macvlan.broadcast_queue {
                data.u32(IFLA_MACVLAN_BC_QUEUE_LEN, length);
            }
        }),
        LinkKind::Ipvlan { mode, .. } => info.nest(IFLA_INFO_DATA, |data| {
            data.attr(IFLA_IPVLAN_MODE, &mode.number().to_ne_bytes());
        }),
        LinkKind::Vlan { id, .. } => info.nest(IFLA_INFO_DATA, |data| {
            data.attr(IFLA_VLAN_ID, &id.to_ne_bytes());
        }),
        LinkKind::Ipip { local } => info.nest(IFLA_INFO_DATA, |data| {
            data.attr(IFLA_IPTUN_LOCAL, &local.octets());
        }),
        LinkKind::Vrf { table } => info.nest(IFLA_INFO_DATA, |data| {
            data.u32(IFLA_VRF_TABLE, *table);
        }),
        _ => info,
    };
}

/// What `data` says about an interface of kind `kind`.
pub(super) fn decode(kind: &str, data: &[u8]) -> LinkDetails {
    let short = |at| find(data, at).map(|value| read_u16(value, 0));
    let long = |at| find(data, at).map(|value| read_u32(value, 0));
    match kind {
        "macvlan" => {
            LinkDetails::Macvlan(long(IFLA_MACVLAN_MODE).and_then(MacvlanMode::from_number))
        }
        "ipvlan" => LinkDetails::Ipvlan(short(IFLA_IPVLAN_MODE).and_then(IpvlanMode::from_number)),
        "vlan" => short(IFLA_VLAN_ID).map_or(LinkDetails::None, LinkDetails::Vlan),
        "tun" if find(data, IFLA_TUN_TYPE).and_then(|value| value.first()) == Some(&IFF_TAP) => {
            let several = find(data, IFLA_TUN_MULTI_QUEUE).and_then(|value| value.first());
            LinkDetails::Tap {
                multi_queue: several == Some(&1),
                owner: long(IFLA_TUN_OWNER),
                group: long(IFLA_TUN_GROUP),
            }
        }
        "ipip" => find(data, IFLA_IPTUN_LOCAL)
            .and_then(|value| <[u8; 4]>::try_from(value).ok())
            .map_or(LinkDetails::None, |local| LinkDetails::Ipip(local.into())),
        "vrf" => long(IFLA_VRF_TABLE).map_or(LinkDetails::None, LinkDetails::Vrf),
        _ => LinkDetails::None,
    }
}
