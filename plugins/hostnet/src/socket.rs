//! A blocking netlink socket: request, query, dump.

use std::fmt::Display;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, getsockname,
    recv, send, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::error::{Error, Result};
use crate::netns::Netns;
use crate::wire::message::{
    HEADER, Message, NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_DUMP, NLM_F_DUMP_INTR, NLMSG_DONE,
    NLMSG_ERROR, Reply, find, read_text, read_u32, replies,
};

/// No datagram of the kernel is larger (`NLMSG_GOODSIZE` and dumps up to 32 KiB).
const BUFFER: usize = 64 * 1024;
/// The kernel answers at once; a silence of this many seconds is an error.
const TIMEOUT_SECONDS: i64 = 5;
/// An interrupted dump is begun anew for so long before the table counts as unreadable. Many attempts
/// may be needed where others change it all the time.
const DUMP_PATIENCE: Duration = Duration::from_secs(10);
const NLMSGERR_ATTR_MSG: u16 = 1;

/// What is being done to what, for errors.
pub(crate) type About<'a> = (&'static str, &'a dyn Display);

/// A connection to the kernel's routing tables in one network namespace.
#[derive(Debug)]
pub struct Netlink {
    pub(crate) wire: Wire,
}

// === impl Netlink ===

impl Netlink {
    /// Opens a socket in the network namespace of the calling thread. It stays there.
    ///
    /// # Errors
    /// When the kernel gives no socket.
    pub fn open() -> Result<Self> {
        Ok(Self {
            wire: Wire::open(SockProtocol::NetlinkRoute)?,
        })
    }

    /// By which number the kernel tells others of what was done through this socket.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn port(&self) -> Result<u32> {
        let found = getsockname::<NetlinkAddr>(self.wire.as_raw_fd());
        let failed = |errno| Error::errno("read address of", "netlink socket", errno);
        Ok(found.map_err(failed)?.pid())
    }

    /// Opens a socket in another network namespace.
    ///
    /// # Errors
    /// When the namespace cannot be entered or the kernel gives no socket.
    pub fn open_in(netns: &Netns) -> Result<Self> {
        let _inside = netns.enter()?;
        Self::open()
    }
}

/// A netlink socket of any protocol.
#[derive(Debug)]
pub(crate) struct Wire {
    socket: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

/// What the kernel said to one message.
#[derive(Debug, Default)]
struct Answer {
    found: Vec<Reply>,
    /// What was being listed changed meanwhile, so that something may be missing.
    interrupted: bool,
}

// === impl Answer ===

impl Answer {
    /// Adds a message; whether it was the last one.
    fn take(&mut self, reply: Reply, about: About<'_>) -> Result<bool> {
        // The last message says so, too, and it alone does when nothing came after the change.
        self.interrupted |= reply.flags & NLM_F_DUMP_INTR != 0;
        match reply.kind {
            NLMSG_ERROR | NLMSG_DONE => verdict(&reply, about).map(|()| true),
            _ => {
                self.found.push(reply);
                Ok(false)
            }
        }
    }
}

// === impl Wire ===

impl Wire {
    pub(crate) fn open(protocol: SockProtocol) -> Result<Self> {
        Self::listen(protocol, 0)
    }

