//! What becomes of leases when requests and answers go astray, each at its worst moment.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod node;

use std::time::Duration;

use agent::lease::Tenure;
use etcd_client::Client;
use node::{PREFIX, Start, known, lease, stored, until, value};
use pretty_assertions::assert_eq;
use tokio::time::Instant;
use towline_leases::{Etcd, Wire};

/// The etcd lease that a key hangs on, and the revision of its creation.
async fn hangs_on(client: &mut Client, key: &str) -> (i64, i64) {
    let found = client.get(format!("{PREFIX}{key}"), None).await.unwrap();
    assert_eq!(found.kvs().len(), 1, "it is gone");
    let pair = &found.kvs()[0];
    (pair.lease(), pair.create_revision())
}

#[tokio::test]
async fn a_write_that_is_done_but_not_answered_is_found_and_not_done_twice() {
    let etcd = Etcd::start(1).await.unwrap();
    let mut client = etcd.client(0).await.unwrap();
    let wire = Wire::to(etcd.address(0)).await.unwrap();

    // Creation.
    wire.lose("Txn");
    let node = Start::new(&etcd, 1).on(&wire).run();
    let key = node.held().await.to_string();
    assert_eq!(
        stored(&mut client).await,
        [(key.clone(), value(1, 1), true)]
    );

    // A change of the value.
    node.lease.send(Some(lease(1, 0x21))).unwrap();
    until(&mut client, |held| {
        (held[0].1 == value(1, 0x21)).then_some(())
    })
    .await;
    wire.mend();
    node.reports(|report| report.connected).await;
    let revision = client.get("/", None).await.unwrap();
    let revision = revision.header().unwrap().revision();
    assert_eq!(node.held().await.to_string(), key);
    assert_eq!(node.report.borrow().obstacle, None);

    // Deletion, because the network was moved.
    drop(node);
    wire.lose("Txn");
    let moved = Start::new(&etcd, 1)
        .mac(0x21)
        .network("10.6.0.0/16")
        .on(&wire)
        .run();
    let key = moved.held().await.to_string();
    assert!(key.starts_with("10.6."), "{key}");
    let now = stored(&mut client).await;
    assert_eq!(now, [(key, value(1, 0x21), true)]);
    let found = client.get("/", None).await.unwrap();
    let written = found.header().unwrap().revision() - revision;
    assert_eq!(written, 2, "one deletion, one creation");
}

#[tokio::test]
async fn what_another_writes_while_a_request_is_under_way_is_not_written_over() {
    let etcd = Etcd::start(1).await.unwrap();
    let mut client = etcd.client(0).await.unwrap();
    let name = format!("{PREFIX}10.5.8.0-24");
    let theirs = ("10.5.8.0-24".to_owned(), value(9, 9), false);
    let start = || Start::new(&etcd, 1).previous("10.5.8.0-24");
    let ours = start().mac(0x33);

    // This node's value, changed, and the lease given back.
    for is_release in [false, true] {
        let wire = Wire::to(etcd.address(0)).await.unwrap();
        let node = start().on(&wire).run();
        assert_eq!(format!("{PREFIX}{}", node.held().await), name);
        wire.hold("Txn");
        if is_release {
            node.tenure.send_replace(Tenure::GivingBack);
        } else {
            node.lease.send(Some(lease(1, 0x21))).unwrap();
        }
        wire.seen("Txn", 2, node::LIMIT).await.unwrap();
        client.put(name.clone(), value(9, 9), None).await.unwrap();
        wire.mend();
        if is_release {
            node.release().await;
        } else {
            node.reports(|report| report.obstacle.is_some()).await;
        }
        assert_eq!(stored(&mut client).await, std::slice::from_ref(&theirs));
        drop(node);
        client.delete(name.clone(), None).await.unwrap();
    }

    // A lease that was found, deleted because the network was moved, and taken over.
    for start in [start().network("10.6.0.0/16"), ours] {
        client.put(name.clone(), value(1, 1), None).await.unwrap();
        let wire = Wire::to(etcd.address(0)).await.unwrap();
        wire.hold("Txn");
        let node = start.on(&wire).run();
        wire.seen("Txn", 1, node::LIMIT).await.unwrap();
        client.put(name.clone(), value(9, 9), None).await.unwrap();
        wire.mend();
        let key = node.held().await.to_string();
        assert_ne!(key, theirs.0);
        assert!(stored(&mut client).await.contains(&theirs));
        drop(node);
        client.delete(format!("{PREFIX}{key}"), None).await.unwrap();
    }
}

