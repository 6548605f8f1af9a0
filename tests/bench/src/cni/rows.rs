//! What is measured: chains of plugins, with the configuration of each.

use std::path::Path;

use serde_json::{Value, json};

use crate::cni::figure::Bar;
use crate::cni::floor::Kind;

/// Addresses that are reserved already where the row says so.
pub(crate) const RESERVED: u32 = 10_000;

/// A chain of plugins, one of which is measured.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) chain: &'static [Plugin],
    /// Which one of the chain.
    pub(crate) measured: usize,
    /// The bare kernel calls that the measured one needs.
    pub(crate) floor: Option<Kind>,
    /// The reference is called in one of this many rounds.
    pub(crate) reference_every: usize,
    pub(crate) add: &'static [Bar],
    pub(crate) del: &'static [Bar],
    /// Whether the store of addresses is filled before.
    pub(crate) filled: bool,
}

/// A plugin with the options that matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plugin {
    Bridge { masquerade: bool, v6: bool },
    Ptp,
    HostLocal,
    Portmap,
    Firewall,
    Bandwidth,
}

const BRIDGE: Plugin = Plugin::Bridge {
    masquerade: false,
    v6: false,
};
const MASQUERADED: Plugin = Plugin::Bridge {
    masquerade: true,
    v6: false,
};
const DUAL: Plugin = Plugin::Bridge {
    masquerade: false,
    v6: true,
};

const fn row(name: &'static str, chain: &'static [Plugin]) -> Row {
    Row {
        name,
        chain,
        measured: chain.len() - 1,
        floor: None,
        reference_every: 1,
        add: &[],
        del: &[],
        filled: false,
    }
}

/// The rows that are measured one call at a time.
pub(crate) const ROWS: &[Row] = &[
    Row {
        floor: Some(Kind::Bridge),
        add: &[Bar::OfReference(1.0 / 4.0)],
        del: &[Bar::OfFloor(1.15)],
        ..row("bridge + host-local", &[BRIDGE])
    },
    Row {
        floor: Some(Kind::Masqueraded),
        add: &[Bar::OfReference(1.0 / 8.0)],
        del: &[Bar::OfReference(1.0 / 3.0)],
        ..row("bridge + host-local, ipMasq", &[MASQUERADED])
    },
    Row {
        floor: Some(Kind::DualBridge),
        ..row("bridge + host-local, IPv4 and IPv6", &[DUAL])
    },
    Row {
        floor: Some(Kind::DualPtp),
        // The reference waits for duplicate address detection, nearly two seconds each time.
        reference_every: 5,
        ..row("ptp + host-local, IPv4 and IPv6", &[Plugin::Ptp])
    },
    Row {
        floor: Some(Kind::Rule),
        ..row("portmap alone", &[BRIDGE, Plugin::Portmap])
    },
    Row {
        floor: Some(Kind::Rule),
        ..row("firewall alone", &[BRIDGE, Plugin::Firewall])
    },
    row("bandwidth alone", &[BRIDGE, Plugin::Bandwidth]),
    Row {
        add: &[Bar::Millis(10.0)],
        del: &[Bar::Millis(10.0)],
        filled: true,
        ..row("host-local at 10,000 reservations", &[Plugin::HostLocal])
    },
];

/// The chains that many containers go through at once.
pub(crate) const CROWDS: &[Row] = &[
    Row {
        add: &[Bar::OfReference(1.0 / 6.0)],
        del: &[Bar::OfReference(1.0 / 6.0)],
        ..row(
            "50 parallel chains bridge, portmap, firewall",
            &[BRIDGE, Plugin::Portmap, Plugin::Firewall],
        )
    },
    row(
        "50 parallel chains bridge, portmap, firewall, bandwidth",
        &[BRIDGE, Plugin::Portmap, Plugin::Firewall, Plugin::Bandwidth],
    ),
];

// === impl Plugin ===

impl Plugin {
    /// Its name, which is the name of its file.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Bridge { .. } => "bridge",
            Self::Ptp => "ptp",
            Self::HostLocal => "host-local",
            Self::Portmap => "portmap",
            Self::Firewall => "firewall",
            Self::Bandwidth => "bandwidth",
        }
    }

    /// Its configuration, with state kept in `state`, for container `number`, after `previous`.
    pub(crate) fn config(self, state: &Path, number: u16, previous: &Value) -> Value {
        let mut config = match self {
            Self::Bridge { masquerade, v6 } => json!({
                "bridge": "cni0", "isGateway": true, "ipMasq": masquerade, "ipam": ipam(state, v6),
            }),
            Self::Ptp => json!({ "ipam": ipam(state, true) }),
            Self::HostLocal => json!({ "ipam": ipam(state, false) }),
            Self::Portmap => json!({
                "capabilities": { "portMappings": true },
                "runtimeConfig": { "portMappings": [
                    { "hostPort": 20_000 + number, "containerPort": 80, "protocol": "tcp" },
                ] },
            }),
            Self::Firewall => json!({}),
            Self::Bandwidth => json!({
                "ingressRate": 100_000_000, "ingressBurst": 10_000_000,
                "egressRate": 100_000_000, "egressBurst": 10_000_000,
            }),
        };
        config["cniVersion"] = "1.0.0".into();
        config["name"] = "bench".into();
        config["type"] = self.name().into();
        if !previous.is_null() {
            config["prevResult"] = previous.clone();
        }
        config
    }
}

fn ipam(state: &Path, v6: bool) -> Value {
    let mut ranges = vec![json!([{ "subnet": "10.88.0.0/16" }])];
    let mut routes = vec![json!({ "dst": "0.0.0.0/0" })];
    if v6 {
        ranges.push(json!([{ "subnet": "fd00:88::/64" }]));
        routes.push(json!({ "dst": "::/0" }));
    }
    json!({ "type": "host-local", "dataDir": state, "ranges": ranges, "routes": routes })
}
