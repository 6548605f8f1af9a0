//! Devices in sysfs: where they are, which interface they have, who drives them.

use std::fs;
use std::path::{Path, PathBuf};

use netstate::IfName;

/// Drivers that hand a device to a process (DPDK), so that it has no interface in the kernel.
const USERSPACE_DRIVERS: [&str; 3] = ["vfio-pci", "uio_pci_generic", "igb_uio"];

/// A sysfs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sysfs {
    root: PathBuf,
}

// === impl Sysfs ===

impl Default for Sysfs {
    fn default() -> Self {
        Self::at("/sys")
    }
}

impl Sysfs {
    /// The one that is mounted at `root`.
    #[must_use]
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder of the PCI device with this address, such as `0000:00:1f.6`.
    #[must_use]
    pub fn pci(&self, address: &str) -> PathBuf {
        self.root.join("bus/pci/devices").join(address)
    }

    /// The folder of the device with this name on the auxiliary bus.
    #[must_use]
    pub fn auxiliary(&self, name: &str) -> PathBuf {
        self.root.join("bus/auxiliary/devices").join(name)
    }

    /// Whether the PCI device belongs to a driver for use outside the kernel.
    #[must_use]
    pub fn has_userspace_driver(&self, address: &str) -> bool {
        let driver = fs::read_link(self.pci(address).join("driver"));
        driver.is_ok_and(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| USERSPACE_DRIVERS.contains(&name))
        })
    }
}

/// The first interface, by name, of the device in `folder`; a virtio device has it one folder
/// further down.
#[must_use]
pub fn first_interface(folder: &Path) -> Option<IfName> {
    let direct = names(&folder.join("net"));
    let below = names(folder)
        .into_iter()
        .filter(|name| name.starts_with("virtio"))
        .flat_map(|name| names(&folder.join(name).join("net")));
    let mut found: Vec<IfName> = direct
        .into_iter()
        .chain(below)
        .filter_map(|name| name.parse().ok())
        .collect();
    found.sort();
    found.into_iter().next()
}

fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else {
        return vec![];
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn interfaces_and_drivers_are_found() {
        let root = tempfile::tempdir().unwrap();
        let sysfs = Sysfs::at(root.path());
        let (plain, virtio) = (sysfs.pci("0000:00:01.0"), sysfs.pci("0000:00:02.0"));
        for folder in [
            plain.join("net/enp1s0"),
            plain.join("net/enp1s0np1"),
            virtio.join("virtio0/net/eth7"),
            sysfs.auxiliary("mlx5_core.sf.4").join("net/sf4"),
        ] {
            fs::create_dir_all(folder).unwrap();
        }
        let shown = |folder: &Path| first_interface(folder).map(|name| name.to_string());
        assert_eq!(shown(&plain).as_deref(), Some("enp1s0"));
        assert_eq!(shown(&virtio).as_deref(), Some("eth7"));
        assert_eq!(
            shown(&sysfs.auxiliary("mlx5_core.sf.4")).as_deref(),
            Some("sf4")
        );
        assert_eq!(shown(&sysfs.pci("0000:00:03.0")), None);

        symlink("../../../bus/pci/drivers/vfio-pci", plain.join("driver")).unwrap();
        symlink("../../../bus/pci/drivers/virtio-pci", virtio.join("driver")).unwrap();
        assert!(sysfs.has_userspace_driver("0000:00:01.0"));
        assert!(!sysfs.has_userspace_driver("0000:00:02.0"));
        assert!(!sysfs.has_userspace_driver("0000:00:03.0"));
    }
}
