//! What plugins leave on the node when no pod is left: chains and tables that belong to no pod.

use crate::world::Maker;

const PORTMAP_IPTABLES: &[&str] = &[
    "iptables nat :CNI-HOSTPORT-DNAT",
    "iptables nat :CNI-HOSTPORT-MASQ",
    "iptables nat :CNI-HOSTPORT-SETMARK",
    "iptables nat -A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT",
    "iptables nat -A OUTPUT -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT",
    "iptables nat -A POSTROUTING -m comment --comment \"CNI portfwd requiring masquerade\" \
     -j CNI-HOSTPORT-MASQ",
    "iptables nat -A CNI-HOSTPORT-MASQ -m mark --mark 0x2000/0x2000 -j MASQUERADE",
    "iptables nat -A CNI-HOSTPORT-SETMARK -m comment --comment \"CNI portfwd masquerade mark\" \
     -j MARK --set-xmark 0x2000/0x2000",
];

const FIREWALL_IPTABLES: &[&str] = &[
    "iptables filter :CNI-ADMIN",
    "iptables filter :CNI-FORWARD",
    "iptables filter -A FORWARD -m comment --comment \"CNI firewall plugin rules\" -j CNI-FORWARD",
    "iptables filter -A CNI-FORWARD -m comment --comment \"CNI firewall plugin admin overrides\" \
     -j CNI-ADMIN",
];

const FIREWALL_OURS: &[&str] = &[
    "nft table inet cni_firewall, 5 rules",
    "iptables filter :CNI-ADMIN",
    "iptables filter :CNI-FORWARD",
    "iptables filter :CNI-FORWARD-OWNERS",
    "iptables filter -A FORWARD -m comment --comment \"CNI firewall plugin rules\" -j CNI-FORWARD",
    "iptables filter -A CNI-FORWARD -m comment --comment \"CNI firewall plugin admin overrides\" \
     -j CNI-ADMIN",
];

/// Lines of [`crate::observe::leftovers`] that `plugin` of `maker` always leaves.
pub(crate) fn of(plugin: &str, maker: Maker) -> &'static [&'static str] {
    match (plugin, maker) {
        ("portmap", Maker::Reference) => PORTMAP_IPTABLES,
        ("firewall", Maker::Reference) => FIREWALL_IPTABLES,
        ("portmap", Maker::Ours) => &["nft table ip cni_hostport, 4 rules"],
        ("firewall", Maker::Ours) => FIREWALL_OURS,
        ("bridge" | "ptp", Maker::Ours) => &["nft table inet cni_plugins_masquerade, 3 rules"],
        _ => &[],
    }
}
