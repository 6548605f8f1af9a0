//! What the kernel tells of changes to links, addresses and routes, whoever made them.

use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, SockProtocol};

use crate::error::{Error, Result};
use crate::socket::Wire;
use crate::wire::rt::{
    RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_IFADDR, RTMGRP_IPV6_ROUTE, RTMGRP_LINK,
};

/// A listener in one network namespace. What it is told counts, not what exactly.
#[derive(Debug)]
pub struct Changes {
    wire: Wire,
}

// === impl Changes ===

impl Changes {
    /// Listens in the network namespace of the calling thread from now on.
    ///
    /// # Errors
    /// When the kernel gives no socket.
    pub fn open() -> Result<Self> {
        let addresses = RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR;
        let groups = RTMGRP_LINK | addresses | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE;
        Ok(Self {
            wire: Wire::listen(SockProtocol::NetlinkRoute, groups)?,
        })
    }

    /// Waits for a change for as long as `patience`; whether there was one. All that is waiting
    /// counts as one change.
    ///
    /// # Errors
    /// When the socket fails.
    pub fn wait(&mut self, patience: Duration) -> Result<bool> {
        let failed = |errno| Error::errno("listen to", "changes", errno);
        self.wire.set_timeout(patience).map_err(failed)?;
        match self.wire.receive(MsgFlags::empty()) {
            // More was told than the socket holds: that is a change, too.
            Ok(_) | Err(Errno::ENOBUFS) => {}
            Err(Errno::EAGAIN) => return Ok(false),
            Err(errno) => return Err(failed(errno)),
        }
        loop {
            match self.wire.receive(MsgFlags::MSG_DONTWAIT) {
                Ok(_) | Err(Errno::ENOBUFS) => {}
                Err(Errno::EAGAIN) => return Ok(true),
                Err(errno) => return Err(failed(errno)),
            }
        }
    }
}
