//! Waiting for what the kernel does after a change, told by the kernel rather than by a clock.

use std::time::{Duration, Instant};

use netstate::IfName;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, SockProtocol};

use crate::error::{Error, Result};
use crate::socket::{Netlink, Wire};
use crate::wire::rt::{RTMGRP_IPV6_IFADDR, RTMGRP_LINK};

/// Duplicate address detection takes up to two seconds with the kernel's own settings, all else
/// next to nothing.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is still missing; `None` when nothing is.
type Missing = Option<String>;

// === impl Netlink: waiting ===

impl Netlink {
    /// Waits until no address of `device` is tentative any more. The calling thread must be in the
    /// network namespace of this socket.
    ///
    /// # Errors
    /// When somebody else has an address, or detection does not end.
    pub fn await_addresses(&mut self, device: &IfName) -> Result<()> {
        let operation = "await addresses of";
        wait(operation, device, RTMGRP_IPV6_IFADDR, || {
            let found = self.addresses(device)?;
            if let Some(taken) = found.iter().find(|address| address.dad_failed) {
                let reason = format!("somebody else on the link has {}", taken.ip.ip());
                return Err(Error::invalid(operation, device, reason));
            }
            let waiting = found.iter().find(|address| address.tentative);
            Ok(waiting.map(|address| format!("{} is still tentative", address.ip)))
        })
    }

    /// Waits until `device` is operational: up, with carrier. The calling thread must be in the
    /// network namespace of this socket.
    ///
    /// # Errors
    /// When there is no such link, or it does not get ready.
    pub fn await_running(&mut self, device: &IfName) -> Result<()> {
        let operation = "await link";
        wait(operation, device, RTMGRP_LINK, || {
            match self.link(device)? {
                Some(link) if link.running => Ok(None),
                Some(_) => Ok(Some("it has no carrier".to_owned())),
                None => Err(Error::not_found(operation, device)),
            }
        })
    }
}

/// Looks again whenever the kernel tells `groups` anything.
fn wait(
    operation: &'static str,
    device: &IfName,
    groups: u32,
    mut look: impl FnMut() -> Result<Missing>,
) -> Result<()> {
    if look()?.is_none() {
        return Ok(());
    }
    // Listening begins before looking, so that nothing is missed.
    let mut news = Wire::listen(SockProtocol::NetlinkRoute, groups)?;
    let end = Instant::now() + PATIENCE;
    while let Some(missing) = look()? {
        let left = end.saturating_duration_since(Instant::now());
        let told = if left.is_zero() {
            Err(Errno::ETIMEDOUT)
        } else {
            news.set_timeout(left)
                .and_then(|()| news.receive(MsgFlags::empty()))
        };
        match told {
            // Anything that was said is a reason to look again, also that too much was said.
            Ok(_) | Err(Errno::ENOBUFS) => {}
            Err(Errno::EAGAIN | Errno::ETIMEDOUT) => {
                let reason = format!("{missing} after {} seconds", PATIENCE.as_secs());
                return Err(Error::invalid(operation, device, reason));
            }
            Err(errno) => return Err(Error::errno(operation, device, errno)),
        }
    }
    Ok(())
}
