//! clsact filters by rtnetlink: add, replace in place, remove, list. Messages: `linux/rtnetlink.h`,
//! `linux/pkt_sched.h`, `linux/pkt_cls.h`.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use ebpf_shared::hook::{TC_HANDLE, TC_PRIORITY};

const RTM_NEWQDISC: u16 = 36;
const RTM_NEWTFILTER: u16 = 44;
const RTM_DELTFILTER: u16 = 45;
const RTM_GETTFILTER: u16 = 46;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const DUMP: u16 = 0x300;
const REPLACE: u16 = 0x100;
const EXCL: u16 = 0x200;
const CREATE: u16 = 0x400;

const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_FD: u16 = 6;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_FLAGS: u16 = 8;
const TCA_BPF_ID: u16 = 11;
const DIRECT_ACTION: u32 = 1;

const HEADER: usize = 16;
const TCMSG: usize = 20;
/// Parent of the clsact qdisc, its handle, and the parents of its two filter chains.
const CLSACT_PARENT: u32 = 0xffff_fff1;
const CLSACT_HANDLE: u32 = 0xffff_0000;
/// Any EtherType, in network order, as the low half of `tcm_info`.
const ETH_P_ALL: u32 = 0x0300;

/// Which chain of clsact. From the host's side: a pod's packets come in by ingress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Chain {
    Ingress = 0xffff_fff2,
    Egress = 0xffff_fff3,
}

/// A bpf filter of ours that is attached to a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) name: String,
    pub(crate) program: u32,
}

/// A routing socket in the network namespace of the thread that opens it.
pub(crate) struct Socket(OwnedFd);

impl Socket {
    pub(crate) fn open() -> io::Result<Self> {
        // SAFETY: a system call without pointers.
        let fd = unsafe {
            libc::socket(
                libc::AF_NETLINK,
                libc::SOCK_RAW | libc::SOCK_CLOEXEC,
                libc::NETLINK_ROUTE,
            )
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just opened and belongs to nobody else.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Makes sure that the device has a clsact qdisc.
    pub(crate) fn add_clsact(&self, ifindex: u32) -> io::Result<()> {
        let mut message = Message::new(RTM_NEWQDISC, ACK | CREATE | EXCL);
        message.tcmsg(ifindex, CLSACT_HANDLE, CLSACT_PARENT, 0);
        message.attribute(TCA_KIND, b"clsact\0");
        match self.call(message) {
            Err(e) if e.raw_os_error() == Some(libc::EEXIST) => Ok(()),
            result => result,
        }
    }

    /// Attaches `program`, or replaces what stands at our priority and handle, without a gap.
    pub(crate) fn put(
        &self,
        ifindex: u32,
        chain: Chain,
        name: &str,
        program: BorrowedFd<'_>,
    ) -> io::Result<()> {
        let mut message = Message::new(RTM_NEWTFILTER, ACK | CREATE | REPLACE);
        message.filter(ifindex, chain);
        message.attribute(TCA_KIND, b"bpf\0");
        let options = message.open(TCA_OPTIONS);
        message.attribute(TCA_BPF_FD, &(program.as_raw_fd() as u32).to_ne_bytes());
        message.attribute(TCA_BPF_NAME, &[name.as_bytes(), b"\0"].concat());
        message.attribute(TCA_BPF_FLAGS, &DIRECT_ACTION.to_ne_bytes());
        message.close(options);
        self.call(message)
    }

    /// Removes our filter; absence is no error.
    pub(crate) fn remove(&self, ifindex: u32, chain: Chain) -> io::Result<()> {
        let mut message = Message::new(RTM_DELTFILTER, ACK);
        message.filter(ifindex, chain);
        message.attribute(TCA_KIND, b"bpf\0");
        match self.call(message) {
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::EINVAL)) => Ok(()),
            result => result,
        }
    }

    /// Our filter on a chain of the device, if there is one.
    pub(crate) fn find(&self, ifindex: u32, chain: Chain) -> io::Result<Option<Filter>> {
        let mut message = Message::new(RTM_GETTFILTER, DUMP);
        message.tcmsg(ifindex, 0, chain as u32, 0);
        self.send(message)?;
        let mut found = None;
        self.receive(|kind, body| {
            if kind == RTM_NEWTFILTER {
                found = found.take().or_else(|| ours(body));
            }
        })?;
        Ok(found)
    }