    /// A socket that also gets what the kernel tells these groups.
    pub(crate) fn listen(protocol: SockProtocol, groups: u32) -> Result<Self> {
        let failed = |errno| Error::errno("open netlink socket", format!("{protocol:?}"), errno);
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket =
            socket(AddressFamily::Netlink, SockType::Raw, flags, protocol).map_err(failed)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups)).map_err(failed)?;
        let timeout = TimeVal::new(TIMEOUT_SECONDS, 0);
        setsockopt(&socket, sockopt::ReceiveTimeout, &timeout).map_err(failed)?;
        set_flag(&socket, libc::NETLINK_EXT_ACK).map_err(failed)?;
        set_flag(&socket, libc::NETLINK_GET_STRICT_CHK).map_err(failed)?;
        Ok(Self {
            socket,
            sequence: 0,
            buffer: vec![0; BUFFER],
        })
    }

    /// The socket's descriptor, for calls that take any socket of the namespace.
    pub(crate) fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.socket.as_raw_fd()
    }

    /// How many bytes may wait to be received.
    pub(crate) fn set_room(&self, bytes: usize) -> Result<()> {
        let failed = |errno| Error::errno("make room in", "netlink socket", errno);
        setsockopt(&self.socket, sockopt::RcvBufForce, &bytes).map_err(failed)
    }

    /// How long [`Wire::receive`] waits.
    pub(crate) fn set_timeout(&self, timeout: Duration) -> nix::Result<()> {
        let micros = i64::try_from(timeout.as_micros()).unwrap_or(i64::MAX);
        let timeout = TimeVal::microseconds(micros.max(1));
        setsockopt(&self.socket, sockopt::ReceiveTimeout, &timeout)
    }

    /// The number of an interface of the socket's namespace. Unlike a netlink question it neither
    /// waits for the lock that every change of any interface on the machine holds, nor brings all
    /// there is to say about the interface.
    pub(crate) fn interface_index(&self, name: &str) -> nix::Result<u32> {
        // SAFETY: a plain C structure, of which all zeros is a value.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        // The last byte stays zero.
        let room = request.ifr_name.len() - 1;
        if name.len() > room {
            return Err(Errno::ENODEV);
        }
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = libc::c_char::from_ne_bytes([from]);
        }
        let command = libc::SIOCGIFINDEX as libc::Ioctl;
        // SAFETY: the descriptor is open for the call, which reads and writes one `ifreq`.
        let result = unsafe { libc::ioctl(self.socket.as_raw_fd(), command, &raw mut request) };
        Errno::result(result)?;
        // SAFETY: the kernel has written this field of the union.
        let index = unsafe { request.ifr_ifru.ifru_ifindex };
        u32::try_from(index).map_err(|_| Errno::ENODEV)
    }

    /// Does what `message` says; the kernel's acknowledgement is awaited.
    pub(crate) fn request(&mut self, message: Message, about: About<'_>) -> Result<()> {
        self.exchange(message.flag(NLM_F_ACK), about).map(drop)
    }

    /// Asks for one object; `None` when the kernel answers nothing but an acknowledgement.
    pub(crate) fn query(&mut self, message: Message, about: About<'_>) -> Result<Option<Reply>> {
        self.exchange(message.flag(NLM_F_ACK), about)
            .map(|answer| answer.found.into_iter().next())
    }

    /// Asks for a whole table. Begun anew when it changed while being read.
    pub(crate) fn dump(&mut self, message: &Message, about: About<'_>) -> Result<Vec<Reply>> {
        let end = Instant::now() + DUMP_PATIENCE;
        loop {
            let answer = self.exchange(message.clone().flag(NLM_F_DUMP), about)?;
            if !answer.interrupted {
                return Ok(answer.found);
            }
            if Instant::now() >= end {
                return Err(Error::errno(about.0, about.1, Errno::EINTR));
            }
        }
    }

    fn exchange(&mut self, message: Message, about: About<'_>) -> Result<Answer> {
        self.sequence = self.sequence.wrapping_add(1);
        let sequence = self.sequence;
        self.send(&message.finish(sequence))
            .map_err(|e| Error::errno(about.0, about.1, e))?;
        let mut answer = Answer::default();
        loop {
            let datagram = self
                .receive(MsgFlags::empty())
                .map_err(|e| Error::errno(about.0, about.1, e))?;
            let ours = datagram.into_iter().filter(|one| one.sequence == sequence);
            for reply in ours {
                if answer.take(reply, about)? {
                    return Ok(answer);
                }
            }
        }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> nix::Result<()> {
        if bytes.len() > BUFFER {
            let wanted = bytes.len() + BUFFER;
            setsockopt(&self.socket, sockopt::SndBufForce, &wanted)?;
        }
        send(self.socket.as_raw_fd(), bytes, MsgFlags::empty()).map(drop)
    }

    /// The messages of one datagram.
    pub(crate) fn receive(&mut self, flags: MsgFlags) -> nix::Result<Vec<Reply>> {
        loop {
            match recv(self.socket.as_raw_fd(), &mut self.buffer, flags) {
                Ok(length) => return Ok(replies(&self.buffer[..length])),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
}

/// The kernel's verdict in an error or done message: zero is success.
pub(crate) fn verdict(reply: &Reply, about: About<'_>) -> Result<()> {
    let code = read_u32(&reply.body, 0).cast_signed();
    if code == 0 {
        return Ok(());
    }
    let mut error = Error::errno(about.0, about.1, Errno::from_raw(-code));
    if let Some(text) = explanation(reply) {
        error.reason = format!("{}: {text}", error.reason);
    }
    Err(error)
}

/// The extended acknowledgement's text: after the error code and the request's header (an error
/// caps the echoed request only when asked to, so its length counts).
fn explanation(reply: &Reply) -> Option<String> {
    if reply.flags & NLM_F_ACK_TLVS == 0 {
        return None;
    }
    let attributes = if reply.kind == NLMSG_ERROR {
        let echoed = (read_u32(&reply.body, 4) as usize)
            .max(HEADER)
            .next_multiple_of(4);
        reply.body.get(4 + echoed..)?
    } else {
        reply.body.get(4..)?
    };
    find(attributes, NLMSGERR_ATTR_MSG).map(read_text)
}

fn set_flag(socket: &OwnedFd, option: libc::c_int) -> nix::Result<()> {
    let one: libc::c_int = 1;
    let length = libc::socklen_t::try_from(size_of_val(&one)).unwrap_or(4);
    // SAFETY: the descriptor is open for the call, and the value pointer and its length describe
    // `one`, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_NETLINK,
            option,
            std::ptr::from_ref(&one).cast(),
            length,
        )
    };
    Errno::result(result).map(drop)
}

/// Waits until every reader that is under way in the kernel now is done (an RCU grace period, some
/// milliseconds). On kernels that do not offer it, not at all.
pub(crate) fn await_grace_period() {
    let (command, flags, cpu) = (libc::MEMBARRIER_CMD_GLOBAL, 0, 0);
    // SAFETY: the call has no pointers and changes nothing in this process.
    unsafe { libc::syscall(libc::SYS_membarrier, command, flags, cpu) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_changed_at_its_very_end_is_not_taken_for_whole() {
        let reply = |kind, flags| Reply {
            kind,
            flags,
            port: 0,
            sequence: 1,
            body: vec![0; 4],
        };
        let interrupted = |last_flags| {
            let mut answer = Answer::default();
            let about: About<'_> = ("list", &"links");
            assert!(!answer.take(reply(16, 0), about).unwrap());
            assert!(answer.take(reply(NLMSG_DONE, last_flags), about).unwrap());
            (answer.found.len(), answer.interrupted)
        };
        assert_eq!(interrupted(0), (1, false));
        assert_eq!(interrupted(NLM_F_DUMP_INTR), (1, true));
    }
}
