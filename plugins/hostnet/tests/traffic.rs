//! Queueing disciplines and filters in a fresh network namespace, read back from the kernel.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod fresh;

use fresh::netns as in_fresh_netns;
use netstate::qdisc::TICK_NANOSECONDS;
use netstate::{Bucket, Htb, IfName, Link, LinkKind, Qdisc, QdiscAt, Remote, VethPeer};
use pretty_assertions::assert_eq;
use towline_hostnet::qdiscs::ROOT_HANDLE;
use towline_hostnet::{BucketInfo, FilterInfo, Netlink};

fn name(text: &str) -> IfName {
    text.parse().unwrap()
}

/// `v0` with its peer `v1`, and `i0`.
fn links() -> (Netlink, u32, u32) {
    let mut netlink = Netlink::open().unwrap();
    let peer = VethPeer {
        name: name("v1"),
        netns: None,
        mac: None,
    };
    let kinds = [("v0", LinkKind::Veth(peer)), ("i0", LinkKind::Ifb)];
    for (text, kind) in kinds {
        netlink
            .create_link(&Link::new(name(text), kind).up())
            .unwrap();
    }
    let v0 = netlink.link_index(&name("v0")).unwrap();
    let i0 = netlink.link_index(&name("i0")).unwrap();
    (netlink, v0, i0)
}

#[test]
fn a_tick_is_what_this_kernel_says() {
    let text = std::fs::read_to_string("/proc/net/psched").unwrap();
    let numbers: Vec<u64> = text
        .split_whitespace()
        .map(|word| u64::from_str_radix(word, 16).unwrap())
        .collect();
    assert_eq!(numbers[..3], [1000, TICK_NANOSECONDS, 1_000_000]);
}

#[test]
fn a_bucket_is_shown_as_it_was_made() {
    in_fresh_netns(|| {
        let (mut netlink, v0, _) = links();
        for (rate, burst) in [
            (1_000_000, 100_000),
            (3, 1),
            (125_000, u32::MAX / 16),
            (5_000_000_000, 1_000_000_000),
            (1_250_000_000, 1514),
            (1, u32::MAX),
            (u64::from(u32::MAX), u32::MAX),
        ] {
            let bucket = Bucket { rate, burst };
            netlink
                .create_qdisc(&name("v0"), &Qdisc::Tbf(bucket))
                .unwrap();
            let found = netlink.qdisc(v0, QdiscAt::Root).unwrap().unwrap();
            assert_eq!((found.kind.as_str(), found.handle), ("tbf", ROOT_HANDLE));
            let shown = found.bucket.unwrap();
            assert!(
                bucket.is_shown_as(shown.rate, shown.limit, shown.ticks),
                "{bucket:?} {shown:?}"
            );
            assert!(!bucket.is_shown_as(shown.rate + 1, shown.limit, shown.ticks));
            assert!(!bucket.is_shown_as(shown.rate, shown.limit ^ 1, shown.ticks));
            assert!(!bucket.is_shown_as(shown.rate, shown.limit, shown.ticks ^ (1 << 30)));
            let again = netlink.create_qdisc(&name("v0"), &Qdisc::Tbf(bucket));
            assert!(again.unwrap_err().is_exists());
            for _ in 0..2 {
                netlink.delete_qdisc(&name("v0"), QdiscAt::Root).unwrap();
            }
        }
        let left = netlink.qdisc(v0, QdiscAt::Root).unwrap();
        assert_eq!(left.map_or(0, |qdisc| qdisc.handle), 0);
    });
}

#[test]
fn a_redirection_is_made_again_and_removed_alone() {
    in_fresh_netns(|| {
        let (mut netlink, v0, i0) = links();
        let (v0_name, i0_name) = (name("v0"), name("i0"));
        assert_eq!(netlink.qdisc(v0, QdiscAt::Ingress).unwrap(), None);
        assert!(netlink.redirect(&v0_name, &i0_name).is_err());
        netlink.delete_redirect(&v0_name).unwrap();
        netlink.create_qdisc(&v0_name, &Qdisc::Clsact).unwrap();
        let found = netlink.qdisc(v0, QdiscAt::Ingress).unwrap().unwrap();
        assert_eq!(found.kind, "clsact");
        assert_eq!(netlink.filters_both_ways(v0).unwrap(), []);
        let ours = FilterInfo {
            kind: "u32".to_owned(),
            priority: towline_hostnet::filters::REDIRECT_PRIORITY,
            protocol: 3,
            handle: 0x8000_0800,
            redirects_to: Some(i0),
        };
        for _ in 0..2 {
            netlink.redirect(&v0_name, &i0_name).unwrap();
            assert_eq!(
                netlink.ingress_filters(v0).unwrap(),
                std::slice::from_ref(&ours)
            );
        }
        netlink.delete_link(&i0_name).unwrap();
        let gone = FilterInfo {
            redirects_to: Some(0),
            ..ours
        };
        assert_eq!(netlink.ingress_filters(v0).unwrap(), [gone]);
        for _ in 0..2 {
            netlink.delete_redirect(&v0_name).unwrap();
        }
        assert_eq!(netlink.filters_both_ways(v0).unwrap(), []);
        for _ in 0..2 {
            netlink.delete_qdisc(&v0_name, QdiscAt::Ingress).unwrap();
        }
        netlink
            .delete_qdisc(&name("gone"), QdiscAt::Ingress)
            .unwrap();
        netlink.delete_redirect(&name("gone")).unwrap();
    });
}

#[test]
fn classes_by_subnet_are_shown_as_they_were_made() {
    in_fresh_netns(|| {
        let (mut netlink, v0, _) = links();
        let bucket = Bucket {
            rate: 1_000_000,
            burst: 100_000,
        };
        let subnets = ["10.0.0.0/8", "0.0.0.0/0", "fd00:1:2::/48", "::/0"];
        for limited in [true, false] {
            let htb = Htb {
                bucket,
                remote: Remote::Source,
                subnets: subnets.iter().map(|text| text.parse().unwrap()).collect(),
                limited,
            };
            netlink.create_qdisc(&name("v0"), &Qdisc::Htb(htb)).unwrap();
            let found = netlink.qdisc(v0, QdiscAt::Root).unwrap().unwrap();
            let default = if limited { 0x1_0001 } else { 0x1_0030 };
            assert_eq!((found.kind.as_str(), found.default_class), ("htb", default));
            let (shaped, open) = netlink.classes(v0).unwrap().unwrap();
            let expected = BucketInfo {
                rate: 1_000_000,
                limit: 0,
                ticks: 1_562_500,
            };
            assert_eq!(shaped, expected);
            assert_eq!(netlink.count_class_filters(v0).unwrap(), subnets.len());
            assert_eq!(open.rate, 100_000_000_000);
            netlink.delete_qdisc(&name("v0"), QdiscAt::Root).unwrap();
        }
    });
}
