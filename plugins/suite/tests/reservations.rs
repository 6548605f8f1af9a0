//! host-local's files and their index: compatible, and never believed against the files.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::path::Path;

use pretty_assertions::assert_eq;
use proptest::prelude::*;
use protocol::Attachment;
use towline_suite::host_local::store::{Owner, Store};

fn owner(container_id: &str, ifname: &str) -> Owner {
    Owner {
        container_id: container_id.to_owned(),
        ifname: ifname.to_owned(),
    }
}

fn ip(last: u8) -> IpAddr {
    IpAddr::from([10, 1, 0, last])
}

#[test]
fn files_are_the_reference_plugins() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(folder.path()).unwrap();
    store.reserve(ip(2), &owner("c1", "eth0"), 0).unwrap();
    let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
    assert_eq!(read("10.1.0.2"), "c1\r\neth0");
    assert_eq!(read("last_reserved_ip.0"), "10.1.0.2");
    assert!(store.reserve(ip(2), &owner("c2", "eth0"), 0).is_err());
    assert_eq!(read("10.1.0.2"), "c1\r\neth0");
}

#[test]
fn legacy_and_padded_files_belong_to_their_container() {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("10.1.0.2", "c1"),
        ("10.1.0.3", " c1 \r\n eth1 \n"),
        ("10.1.0.4", "c2\r\neth0"),
        ("10.1.0.5", ""),
    ] {
        fs::write(folder.path().join(name), text).unwrap();
    }
    // Once from the files, once from the index.
    for _ in 0..2 {
        let store = Store::open(folder.path()).unwrap();
        assert_eq!(store.addresses_of(&owner("c1", "eth0")), [ip(2)]);
        assert_eq!(store.addresses_of(&owner("c1", "eth1")), [ip(2), ip(3)]);
    }
    let valid = [Attachment {
        container_id: "c2".into(),
        ifname: "eth0".into(),
    }];
    let mut store = Store::open(folder.path()).unwrap();
    store.keep_only(&valid).unwrap();
    assert_eq!(store.reserved().collect::<Vec<_>>(), [ip(4)]);
}

#[test]
fn a_damaged_index_counts_for_nothing() {
    let folder = tempfile::tempdir().unwrap();
    Store::open(folder.path())
        .unwrap()
        .reserve(ip(2), &owner("c1", "eth0"), 0)
        .unwrap();
    let index = folder.path().join(".towline-index");
    let whole = fs::read(&index).unwrap();
    for length in 0..whole.len() {
        // Writing in place leaves the folder's time alone, so only the damage can tell.
        fs::write(&index, &whole[..length]).unwrap();
        let store = Store::open(folder.path()).unwrap();
        assert_eq!(
            store.reserved().collect::<Vec<_>>(),
            [ip(2)],
            "cut to {length} bytes"
        );
        drop(store);
        assert_eq!(
            fs::read(&index).unwrap().len(),
            whole.len(),
            "not written anew"
        );
    }
}

#[derive(Debug, Clone)]
enum Deed {
    Reserve(u8),
    Release(u8),
    Reopen,
    /// The reference plugin, which knows no index.
    OtherReserves(u8),
    OtherReleases(u8),
}

fn deed() -> impl Strategy<Value = Deed> {
    let last = 2u8..12;
    prop_oneof![
        3 => last.clone().prop_map(Deed::Reserve),
        3 => last.clone().prop_map(Deed::Release),
        3 => Just(Deed::Reopen),
        1 => last.clone().prop_map(Deed::OtherReserves),
        1 => last.prop_map(Deed::OtherReleases),
    ]
}

fn files(folder: &Path) -> BTreeMap<IpAddr, String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let named = entries.filter_map(|entry| {
        let ip = entry.file_name().to_str()?.parse().ok()?;
        Some((ip, fs::read_to_string(entry.path()).unwrap()))
    });
    named.collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_index_never_differs_from_the_files(deeds in proptest::collection::vec(deed(), 0..60)) {
        let folder = tempfile::tempdir().unwrap();
        let mut open = Some(Store::open(folder.path()).unwrap());
        for deed in deeds {
            match deed {
                Deed::Reopen => {}
                // The lock keeps others out while the store is open.
                Deed::OtherReserves(n) => {
                    open = None;
                    let path = folder.path().join(ip(n).to_string());
                    if let Ok(mut file) = fs::File::create_new(path) {
                        write!(file, "x{n}\r\neth0").unwrap();
                    }
                }
                Deed::OtherReleases(n) => {
                    open = None;
                    let _ = fs::remove_file(folder.path().join(ip(n).to_string()));
                }
                Deed::Reserve(n) => {
                    let store = open.as_mut().unwrap();
                    let free = !store.is_reserved(ip(n));
                    let done = store.reserve(ip(n), &owner(&format!("c{n}"), "eth0"), 0).is_ok();
                    prop_assert_eq!(done, free);
                    continue;
                }
                Deed::Release(n) => {
                    let store = open.as_mut().unwrap();
                    store.release(&owner(&format!("c{n}"), "eth0")).unwrap();
                    continue;
                }
            }
            drop(open.take());
            let store = Store::open(folder.path()).unwrap();
            let known: Vec<IpAddr> = store.reserved().collect();
            let there = files(folder.path());
            prop_assert_eq!(&known, &there.keys().copied().collect::<Vec<_>>());
            for (ip, text) in there {
                let id = text.split("\r\n").next().unwrap();
                prop_assert!(store.addresses_of(&owner(id, "eth0")).contains(&ip));
            }
            open = Some(store);
        }
    }
}
