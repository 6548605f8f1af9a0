//! Checksum offload of a device: one ioctl, the same that `ethtool -K DEVICE tx off` makes.
//!
//! Kernels before 5.7 compute the outer UDP checksum of a VXLAN packet wrongly when it passes
//! through two translations of addresses (<https://github.com/projectcalico/calico/issues/3145>);
//! the device then has to hand packets over with their inner checksum computed.

use netstate::IfName;
use nix::errno::Errno;

use crate::error::{Error, Result};
use crate::socket::Netlink;

/// `SIOCETHTOOL` (`linux/sockios.h`).
const SIOCETHTOOL: libc::Ioctl = 0x8946;
/// `ETHTOOL_GTXCSUM` and `ETHTOOL_STXCSUM` (`linux/ethtool.h`).
const GET: u32 = 0x16;
const SET: u32 = 0x17;

/// `struct ethtool_value`.
#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

// === impl Netlink: offload ===

impl Netlink {
    /// Whether `device` leaves the checksums of what it sends to whatever is below it.
    ///
    /// # Errors
    /// When there is no such device or it cannot tell.
    pub fn tx_checksum_offload(&mut self, device: &IfName) -> Result<bool> {
        self.ethtool(device, GET, 0).map(|value| value != 0)
    }

    /// Sets whether `device` leaves the checksums of what it sends to whatever is below it.
    ///
    /// # Errors
    /// When there is no such device or it cannot be changed.
    pub fn set_tx_checksum_offload(&mut self, device: &IfName, on: bool) -> Result<()> {
        self.ethtool(device, SET, u32::from(on)).map(drop)
    }

    fn ethtool(&mut self, device: &IfName, command: u32, data: u32) -> Result<u32> {
        let operation = "set checksum offload of";
        // SAFETY: a plain C structure, of which all zeros is a value.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        // An interface name is at most 15 bytes: the last byte stays zero.
        for (to, from) in request.ifr_name.iter_mut().zip(device.as_str().bytes()) {
            *to = libc::c_char::from_ne_bytes([from]);
        }
        let mut value = EthtoolValue { command, data };
        request.ifr_ifru.ifru_data = std::ptr::from_mut(&mut value).cast();
        // SAFETY: the descriptor is open for the call; the request points to a structure of the
        // command's own type, and both outlive the call.
        let result = unsafe { libc::ioctl(self.wire.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
        Errno::result(result).map_err(|errno| Error::errno(operation, device, errno))?;
        Ok(value.data)
    }
}