#[tokio::test]
async fn an_etcd_lease_that_was_granted_long_ago_is_renewed_as_soon_as_it_is_used() {
    let etcd = Etcd::start(1).await.unwrap();
    let mut client = etcd.client(0).await.unwrap();
    let wire = Wire::to(etcd.address(0)).await.unwrap();
    let put = async |client: &mut Client, name: &str| {
        let name = format!("{PREFIX}{name}");
        client.put(name, value(9, 9), None).await.unwrap();
    };
    for name in ["10.5.0.64-26", "10.5.0.128-26"] {
        put(&mut client, name).await;
    }
    // Another is faster by a hair, and the network is full.
    wire.hold("Txn");
    let node = Start::new(&etcd, 1)
        .network("10.5.0.0/24")
        .ttl(6)
        .on(&wire)
        .run();
    wire.seen("Txn", 1, node::LIMIT).await.unwrap();
    put(&mut client, "10.5.0.192-26").await;
    wire.mend();
    node.reports(|report| report.obstacle.is_some()).await;
    let leases = client.leases().await.unwrap();
    let granted = leases.leases()[0].id();
    loop {
        let left = client.lease_time_to_live(granted, None).await.unwrap();
        if left.ttl() <= 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let free = format!("{PREFIX}10.5.0.128-26");
    client.delete(free, None).await.unwrap();
    let key = node.held().await.to_string();
    assert_eq!(key, "10.5.0.128-26");
    let had = hangs_on(&mut client, &key).await;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(5) {
        assert_eq!(hangs_on(&mut client, &key).await, had);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_lease_whose_etcd_lease_is_not_known_any_more_is_hung_on_another_in_place() {
    let etcd = Etcd::start(1).await.unwrap();
    let mut client = etcd.client(0).await.unwrap();
    let wire = Wire::to(etcd.address(0)).await.unwrap();
    let node = Start::new(&etcd, 1).ttl(6).on(&wire).run();
    let key = node.held().await.to_string();
    let (before, created) = hangs_on(&mut client, &key).await;
    wire.expire();
    let begun = Instant::now();
    let now = loop {
        let (now, still) = hangs_on(&mut client, &key).await;
        assert_eq!(still, created, "it was away");
        if now != before {
            break now;
        }
        assert!(begun.elapsed() < node::LIMIT, "it stays on what is gone");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    wire.mend();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(8) {
        let left = client.lease_time_to_live(now, None).await.unwrap().ttl();
        assert!(left >= 0, "it has expired");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(hangs_on(&mut client, &key).await, (now, created));
    assert!(node.report.borrow().connected);
}

#[tokio::test]
async fn what_a_live_watch_was_too_slow_for_and_etcd_has_compacted_is_listed_anew() {
    let etcd = Etcd::start(1).await.unwrap();
    let mut client = etcd.client(0).await.unwrap();
    let wire = Wire::to(etcd.address(0)).await.unwrap();
    let node = Start::new(&etcd, 1).on(&wire).run();
    let key = node.held().await.to_string();
    let peer = format!("{PREFIX}10.5.200.0-24");
    client
        .put(peer.clone(), value(200, 200), None)
        .await
        .unwrap();
    node.sees(2).await;
    let mut trouble = node.report.clone();
    let compacted = tokio::spawn(async move {
        let what = "etcd has compacted what was missed";
        let compacted =
            |report: &agent::lease::etcd::StoreReport| report.trouble.as_deref() == Some(what);
        drop(trouble.wait_for(compacted).await.unwrap());
    });

    // More than etcd and the way to the node take before somebody reads.
    wire.hold("Watch");
    let notes = "x".repeat(16 * 1024);
    for _ in 0..400 {
        let name = format!("{PREFIX}notes");
        client.put(name, notes.clone(), None).await.unwrap();
    }
    let deleted = client.delete(peer, None).await.unwrap();
    let now = deleted.header().unwrap().revision();
    client.compact(now, None).await.unwrap();
    assert!(node.report.borrow().connected, "its connection stays");
    wire.mend();
    node.until(|cluster| known(cluster) == [key.clone()]).await;
    let seen = tokio::time::timeout(node::LIMIT, compacted).await;
    seen.expect("it was not the compaction").unwrap();
}

#[tokio::test]
async fn an_older_etcd_behind_a_proxy_that_keeps_the_watch_is_noticed() {
    let mut etcd = Etcd::start(1).await.unwrap();
    let wire = Wire::to(etcd.address(0)).await.unwrap();
    let backup = etcd.backup().await.unwrap();
    let node = Start::new(&etcd, 1).on(&wire).run();
    let key = node.held().await.to_string();
    let mut client = etcd.client(0).await.unwrap();
    let peer = format!("{PREFIX}10.5.200.0-24");
    for mac in 1..=5 {
        let value = value(200, mac);
        client.put(peer.clone(), value, None).await.unwrap();
    }
    node.sees(2).await;
    let mut trouble = node.report.clone();
    let older = tokio::spawn(async move {
        let what = "etcd is at an older revision than before";
        let older =
            |report: &agent::lease::etcd::StoreReport| report.trouble.as_deref() == Some(what);
        drop(trouble.wait_for(older).await.unwrap());
    });
    etcd.restore(&backup).await.unwrap();
    node.until(|cluster| known(cluster) == [key.clone()]).await;
    let mut client = etcd.client(0).await.unwrap();
    until(&mut client, |held| {
        (held == [(key.clone(), value(1, 1), true)]).then_some(())
    })
    .await;
    let seen = tokio::time::timeout(node::LIMIT, older).await;
    seen.expect("it was noticed otherwise").unwrap();
}

#[tokio::test]
async fn an_administrators_release_leaves_nothing_whatever_was_under_way() {
    let etcd = Etcd::start(1).await.unwrap();
    let mut client = etcd.client(0).await.unwrap();
    let wire = Wire::to(etcd.address(0)).await.unwrap();

    // The value was to be changed.
    let node = Start::new(&etcd, 1).on(&wire).run();
    node.held().await;
    wire.hold("Txn");
    node.lease.send(Some(lease(1, 0x21))).unwrap();
    wire.seen("Txn", 2, node::LIMIT).await.unwrap();
    node.tenure.send_replace(Tenure::GivingBack);
    wire.seen("Txn", 3, node::LIMIT).await.unwrap();
    wire.mend();
    node.release().await;
    assert_eq!(stored(&mut client).await, []);
    assert_eq!(client.leases().await.unwrap().leases().len(), 0);

    // The lease was created, and the node has not been told.
    wire.lose("Txn");
    let node = Start::new(&etcd, 2).on(&wire).run();
    until(&mut client, |held| (held.len() == 1).then_some(())).await;
    wire.hold("Range");
    node.tenure.send_replace(Tenure::GivingBack);
    wire.mend();
    node.release().await;
    assert_eq!(stored(&mut client).await, []);
}
