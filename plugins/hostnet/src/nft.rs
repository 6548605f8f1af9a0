//! nftables over netlink: replace a whole table of ours in one transaction, and notice drift.
//!
//! The `nft` program is never run. A table is written as delete, add, chains, sets, elements and
//! rules in one batch, so a packet sees either the old table or the new one.

mod chains;
mod element;
mod encode;
mod expression;
mod fingerprint;
mod shared;
mod target;
mod verify;

use std::time::{Duration, Instant};

use netstate::nft::{Table, TableFamily};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, SockProtocol};

use crate::error::{Error, Result};
use crate::netns::Netns;
use crate::socket::{Wire, verdict};
use crate::wire::message::{Message, NLM_F_ACK, NLM_F_CREATE, NLMSG_ERROR};
use crate::wire::nf;

pub use shared::{OwnedRule, Redirect};
pub use target::NftTarget;

/// A connection to nftables in one network namespace.
#[derive(Debug)]
pub struct Nftables {
    wire: Wire,
    /// When it last removed something.
    removed: Option<Instant>,
}

/// After this long the kernel has mostly freed what was removed, or is about to.
const GRACE: Duration = Duration::from_millis(5);

// === impl Nftables ===

impl Nftables {
    /// Opens a socket in the network namespace of the calling thread. It stays there.
    ///
    /// # Errors
    /// When the kernel gives no socket.
    pub fn open() -> Result<Self> {
        Ok(Self {
            wire: Wire::open(SockProtocol::NetlinkNetFilter)?,
            removed: None,
        })
    }

    /// Opens a socket in another network namespace.
    ///
    /// # Errors
    /// When the namespace cannot be entered or the kernel gives no socket.
    pub fn open_in(netns: &Netns) -> Result<Self> {
        let _inside = netns.enter()?;
        Self::open()
    }

    /// Makes the table of `table`'s family and name exactly like it, at once.
    ///
    /// # Errors
    /// When a name or an element does not fit, or the kernel refuses. Nothing has changed then.
    pub fn replace(&mut self, table: &Table) -> Result<()> {
        let add = named(table.family, nf::NEWTABLE, &table.name).flag(NLM_F_CREATE);
        let mut messages = vec![add, named(table.family, nf::DELTABLE, &table.name)];
        messages.extend(encode::table(table)?);
        self.batch(messages, ("replace nftables table", &table.name))
    }

    /// Removes the table of family `inet` called `name`; an absent one is no error.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn delete(&mut self, name: &str) -> Result<()> {
        self.delete_of(TableFamily::Inet, name)
    }

    /// Removes the table of `family` called `name`; an absent one is no error.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn delete_of(&mut self, family: TableFamily, name: &str) -> Result<()> {
        let add = named(family, nf::NEWTABLE, name).flag(NLM_F_CREATE);
        let delete = named(family, nf::DELTABLE, name);
        self.batch(vec![add, delete], ("delete nftables table", &name))
    }

    /// Whether a table is there.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn exists(&mut self, family: TableFamily, name: &str) -> Result<bool> {
        let request = named(family, nf::GETTABLE, name);
        match self.wire.query(request, ("find nftables table", &name)) {
            Ok(found) => Ok(found.is_some()),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// A digest of everything in the table of family `inet` but counters and handles; `None` when it is not there.
    /// It changes when somebody changes the table.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn fingerprint(&mut self, name: &str) -> Result<Option<u64>> {
        if !self.exists(TableFamily::Inet, name)? {
            return Ok(None);
        }
        fingerprint::of(&mut self.wire, name).map(Some)
    }

    /// Sends one transaction. All messages of the kernel are there when `send` returns.
    fn batch(&mut self, messages: Vec<Message>, about: crate::socket::About<'_>) -> Result<()> {
        let subsystem = [0, 0, 0, u8::try_from(nf::SUBSYSTEM).unwrap_or(0)];
        let mut bytes = Message::new(nf::NFNL_MSG_BATCH_BEGIN, 0, &subsystem).finish(0);
        let last = u32::try_from(messages.len()).unwrap_or(u32::MAX);
        let removing = messages.iter().any(removes);
        for (message, sequence) in messages.into_iter().zip(1..) {
            let message = if sequence == last {
                message.flag(NLM_F_ACK)
            } else {
                message
            };
            bytes.extend_from_slice(&message.finish(sequence));
        }
        let end = last.saturating_add(1);
        bytes.extend_from_slice(&Message::new(nf::NFNL_MSG_BATCH_END, 0, &subsystem).finish(end));
        self.wire
            .send(&bytes)
            .map_err(|e| Error::errno(about.0, about.1, e))?;
        // Only now: before, it may have waited for others' transactions.
        if removing {
            self.removed = Some(Instant::now());
        }
        self.outcome(about)
    }

    fn outcome(&mut self, about: crate::socket::About<'_>) -> Result<()> {
        let mut outcome = None;
        loop {
            match self.wire.receive(MsgFlags::MSG_DONTWAIT) {
                Ok(replies) => {
                    for reply in replies.iter().filter(|reply| reply.kind == NLMSG_ERROR) {
                        let judged = verdict(reply, about);
                        // The first refusal explains the others.
                        if outcome.is_none() || (judged.is_err() && matches!(outcome, Some(Ok(()))))
                        {
                            outcome = Some(judged);
                        }
                    }
                }
                Err(Errno::EAGAIN) => break,
                Err(errno) => return Err(Error::errno(about.0, about.1, errno)),
            }
        }
        outcome.unwrap_or_else(|| Err(Error::errno(about.0, about.1, Errno::ETIMEDOUT)))
    }
}

impl Drop for Nftables {
    /// The kernel does not close a socket before it has freed what was removed, which takes an RCU
    /// grace period, and lets nobody change nftables meanwhile: fifty containers that leave at once
    /// would wait fifty grace periods, one after another. Waiting for one here, where it is in
    /// nobody's way, they wait together. Work done between removing and closing counts, too.
    fn drop(&mut self) {
        if self.removed.is_some_and(|at| at.elapsed() < GRACE) {
            crate::socket::await_grace_period();
        }
    }
}

fn removes(message: &Message) -> bool {
    let kinds = [nf::DELTABLE, nf::DELCHAIN, nf::DELRULE];
    kinds.contains(&(message.kind() & 0xff))
}

/// A message of the nftables subsystem for tables of `family`.
fn message(family: TableFamily, kind: u16, flags: u16) -> Message {
    let number = match family {
        TableFamily::Inet => nf::NFPROTO_INET,
        TableFamily::Ip => nf::NFPROTO_IPV4,
        TableFamily::Ip6 => nf::NFPROTO_IPV6,
        TableFamily::Bridge => nf::NFPROTO_BRIDGE,
    };
    Message::new(nf::SUBSYSTEM << 8 | kind, flags, &[number, 0, 0, 0])
}

fn named(family: TableFamily, kind: u16, name: &str) -> Message {
    let mut message = message(family, kind, 0);
    message.text(nf::TABLE_NAME, name);
    message
}
