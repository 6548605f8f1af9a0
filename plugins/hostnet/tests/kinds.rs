//! The kinds of interfaces that pods get, created in the pod's namespace by one message, against
//! the real kernel.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod fresh;

use std::io::Write;
use std::path::PathBuf;

use netstate::{
    IfName, IpvlanMode, Link, LinkAt, LinkKind, Macvlan, MacvlanMode, Op, Place, Step, VethPeer,
};
use pretty_assertions::assert_eq;
use towline_hostnet::{LinkDetails, LinkInfo, Netlink, Netns, apply, netns};

fn name(text: &str) -> IfName {
    text.parse().unwrap()
}

/// A pod's namespace, removed whatever happens, beside a host with the veth `lower`.
struct Pod {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

impl Pod {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pod");
        netns::create_at(&path).unwrap();
        let peer = VethPeer {
            name: name("far"),
            netns: None,
            mac: None,
        };
        let lower = Link::new(name("lower"), LinkKind::Veth(peer)).up();
        Netlink::open().unwrap().create_link(&lower).unwrap();
        Self {
            _folder: folder,
            path,
        }
    }

    fn open(&self) -> Netns {
        Netns::open(&self.path.to_str().unwrap().parse().unwrap()).unwrap()
    }

    fn link(&self, link: &str) -> Option<LinkInfo> {
        let mut inside = Netlink::open_in(&self.open()).unwrap();
        inside.link(&name(link)).unwrap()
    }

    /// Creates `eth0` in the pod, or says that this kernel has no such devices.
    fn create(&self, kind: LinkKind) -> Option<LinkInfo> {
        let shown = format!("{kind:?}");
        let mut link = Link::new(name("eth0"), kind);
        link.netns = Some(self.path.to_str().unwrap().parse().unwrap());
        let mut host = Netlink::open().unwrap();
        match host.create_link(&link) {
            Ok(()) => {}
            Err(error) if error.reason.contains("Unknown device type") => {
                // Not by a macro: those are silenced in tests that pass.
                let said = writeln!(
                    std::io::stderr(),
                    "SKIPPED: this kernel has no such devices: {shown}"
                );
                said.unwrap();
                return None;
            }
            Err(error) => panic!("{error}"),
        }
        assert_eq!(host.link(&name("eth0")).unwrap(), None);
        let found = self.link("eth0").unwrap();
        let mut inside = Netlink::open_in(&self.open()).unwrap();
        inside.delete_link(&name("eth0")).unwrap();
        Some(found)
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        netns::delete_at(&self.path).expect("remove the test's namespace");
    }
}

#[test]
fn macvlan_devices_are_made_in_the_pod_in_every_mode() {
    fresh::netns(|| {
        let pod = Pod::new();
        let lower = Netlink::open().unwrap().link(&name("lower")).unwrap();
        for mode in ["private", "vepa", "bridge", "passthru"] {
            let mode = MacvlanMode::find(mode).unwrap();
            let kind = LinkKind::Macvlan(Macvlan {
                lower: name("lower"),
                mode,
                broadcast_queue: Some(2000),
            });
            let found = pod.create(kind).expect("the kernel has macvlan devices");
            assert_eq!(found.kind, "macvlan");
            assert_eq!(found.details, LinkDetails::Macvlan(Some(mode)));
            assert_eq!(found.peer, lower.as_ref().map(|lower| lower.index));
            assert!(found.peer_elsewhere);
        }
    });
}

#[test]
fn other_kinds_are_made_in_the_pod_as_far_as_the_kernel_has_them() {
    fresh::netns(|| {
        let pod = Pod::new();
        let lower = name("lower");
        let ipvlan = LinkKind::Ipvlan {
            lower: lower.clone(),
            mode: IpvlanMode::L3s,
        };
        let kinds = [
            ("ifb", LinkKind::Ifb, LinkDetails::None),
            ("dummy", LinkKind::Dummy, LinkDetails::None),
            (
                "vlan",
                LinkKind::Vlan { lower, id: 7 },
                LinkDetails::Vlan(7),
            ),
            ("vrf", LinkKind::Vrf { table: 77 }, LinkDetails::Vrf(77)),
            ("ipvlan", ipvlan, LinkDetails::Ipvlan(Some(IpvlanMode::L3s))),
        ];
        for (kind, wish, details) in kinds {
            if let Some(found) = pod.create(wish) {
                assert_eq!((found.kind.as_str(), found.details), (kind, details));
            }
        }
    });
}

#[test]
fn queue_length_multicast_and_alias_are_read_back() {
    fresh::netns(|| {
        let _pod = Pod::new();
        let mut host = Netlink::open().unwrap();
        let lower = name("lower");
        host.set_queue_length(&lower, 77).unwrap();
        host.set_all_multicast(&lower, true).unwrap();
        host.set_promiscuous(&lower, true).unwrap();
        host.set_alias(&lower, "uplink").unwrap();
        let link = host.link(&lower).unwrap().unwrap();
        assert_eq!(
            (link.queue_length, link.all_multicast, link.promiscuous),
            (77, true, true)
        );
        assert_eq!(link.alias, "uplink");
        host.set_all_multicast(&lower, false).unwrap();
        host.set_alias(&lower, "").unwrap();
        let link = host.link(&lower).unwrap().unwrap();
        assert_eq!((link.all_multicast, link.alias.as_str()), (false, ""));
    });
}

#[test]
fn a_link_goes_to_the_pod_and_back_in_one_message_each() {
    fresh::netns(|| {
        let pod = Pod::new();
        let mut places = apply::Places::open(Some(pod.open())).unwrap();
        let at = |place, link: &str, alias: &str, up| LinkAt {
            place,
            name: name(link),
            alias: alias.to_owned(),
            up,
        };
        let outside = at(Place::Host, "lower", "", true);
        let inside = at(Place::Pod, "net1", "lower", false);
        let there = Step::host(Op::MoveLink {
            from: outside,
            to: inside,
        });
        apply::run(&mut places, std::slice::from_ref(&there)).unwrap();
        assert_eq!(places.host().link(&name("lower")).unwrap(), None);
        let moved = pod.link("net1").unwrap();
        assert_eq!((moved.alias.as_str(), moved.up), ("lower", false));

        let fails = Step::pod(Op::SetUp(name("nowhere")));
        apply::revert(&mut places, std::slice::from_ref(&there));
        apply::run(&mut places, &[there.clone(), fails]).unwrap_err();
        assert_eq!(pod.link("net1"), None);
        let back = places.host().link(&name("lower")).unwrap().unwrap();
        assert_eq!((back.alias.as_str(), back.up), ("", true));

        // With the new name taken the link is where it was, under its own name.
        let mut netlink = Netlink::open_in(&pod.open()).unwrap();
        netlink
            .create_link(&Link::new(name("net1"), LinkKind::Bridge))
            .unwrap();
        apply::run(&mut places, &[there]).unwrap_err();
        assert_eq!(pod.link("lower"), None);
        assert_eq!(places.host().link(&name("lower")).unwrap(), Some(back));
    });
}
