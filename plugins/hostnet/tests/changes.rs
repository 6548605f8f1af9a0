//! What counts as news of the kernel's tables.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod fresh;

use std::time::Duration;

use netstate::{FdbEntry, FdbKey, IfName, Link, LinkKind, Neighbour, NeighbourKey, Route, Vxlan};
use towline_hostnet::{Changes, Netlink, PROTOCOL_TOWLINE, sysctl};

/// What is news comes at once.
const SOON: Duration = Duration::from_secs(5);
/// What the kernel has been asked for is told before the answer.
const NOW: Duration = Duration::from_millis(1);

fn name(text: &str) -> IfName {
    text.parse().unwrap()
}

fn device(netlink: &mut Netlink, device: &str, vni: u32) {
    let vxlan = Vxlan {
        vni: vni.try_into().unwrap(),
        port: 8472,
        local: None,
        device: None,
        learning: false,
        gbp: false,
    };
    let link = Link::new(name(device), LinkKind::Vxlan(vxlan)).up();
    netlink.create_link(&link).unwrap();
}

/// Until the kernel is done with what devices bring with them: some of it comes a second later.
fn settled(mut changes: Changes) -> Changes {
    while changes.wait(Duration::from_millis(1500)).unwrap() {}
    changes
}

#[test]
fn what_one_does_oneself_is_no_news_and_what_others_do_is() {
    fresh::netns(|| {
        let (mut ours, mut theirs) = (Netlink::open().unwrap(), Netlink::open().unwrap());
        sysctl::write("net/ipv6/conf/default/disable_ipv6", "1").unwrap();
        device(&mut theirs, "ours", 7);
        let route = Route::via_device("10.64.1.0/24".parse().unwrap(), name("ours"));
        let changes = Changes::open().unwrap();
        let mut changes = settled(changes.without(&[ours.port().unwrap()]));
        ours.replace_route(&route, PROTOCOL_TOWLINE).unwrap();
        assert!(!changes.wait(NOW).unwrap());
        theirs.delete_route(&route.key, None, None).unwrap();
        assert!(changes.wait(SOON).unwrap());
        assert!(!changes.wait(NOW).unwrap(), "told of once");
    });
}

#[test]
fn of_neighbours_and_forwarding_entries_the_removal_from_our_devices_is_news() {
    fresh::netns(|| {
        let mut netlink = Netlink::open().unwrap();
        sysctl::write("net/ipv6/conf/default/disable_ipv6", "1").unwrap();
        device(&mut netlink, "ours", 7);
        device(&mut netlink, "theirs", 8);
        let changes = Changes::open_with_neighbours(vec![name("ours")]).unwrap();
        let mut changes = settled(changes);

        let mac = "02:54:00:00:00:01".parse().unwrap();
        let key = |device: &str| NeighbourKey {
            device: name(device),
            ip: "10.64.1.0".parse().unwrap(),
        };
        let fdb = FdbEntry {
            key: FdbKey {
                device: name("ours"),
                mac,
            },
            remote: "192.0.2.1".parse().unwrap(),
        };
        for device in ["ours", "theirs"] {
            let key = key(device);
            netlink.set_neighbour(&Neighbour { key, mac }).unwrap();
        }
        netlink.set_fdb(&fdb).unwrap();
        netlink.delete_neighbour(&key("theirs")).unwrap();
        assert!(!changes.wait(NOW).unwrap());
        netlink.delete_neighbour(&key("ours")).unwrap();
        assert!(changes.wait(SOON).unwrap());
        netlink.delete_fdb(&fdb.key).unwrap();
        assert!(changes.wait(SOON).unwrap());
    });
}
