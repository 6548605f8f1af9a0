//! What a node's kernel says of its routes and neighbours, and when: heard from it, not asked for, so
//! that listening to many nodes costs little.

use std::net::Ipv4Addr;
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::Context as _;
use hostnet::Netns;
use netstate::MacAddr;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt,
    socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike as _};

/// `RTMGRP_NEIGH` and `RTMGRP_IPV4_ROUTE`.
const GROUPS: u32 = 0x4 | 0x40;
/// Room for what is not heard at once, bytes.
const ROOM: usize = 16 << 20;
/// How long a listener takes to notice that it is to end.
const PATIENCE_MILLIS: i64 = 100;

const HEADER: usize = 16;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_NEWNEIGH: u16 = 28;
/// Length of `struct rtmsg` and of `struct ndmsg`.
const BODY: usize = 12;
/// `RTA_DST` and `NDA_DST`.
const DESTINATION: u16 = 1;
const NDA_LLADDR: u16 = 2;

/// What has become of the kernel's tables.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum News {
    /// There is a route to this destination now, or none any more.
    Route(Ipv4Addr, bool),
    /// This neighbour has this MAC now.
    Neighbour(Ipv4Addr, MacAddr),
}

/// News of node `node`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heard {
    pub(crate) node: usize,
    pub(crate) at: Instant,
    pub(crate) news: News,
}

/// Listens on a thread until dropped.
pub(crate) struct Ear {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

// === impl Ear ===

impl Ear {
    /// Tells `tell` from now on what the kernel says in `netns`, as of node `node`.
    ///
    /// # Errors
    /// When the kernel gives no socket.
    pub(crate) fn on(netns: &Netns, node: usize, tell: Sender<Heard>) -> anyhow::Result<Self> {
        let socket = netns.run_in(|| {
            let flags = SockFlag::SOCK_CLOEXEC;
            let protocol = SockProtocol::NetlinkRoute;
            let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
            setsockopt(&socket, sockopt::RcvBufForce, &ROOM)?;
            let patience = TimeVal::milliseconds(PATIENCE_MILLIS);
            setsockopt(&socket, sockopt::ReceiveTimeout, &patience)?;
            bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUPS))?;
            nix::Result::Ok(socket)
        })?;
        let socket = socket.context("listen to the kernel")?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let listen = move || {
            let mut buffer = vec![0; 64 * 1024];
            while !stopped.load(Ordering::Relaxed) {
                match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                    Ok(length) => {
                        let at = Instant::now();
                        for news in news(&buffer[..length]) {
                            if tell.send(Heard { node, at, news }).is_err() {
                                return;
                            }
                        }
                    }
                    Err(Errno::EAGAIN | Errno::EINTR) => {}
                    // Whoever waits for news gives up.
                    Err(errno) => return eprintln!("bench: listen to node {node}: {errno}"),
                }
            }
        };
        let thread = std::thread::Builder::new().spawn(listen)?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The news in one datagram; what is none is left out.
fn news(mut bytes: &[u8]) -> Vec<News> {
    let mut all = Vec::new();
    while let Some(length) = number(bytes, 0)
        && let Ok(length) = usize::try_from(length)
        && length >= HEADER
        && let Some(message) = bytes.get(..length)
    {
        all.extend(one(
            short(message, 4),
            message.get(HEADER..).unwrap_or_default(),
        ));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    all
}

fn one(kind: Option<u16>, message: &[u8]) -> Option<News> {
    let attributes = message.get(BODY..)?;
    let to = || {
        let bytes: [u8; 4] = attribute(attributes, DESTINATION)?.try_into().ok()?;
        Some(Ipv4Addr::from(bytes))
    };
    match kind? {
        RTM_NEWROUTE => Some(News::Route(to()?, true)),
        RTM_DELROUTE => Some(News::Route(to()?, false)),
        RTM_NEWNEIGH if i32::from(*message.first()?) == AddressFamily::Inet as i32 => {
            let mac = MacAddr::try_from(attribute(attributes, NDA_LLADDR)?).ok()?;
            Some(News::Neighbour(to()?, mac))
        }
        _ => None,
    }
}

fn attribute(mut bytes: &[u8], kind: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(short(bytes, 0)?);
        let value = bytes.get(4..length)?;
        if short(bytes, 2)? == kind {
            return Some(value);
        }
        bytes = bytes.get(length.next_multiple_of(4)..)?;
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at + 2)?;
    Some(u16::from_ne_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use hostnet::{Netlink, PROTOCOL_TOWLINE};
    use netstate::{IfName, Link, LinkKind, Neighbour, NeighbourKey, Route, Vxlan};
    use pretty_assertions::assert_eq;
    use proptest::prelude::*;

    use super::*;
    use crate::overlay::world::apart;

    #[test]
    fn what_is_done_to_routes_and_neighbours_is_heard_in_order() {
        let heard = apart(|| {
            let here = Netns::current()?;
            let (tell, told) = channel();
            let mut netlink = Netlink::open()?;
            let device: IfName = "flannel.1".parse()?;
            let vxlan = Vxlan {
                vni: 1.try_into()?,
                port: 8472,
                local: None,
                device: None,
                learning: false,
                gbp: false,
            };
            netlink.create_link(&Link::new(device.clone(), LinkKind::Vxlan(vxlan)).up())?;
            let _ear = Ear::on(&here, 7, tell)?;
            let route = Route::via_device("10.64.1.0/24".parse()?, device.clone());
            netlink.replace_route(&route, PROTOCOL_TOWLINE)?;
            let ip: Ipv4Addr = "10.64.1.0".parse()?;
            let key = NeighbourKey {
                device,
                ip: ip.into(),
            };
            let mac: MacAddr = "02:54:00:00:00:01".parse()?;
            netlink.set_neighbour(&Neighbour { key, mac })?;
            netlink.delete_route(&route.key, None, None)?;
            let next = || {
                let is_of_the_test = |heard: &Heard| match heard.news {
                    News::Route(to, _) | News::Neighbour(to, _) => to == ip,
                };
                loop {
                    let heard = told.recv_timeout(Duration::from_secs(5))?;
                    if is_of_the_test(&heard) {
                        return anyhow::Ok(heard);
                    }
                }
            };
            let heard = [next()?, next()?, next()?];
            assert!(heard.iter().all(|heard| heard.node == 7));
            let expected = [
                News::Route(ip, true),
                News::Neighbour(ip, mac),
                News::Route(ip, false),
            ];
            Ok((heard.map(|heard| heard.news), expected))
        });
        let (heard, expected) = heard.unwrap();
        assert_eq!(heard, expected);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            news(&bytes);
        }
    }
}
