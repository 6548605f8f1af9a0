//! Plans, their undo, namespaces and sysctls against the kernel.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod fresh;

use std::path::PathBuf;

use ipnetwork::IpNetwork;
use netstate::{Address, IfName, Link, LinkKind, Op, Route, Step, VethPeer};
use pretty_assertions::assert_eq;
use towline_hostnet::{Netns, apply, netns, sysctl};

fn name(text: &str) -> IfName {
    text.parse().unwrap()
}

fn net(text: &str) -> IpNetwork {
    text.parse().unwrap()
}

/// A pod's namespace that is removed whatever happens.
struct Pod {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

impl Pod {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pod");
        netns::create_at(&path).unwrap();
        Self {
            _folder: folder,
            path,
        }
    }

    fn open(&self) -> Netns {
        Netns::open(&self.path.to_str().unwrap().parse().unwrap()).unwrap()
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        netns::delete_at(&self.path).expect("remove the test's namespace");
    }
}

/// A pod with one routed address, as `ptp` would make it.
fn plan(pod: &Pod) -> Vec<Step> {
    let netns = Some(pod.path.to_str().unwrap().parse().unwrap());
    let peer = VethPeer {
        name: name("eth0"),
        netns,
        mac: None,
    };
    let sysctl = |name: &str, value: &str| Op::WriteSysctl {
        name: name.to_owned(),
        value: value.to_owned(),
        required: true,
    };
    vec![
        Step::host(Op::CreateLink(
            Link::new(name("veth1"), LinkKind::Veth(peer)).up(),
        )),
        Step::host(Op::AddAddress(
            name("veth1"),
            Address::new(net("10.1.0.1/32")),
        )),
        Step::host(Op::AddRoute(Route::via_device(
            net("10.1.0.5/32"),
            name("veth1"),
        ))),
        Step::host(sysctl("net/ipv4/ip_forward", "1")),
        Step::pod(sysctl("net/ipv4/conf/eth0/arp_notify", "1")),
        Step::pod(Op::AddAddress(
            name("eth0"),
            Address::new(net("10.1.0.5/24")),
        )),
        Step::pod(Op::SetUp(name("eth0"))),
    ]
}

#[test]
fn a_plan_is_taken_in_both_namespaces() {
    fresh::netns(|| {
        let pod = Pod::new();
        let mut places = apply::Places::open(Some(pod.open())).unwrap();
        apply::run(&mut places, &plan(&pod)).unwrap();
        assert!(places.host().link(&name("veth1")).unwrap().unwrap().running);
        let addresses = places.pod().unwrap().addresses(&name("eth0")).unwrap();
        assert!(
            addresses
                .iter()
                .any(|address| address.ip == net("10.1.0.5/24"))
        );
        assert_eq!(sysctl::read("net/ipv4/ip_forward").unwrap(), "1");
        let inside = pod
            .open()
            .run_in(|| sysctl::read("net/ipv4/conf/eth0/arp_notify"))
            .unwrap();
        assert_eq!(inside.unwrap(), "1");
        assert!(
            sysctl::read("net/ipv4/conf/eth0/arp_notify")
                .unwrap_err()
                .is_not_found()
        );
    });
}

#[test]
fn a_failing_step_at_any_place_leaves_nothing() {
    fresh::netns(|| {
        let pod = Pod::new();
        let whole = plan(&pod);
        for at in 0..=whole.len() {
            let mut places = apply::Places::open(Some(pod.open())).unwrap();
            let mut steps = whole.clone();
            steps.insert(at, Step::host(Op::SetUp(name("nowhere"))));
            let failed = apply::run(&mut places, &steps).unwrap_err();
            assert_eq!(failed.to_string(), "find link nowhere: does not exist");
            let host = places.host();
            let links: Vec<_> = host.links().unwrap().into_iter().map(|l| l.name).collect();
            assert_eq!(links, [name("lo")], "after a failure at step {at}");
            assert_eq!(
                host.routes(None).unwrap(),
                [],
                "after a failure at step {at}"
            );
            assert_eq!(places.pod().unwrap().link(&name("eth0")).unwrap(), None);
        }
    });
}

#[test]
fn what_was_there_before_survives_a_failed_plan() {
    fresh::netns(|| {
        let pod = Pod::new();
        let mut places = apply::Places::open(Some(pod.open())).unwrap();
        apply::run(&mut places, &plan(&pod)).unwrap();
        let failed = apply::run(&mut places, &plan(&pod)).unwrap_err();
        assert!(failed.cause.is_exists(), "{failed}");
        assert!(failed.leftovers.is_empty());
        assert!(places.host().link(&name("veth1")).unwrap().is_some());
        assert!(!places.host().routes(None).unwrap().is_empty());
    });
}

#[test]
fn namespaces_are_told_apart_and_a_plain_file_is_none() {
    fresh::netns(|| {
        let pod = Pod::new();
        let (own, other) = (Netns::current().unwrap(), pod.open());
        assert!(own.is_same(&Netns::current().unwrap()).unwrap());
        assert!(!own.is_same(&other).unwrap());
        let (mine, theirs) = (
            netns::cookie().unwrap(),
            other.run_in(netns::cookie).unwrap(),
        );
        assert_ne!(mine, theirs.unwrap());
        {
            let _inside = other.enter().unwrap();
            assert!(Netns::current().unwrap().is_same(&other).unwrap());
        }
        assert!(Netns::current().unwrap().is_same(&own).unwrap());

        let file = tempfile::NamedTempFile::new().unwrap();
        let error = Netns::open(&file.path().to_str().unwrap().parse().unwrap()).unwrap_err();
        assert!(error.is_not_found(), "{error}");
        assert!(netns::create_at(&pod.path).unwrap_err().is_exists());
        assert!(netns::create_named("../x").is_err());
    });
}

#[test]
fn sysctl_names_stay_below_proc_sys() {
    for bad in ["../../etc/passwd", "", "net//x", "/etc/passwd", "net/./x"] {
        assert!(sysctl::read(bad).is_err(), "{bad:?} was accepted");
        assert!(sysctl::write(bad, "1").is_err(), "{bad:?} was accepted");
    }
}