    fn call(&self, message: Message) -> io::Result<()> {
        self.send(message)?;
        self.receive(|_, _| {})
    }

    fn send(&self, mut message: Message) -> io::Result<()> {
        let len = message.0.len() as u32;
        message.0[..4].copy_from_slice(&len.to_ne_bytes());
        let fd = self.0.as_raw_fd();
        // SAFETY: the buffer is valid for its length.
        let sent = unsafe { libc::send(fd, message.0.as_ptr().cast(), message.0.len(), 0) };
        if sent < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }

    /// Reads messages until the acknowledgement or the end of the dump.
    fn receive(&self, mut message: impl FnMut(u16, &[u8])) -> io::Result<()> {
        let mut buffer = vec![0u8; 32 * 1024];
        loop {
            let fd = self.0.as_raw_fd();
            // SAFETY: the buffer is valid for its length.
            let read = unsafe { libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), 0) };
            if read < 0 {
                return Err(io::Error::last_os_error());
            }
            let mut rest = &buffer[..read as usize];
            while let Some(len) = number::<4>(rest, 0).map(u32::from_ne_bytes) {
                let Some(body) = rest.get(HEADER..len as usize) else {
                    break;
                };
                let kind = number::<2>(rest, 4).map_or(0, u16::from_ne_bytes);
                match kind {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => {
                        let code = number::<4>(body, 0).map_or(0, i32::from_ne_bytes);
                        return if code == 0 {
                            Ok(())
                        } else {
                            Err(io::Error::from_raw_os_error(-code))
                        };
                    }
                    _ => message(kind, body),
                }
                rest = rest.get(align(len as usize)..).unwrap_or_default();
            }
        }
    }
}

/// A netlink message under construction.
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: u16) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | REQUEST).to_ne_bytes());
        Self(bytes)
    }

    fn tcmsg(&mut self, ifindex: u32, handle: u32, parent: u32, info: u32) {
        for word in [0, ifindex, handle, parent, info] {
            self.0.extend(word.to_ne_bytes());
        }
    }

    fn filter(&mut self, ifindex: u32, chain: Chain) {
        let info = u32::from(TC_PRIORITY) << 16 | ETH_P_ALL;
        self.tcmsg(ifindex, TC_HANDLE, chain as u32, info);
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.0.extend((value.len() as u16 + 4).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(align(self.0.len()), 0);
    }

    fn open(&mut self, kind: u16) -> usize {
        let start = self.0.len();
        self.attribute(kind, &[]);
        start
    }

    fn close(&mut self, start: usize) {
        let len = (self.0.len() - start) as u16;
        self.0[start..start + 2].copy_from_slice(&len.to_ne_bytes());
    }
}

const fn align(len: usize) -> usize {
    len.next_multiple_of(4)
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

/// The value of an attribute.
fn attribute(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let len = usize::from(u16::from_ne_bytes(number(bytes, 0)?));
        let kind = u16::from_ne_bytes(number(bytes, 2)?) & 0x3fff;
        let value = bytes.get(4..len)?;
        if kind == wanted {
            return Some(value);
        }
        bytes = bytes.get(align(len)..)?;
    }
}

/// Reads a filter message; `None` when the filter is not at our priority and handle.
fn ours(body: &[u8]) -> Option<Filter> {
    let handle = u32::from_ne_bytes(number(body, 8)?);
    let info = u32::from_ne_bytes(number(body, 16)?);
    if handle != TC_HANDLE || info >> 16 != u32::from(TC_PRIORITY) {
        return None;
    }
    let options = attribute(body.get(TCMSG..)?, TCA_OPTIONS)?;
    let name = attribute(options, TCA_BPF_NAME)?;
    let name = name.split(|byte| *byte == 0).next()?;
    Some(Filter {
        name: String::from_utf8_lossy(name).into_owned(),
        program: u32::from_ne_bytes(number(attribute(options, TCA_BPF_ID)?, 0)?),
    })
}
