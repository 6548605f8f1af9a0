//! Links against the real kernel.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod fresh;

use netstate::{IfName, Link, LinkKind, MacAddr, Mtu, VethPeer, Vni, Vxlan};
use pretty_assertions::assert_eq;
use towline_hostnet::{ErrorKind, Netlink, Netns, PortFlag, netns};

fn name(text: &str) -> IfName {
    text.parse().unwrap()
}

fn veth(host: &str, peer: VethPeer) -> Link {
    Link::new(name(host), LinkKind::Veth(peer))
}

fn beside(peer: &str) -> VethPeer {
    VethPeer {
        name: name(peer),
        netns: None,
        mac: None,
    }
}

#[test]
fn one_message_makes_both_ends_of_a_veth_each_in_its_namespace() {
    fresh::netns(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pod");
        let pod = netns::create_at(&path).unwrap();
        let mut host = Netlink::open().unwrap();
        let mut inside = Netlink::open_in(&pod).unwrap();
        host.create_link(&Link::new(name("br0"), LinkKind::Bridge).up())
            .unwrap();

        let mac: MacAddr = "02:00:0a:f4:01:02".parse().unwrap();
        let netns = Some(path.to_str().unwrap().parse().unwrap());
        let mut link = veth(
            "veth0",
            VethPeer {
                name: name("eth0"),
                netns,
                mac: Some(mac),
            },
        )
        .up();
        link.master = Some(name("br0"));
        link.mtu = Some(Mtu::try_from(1400).unwrap());
        host.create_link(&link).unwrap();

        let bridge = host.link(&name("br0")).unwrap().unwrap();
        let near = host.link(&name("veth0")).unwrap().unwrap();
        let far = inside.link(&name("eth0")).unwrap().unwrap();
        assert_eq!(host.link(&name("eth0")).unwrap(), None);
        assert_eq!((near.kind.as_str(), far.kind.as_str()), ("veth", "veth"));
        assert_eq!((near.up, far.up), (true, false));
        assert_eq!((near.master, far.master), (Some(bridge.index), None));
        assert_eq!((near.peer, far.peer), (Some(far.index), Some(near.index)));
        assert_eq!(far.mac, Some(mac));
        assert_eq!((near.mtu, far.mtu), (link.mtu, link.mtu));

        let error = host.create_link(&link).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Exists);
        host.delete_link(&name("veth0")).unwrap();
        host.delete_link(&name("veth0")).unwrap();
        assert_eq!(inside.link(&name("eth0")).unwrap(), None);
        netns::delete_at(&path).unwrap();
    });
}

#[test]
fn a_vxlan_device_is_read_back_as_it_was_asked_for() {
    fresh::netns(|| {
        let mut netlink = Netlink::open().unwrap();
        netlink
            .create_link(&veth("under", beside("far")).up())
            .unwrap();
        let vxlan = Vxlan {
            vni: Vni::try_from(1).unwrap(),
            port: 8472,
            local: Some("172.30.0.2".parse().unwrap()),
            device: Some(name("under")),
            learning: false,
            gbp: false,
        };
        let mut link = Link::new(name("flannel.1"), LinkKind::Vxlan(vxlan.clone())).up();
        link.mac = Some("02:00:00:00:00:01".parse().unwrap());
        link.mtu = Some(Mtu::try_from(1450).unwrap());
        assert!(netlink.ensure_link(&link).unwrap());
        assert!(!netlink.ensure_link(&link).unwrap());
        let found = netlink.link(&name("flannel.1")).unwrap().unwrap();
        assert_eq!(
            found.vxlan,
            Some(Vxlan {
                device: None,
                ..vxlan
            })
        );
        assert_eq!(
            found.vxlan_device,
            Some(netlink.link_index(&name("under")).unwrap())
        );
        assert_eq!((found.mac, found.mtu, found.up), (link.mac, link.mtu, true));
    });
}

#[test]
fn a_link_of_another_kind_is_never_taken_for_ours() {
    fresh::netns(|| {
        let mut netlink = Netlink::open().unwrap();
        netlink.create_link(&veth("cni0", beside("far"))).unwrap();
        let bridge = Link::new(name("cni0"), LinkKind::Bridge);
        let error = netlink.ensure_link(&bridge).unwrap_err();
        assert_eq!(
            error.to_string(),
            "create link cni0: exists as a \"veth\", not a bridge; rename one"
        );
    });
}

#[test]
fn links_are_changed_renamed_and_moved() {
    fresh::netns(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("other");
        let other = netns::create_at(&path).unwrap();
        let mut netlink = Netlink::open().unwrap();
        netlink
            .create_link(&Link::new(name("br0"), LinkKind::Bridge))
            .unwrap();
        netlink.create_link(&veth("a", beside("b"))).unwrap();
        let mac = "02:00:00:00:00:07".parse().unwrap();
        netlink.set_mac(&name("a"), mac).unwrap();
        netlink
            .set_mtu(&name("a"), Mtu::try_from(1300).unwrap())
            .unwrap();
        netlink.set_up(&name("a")).unwrap();
        netlink.set_master(&name("a"), Some(&name("br0"))).unwrap();
        netlink
            .set_port(&name("a"), PortFlag::Hairpin, true)
            .unwrap();
        netlink
            .set_port(&name("a"), PortFlag::Isolated, true)
            .unwrap();
        netlink.set_promiscuous(&name("br0"), true).unwrap();
        let link = netlink.link(&name("a")).unwrap().unwrap();
        assert_eq!(
            (link.mac, link.mtu.unwrap().get(), link.up),
            (Some(mac), 1300, true)
        );
        assert_eq!(netlink.link(&name("br0")).unwrap().unwrap().promiscuity, 1);

        netlink.set_master(&name("a"), None).unwrap();
        let error = netlink
            .set_port(&name("a"), PortFlag::Hairpin, true)
            .unwrap_err();
        assert_eq!(error.object, "a");
        netlink.set_down(&name("a")).unwrap();
        netlink.rename(&name("a"), &name("c")).unwrap();
        netlink.move_link(&name("c"), &other).unwrap();
        assert_eq!(netlink.link(&name("c")).unwrap(), None);
        assert!(
            Netlink::open_in(&other)
                .unwrap()
                .link(&name("c"))
                .unwrap()
                .is_some()
        );
        netns::delete_at(&path).unwrap();
    });
}

#[test]
fn a_fresh_namespace_has_only_its_loopback() {
    fresh::netns(|| {
        let links = Netlink::open().unwrap().links().unwrap();
        let shown: Vec<_> = links
            .iter()
            .map(|l| (l.index, l.name.as_str(), l.up))
            .collect();
        assert_eq!(shown, [(1, "lo", false)]);
    });
}

#[test]
fn an_error_says_operation_object_and_reason() {
    fresh::netns(|| {
        let mut netlink = Netlink::open().unwrap();
        let error = netlink.set_up(&name("nowhere")).unwrap_err();
        assert_eq!(error.to_string(), "find link nowhere: does not exist");
        let missing = netstate::NetnsPath::try_from("/run/netns/towline-missing".to_owned());
        assert!(Netns::open(&missing.unwrap()).unwrap_err().is_not_found());
    });
}
