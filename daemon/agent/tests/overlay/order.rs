//! In which order the kernel's tables change: never is there a way to what is not there.

use std::os::fd::{AsRawFd as _, OwnedFd};

use desired::cluster::Backend;
use desired::lease::attributes::VxlanData;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use pretty_assertions::assert_eq;

use crate::host::{VXLAN, at, cluster, in_new_namespace, peer};

/// `RTMGRP_NEIGH` and `RTMGRP_IPV4_ROUTE`.
const GROUPS: u32 = 0x4 | 0x40;
const AF_INET: u8 = 2;
const AF_BRIDGE: u8 = 7;
const NUD_FAILED: u8 = 0x20;

/// What the kernel tells of neighbours, forwarding entries and routes of the calling thread's
/// namespace from now on.
struct Ear(OwnedFd);

impl Ear {
    fn open() -> Self {
        let (family, flags) = (AddressFamily::Netlink, SockFlag::SOCK_NONBLOCK);
        let socket = socket(family, SockType::Raw, flags, SockProtocol::NetlinkRoute).unwrap();
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUPS)).unwrap();
        Self(socket)
    }

    fn heard(&self) -> Vec<&'static str> {
        let mut buffer = vec![0; 64 * 1024];
        let mut heard = Vec::new();
        loop {
            match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                // Each of these is told alone.
                Ok(length) => heard.extend(said(&buffer[..length])),
                Err(Errno::EAGAIN) => return heard,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// `struct nlmsghdr`, of which the kind is at 4, and `struct rtmsg` or `ndmsg` at 16.
fn said(message: &[u8]) -> Option<&'static str> {
    let kind = u16::from_ne_bytes([message[4], message[5]]);
    let (family, state) = (message[16], message[24]);
    Some(match (kind, family) {
        (24, _) => "route",
        (25, _) => "no route",
        (28, AF_BRIDGE) => "entry",
        (29, AF_BRIDGE) => "no entry",
        (28, AF_INET) if state & NUD_FAILED == 0 => "neighbour",
        (29, AF_INET) => "no neighbour",
        _ => return None,
    })
}

#[test]
fn a_new_peer_has_its_route_last_and_one_that_goes_loses_it_first() {
    in_new_namespace(VXLAN, |mut host| {
        host.pass(&cluster([]));
        let ear = Ear::open();
        host.pass(&cluster([peer(2)]));
        assert_eq!(ear.heard(), ["entry", "neighbour", "route"]);
        host.pass(&cluster([]));
        assert_eq!(ear.heard(), ["no route", "no neighbour", "no entry"]);
    });
}

#[test]
fn another_mac_has_its_entry_before_packets_are_sent_to_it() {
    in_new_namespace(VXLAN, |mut host| {
        host.pass(&cluster([peer(2)]));
        let mut other = peer(2);
        let vtep_mac = "02:00:00:00:aa:02".parse().unwrap();
        let v4 = Some(VxlanData {
            vni: 1.try_into().unwrap(),
            vtep_mac,
        });
        other.announced.as_mut().unwrap().backend = Backend::Vxlan { v4, v6: None };
        let ear = Ear::open();
        host.pass(&cluster([other]));
        assert_eq!(ear.heard(), ["entry", "neighbour", "no entry"]);
    });
}

#[test]
fn a_peer_that_moves_to_the_link_has_one_way_or_the_other_at_all_times() {
    let conf = r#"{"Network": "10.244.0.0/16",
        "Backend": {"Type": "vxlan", "DirectRouting": true}}"#;
    in_new_namespace(conf, |mut host| {
        host.pass(&cluster([at(2, "192.0.2.2")]));
        let ear = Ear::open();
        host.pass(&cluster([at(2, "172.30.0.2")]));
        assert_eq!(ear.heard(), ["route", "no neighbour", "no entry"]);
        host.pass(&cluster([at(2, "192.0.2.2")]));
        assert_eq!(ear.heard(), ["entry", "neighbour", "route"]);
    });
}

#[test]
fn subnets_that_change_hands_are_replaced_in_place() {
    in_new_namespace(VXLAN, |mut host| {
        host.pass(&cluster([peer(2), peer(3)]));
        let (mut second, mut third) = (peer(2), peer(3));
        std::mem::swap(&mut second.pod_cidrs, &mut third.pod_cidrs);
        let ear = Ear::open();
        host.pass(&cluster([second, third]));
        assert_eq!(ear.heard(), ["neighbour", "neighbour"]);
        let peers = [
            "02:00:00:00:04:02 to 172.30.0.2",
            "02:00:00:00:04:03 to 172.30.0.3",
            "10.244.2.0 at 02:00:00:00:04:03",
            "10.244.3.0 at 02:00:00:00:04:02",
        ];
        assert_eq!(host.peers("flannel.1"), peers);
    });
}
