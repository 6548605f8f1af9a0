//! What the overlay's settings choose between.

use clap::ValueEnum;
use desired::masquerade;
use serde::{Deserialize, Serialize};

use super::settings::Settings;

/// What the settings say of the rules and devices of the overlay.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct OverlayOptions {
    /// What the rules do.
    pub rules: masquerade::Options,
    /// Where the rules are.
    pub backend: MasqueradeBackend,
    /// Whether this node's subnets have a black hole below the pods' routes.
    pub blackhole: bool,
    /// Whether VXLAN devices leave checksums to what is below.
    pub tx_checksum: TxChecksum,
}

/// What masquerades and accepts pod traffic.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum MasqueradeBackend {
    /// The table `inet towline`.
    #[default]
    Nftables,
    /// The chains TOWLINE-POSTRTG and TOWLINE-FWD.
    Iptables,
}

/// Whether VXLAN devices leave the checksums of what they send to the interface below.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum TxChecksum {
    /// As it is, but not before Linux 5.7, which computes some of them wrongly.
    #[default]
    Auto,
    /// They do.
    On,
    /// They compute them.
    Off,
}

// === impl OverlayOptions ===

impl OverlayOptions {
    pub(super) fn of(settings: &Settings) -> Self {
        Self {
            rules: masquerade::Options {
                masquerade: settings.ip_masq.unwrap_or(true),
                nodes: settings.ip_masq_nodes.unwrap_or(false),
                random_fully: !settings.ip_masq_fully_random_disable.unwrap_or(false),
                forward: settings.iptables_forward_rules.unwrap_or(true),
            },
            backend: settings.masquerade_backend.unwrap_or_default(),
            blackhole: settings.ip_blackhole_route.unwrap_or(false),
            tx_checksum: settings.vxlan_tx_checksum.unwrap_or_default(),
        }
    }
}

impl Default for OverlayOptions {
    fn default() -> Self {
        Self::of(&Settings::default())
    }
}

// === impl TxChecksum ===

impl TxChecksum {
    /// What a device is to be told on a kernel of this release (`uname -r`); `None` for nothing.
    #[must_use]
    pub fn wanted(self, release: &str) -> Option<bool> {
        match self {
            Self::On => Some(true),
            Self::Off => Some(false),
            Self::Auto => {
                let mut numbers = release.split(|c: char| !c.is_ascii_digit());
                let mut number = || numbers.next().and_then(|text| text.parse::<u32>().ok());
                // A release that cannot be read is one of the future rather than of the past.
                let version = (number()?, number()?);
                (version < (5, 7)).then_some(false)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_old_kernels_need_another_checksum() {
        for (release, wanted) in [
            ("6.18.44-generic", None),
            ("5.7.0", None),
            ("5.6.19-300.fc32.x86_64", Some(false)),
            ("4.19.0-27-amd64", Some(false)),
            ("5.4+", Some(false)),
            ("next", None),
        ] {
            assert_eq!(TxChecksum::Auto.wanted(release), wanted, "{release}");
        }
        assert_eq!(TxChecksum::On.wanted("4.19.0"), Some(true));
        assert_eq!(TxChecksum::Off.wanted("6.1.0"), Some(false));
    }
}
