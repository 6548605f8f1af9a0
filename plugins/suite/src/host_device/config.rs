//! The network configuration of `host-device`.

use std::fmt;
use std::path::{Component, Path, PathBuf};

use netstate::{IfName, MacAddr};
use protocol::{AddResult, Dns, Error, Request};
use serde::Deserialize;

use crate::device::{Wish, ipam_plugin};
use crate::host_device::sysfs::Sysfs;
use crate::ipam::IpamSection;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Raw {
    device: String,
    hwaddr: String,
    kernelpath: String,
    #[serde(rename = "pciBusID")]
    pci_bus_id: String,
    #[serde(rename = "runtimeConfig")]
    runtime_config: RawRuntime,
    ipam: IpamSection,
    dns: Dns,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawRuntime {
    #[serde(rename = "deviceID")]
    device_id: String,
}

/// What names the device. The first one that is given counts, in this order, except that
/// `runtimeConfig.deviceID` takes the place of `pciBusID`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// Its name on the host (`device`).
    Name(IfName),
    /// Its Ethernet address (`hwaddr`).
    Mac(MacAddr),
    /// Its folder in `/sys/devices` (`kernelpath`).
    KernelPath(PathBuf),
    /// Its PCI address (`pciBusID` or `runtimeConfig.deviceID`).
    Pci(String),
    /// Its name on the auxiliary bus (`runtimeConfig.deviceID`).
    Auxiliary(String),
}

/// The checked configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// What names the device.
    pub selector: Selector,
    /// Addresses and name resolution.
    pub wish: Wish,
}

// === impl Selector ===

impl Selector {
    /// Its PCI address, if that is what names it.
    #[must_use]
    pub fn pci(&self) -> Option<&str> {
        match self {
            Self::Pci(address) => Some(address),
            _ => None,
        }
    }

    /// Its folder in sysfs, if that is how it is found.
    #[must_use]
    pub fn folder(&self, sysfs: &Sysfs) -> Option<PathBuf> {
        match self {
            Self::KernelPath(path) => Some(path.clone()),
            Self::Pci(address) => Some(sysfs.pci(address)),
            Self::Auxiliary(name) => Some(sysfs.auxiliary(name)),
            Self::Name(_) | Self::Mac(_) => None,
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "device {name}"),
            Self::Mac(mac) => write!(f, "hwaddr {mac}"),
            Self::KernelPath(path) => write!(f, "kernelpath {}", path.display()),
            Self::Pci(address) => write!(f, "pciBusID {address}"),
            Self::Auxiliary(name) => write!(f, "runtimeConfig.deviceID {name}"),
        }
    }
}

// === impl Config ===

impl Config {
    /// Whether a userspace driver (DPDK) has the device.
    #[must_use]
    pub fn is_userspace(&self, sysfs: &Sysfs) -> bool {
        let pci = self.selector.pci();
        pci.is_some_and(|address| sysfs.has_userspace_driver(address))
    }
}

/// Reads the configuration.
///
/// # Errors
/// Code 6 for another form, 7 for a device that is not named or not named properly.
pub fn read(request: &Request<'_>, sysfs: &Sysfs) -> Result<Config, Error> {
    let raw: Raw = request.config_as()?;
    Ok(Config {
        selector: selector(&raw, sysfs)?,
        wish: Wish {
            ipam: ipam_plugin(raw.ipam),
            known: AddResult::default(),
            dns: raw.dns,
            announce: false,
        },
    })
}

fn selector(raw: &Raw, sysfs: &Sysfs) -> Result<Selector, Error> {
    let wrong = |key: &str, error: netstate::NameError| Error::config(format!("{key}: {error}"));
    let on_bus = on_bus(raw, sysfs)?;
    if !raw.device.is_empty() {
        let name = raw.device.parse().map_err(|e| wrong("device", e))?;
        return Ok(Selector::Name(name));
    }
    if !raw.hwaddr.is_empty() {
        let mac = raw.hwaddr.parse().map_err(|e| wrong("hwaddr", e))?;
        return Ok(Selector::Mac(mac));
    }
    if !raw.kernelpath.is_empty() {
        let path = Path::new(&raw.kernelpath);
        let plain = !path.components().any(|part| part == Component::ParentDir);
        if path.starts_with("/sys/devices") && plain {
            return Ok(Selector::KernelPath(path.to_owned()));
        }
        let msg = format!(
            "kernelpath {:?} is not below /sys/devices; give such a path without '..'",
            raw.kernelpath
        );
        return Err(Error::config(msg));
    }
    on_bus.ok_or_else(|| {
        let msg = "no device is named; give device, hwaddr, kernelpath, pciBusID or \
                   runtimeConfig.deviceID";
        Error::config(msg)
    })
}

fn on_bus(raw: &Raw, sysfs: &Sysfs) -> Result<Option<Selector>, Error> {
    let id = &raw.runtime_config.device_id;
    for (key, value) in [
        ("pciBusID", &raw.pci_bus_id),
        ("runtimeConfig.deviceID", id),
    ] {
        if value.contains(['/', '\0']) || value == "." || value == ".." {
            let msg = format!("{key} {value:?} is no name of a device on a bus");
            return Err(Error::config(msg));
        }
    }
    if id.is_empty() {
        let address = Some(&raw.pci_bus_id).filter(|address| !address.is_empty());
        return Ok(address.cloned().map(Selector::Pci));
    }
    if sysfs.pci(id).exists() {
        return Ok(Some(Selector::Pci(id.clone())));
    }
    if sysfs.auxiliary(id).exists() {
        return Ok(Some(Selector::Auxiliary(id.clone())));
    }
    let msg = format!("runtimeConfig.deviceID {id:?} is neither a PCI nor an auxiliary device");
    Err(Error::config(msg))
}
