//! What the kernel tells of changes to links, addresses and routes, and of neighbours and forwarding
//! entries that are gone, whoever made them.

use std::time::{Duration, Instant};

use netstate::IfName;
use nix::errno::Errno;
use nix::net::if_::if_indextoname;
use nix::sys::socket::{MsgFlags, SockProtocol};

use crate::error::{Error, Result};
use crate::socket::Wire;
use crate::wire::message::{Reply, read_u32};
use crate::wire::rt::{
    RTM_DELNEIGH, RTM_NEWNEIGH, RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_IFADDR,
    RTMGRP_IPV6_ROUTE, RTMGRP_LINK, RTMGRP_NEIGH,
};

/// Room for what is told and not yet heard, bytes: a host's neighbours come and go all the time.
const ROOM: usize = 4 << 20;

/// A listener in one network namespace. What it is told counts, not what exactly.
#[derive(Debug)]
pub struct Changes {
    wire: Wire,
    devices: Vec<IfName>,
    own: Vec<u32>,
}

// === impl Changes ===

impl Changes {
    /// Listens in the network namespace of the calling thread from now on.
    ///
    /// # Errors
    /// When the kernel gives no socket.
    pub fn open() -> Result<Self> {
        Self::listen(0)
    }

    /// The same, and neighbours and forwarding entries that are removed from `devices`.
    ///
    /// # Errors
    /// When the kernel gives no socket.
    pub fn open_with_neighbours(devices: Vec<IfName>) -> Result<Self> {
        let changes = Self::listen(RTMGRP_NEIGH)?;
        changes.wire.set_room(ROOM)?;
        Ok(Self { devices, ..changes })
    }

    fn listen(more: u32) -> Result<Self> {
        let addresses = RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR;
        let groups = RTMGRP_LINK | addresses | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE;
        Ok(Self {
            wire: Wire::listen(SockProtocol::NetlinkRoute, groups | more)?,
            devices: Vec::new(),
            own: Vec::new(),
        })
    }

    /// What is done through the sockets with these numbers is no news.
    #[must_use]
    pub fn without(mut self, ports: &[u32]) -> Self {
        self.own.extend_from_slice(ports);
        self
    }

    /// Waits for a change for as long as `patience`; whether there was one. All that is waiting
    /// counts as one change.
    ///
    /// # Errors
    /// When the socket fails.
    pub fn wait(&mut self, patience: Duration) -> Result<bool> {
        let failed = |errno| Error::errno("listen to", "changes", errno);
        let end = Instant::now() + patience;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            self.wire.set_timeout(left).map_err(failed)?;
            match self.wire.receive(MsgFlags::empty()) {
                Ok(told) if told.iter().any(|one| self.is_news(one)) => break,
                Ok(_) => {}
                // More was told than the socket holds: that is a change, too.
                Err(Errno::ENOBUFS) => break,
                Err(Errno::EAGAIN) => return Ok(false),
                Err(errno) => return Err(failed(errno)),
            }
        }
        loop {
            match self.wire.receive(MsgFlags::MSG_DONTWAIT) {
                Ok(_) | Err(Errno::ENOBUFS) => {}
                Err(Errno::EAGAIN) => return Ok(true),
                Err(errno) => return Err(failed(errno)),
            }
        }
    }

    /// Whether a message says that somebody else has changed what is listened for. Of neighbours
    /// only the removal counts: pods' own come up and are confirmed all the time.
    fn is_news(&self, told: &Reply) -> bool {
        if told.port != 0 && self.own.contains(&told.port) {
            return false;
        }
        match told.kind {
            RTM_NEWNEIGH => false,
            RTM_DELNEIGH => {
                let name = if_indextoname(read_u32(&told.body, 4));
                let name = name.ok().and_then(|name| name.into_string().ok());
                // Of a device that is gone the link tells.
                name.is_some_and(|name| self.devices.iter().any(|one| one.as_str() == name))
            }
            _ => true,
        }
    }
}
