//! etcd restored from a backup: what nodes use counts, not what it says.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod node;

use node::{PREFIX, Start, lease, stored, until, value};
use pretty_assertions::assert_eq;
use towline_leases::Etcd;

#[tokio::test]
async fn an_older_value_of_this_node_is_written_anew() {
    let mut etcd = Etcd::start(1).await.unwrap();
    let node = Start::new(&etcd, 1).run();
    let key = node.held().await.to_string();
    let backup = etcd.backup().await.unwrap();
    let mut client = etcd.client(0).await.unwrap();
    for mac in [0x21, 0x22] {
        node.lease.send(Some(lease(1, mac))).unwrap();
        until(&mut client, |held| {
            (held[0].1 == value(1, mac)).then_some(())
        })
        .await;
    }
    etcd.restore(&backup).await.unwrap();
    let mut client = etcd.client(0).await.unwrap();
    until(&mut client, |held| {
        (held == [(key.clone(), value(1, 0x22), true)]).then_some(())
    })
    .await;
    node.reports(|report| report.connected && report.obstacle.is_none())
        .await;
}

#[tokio::test]
async fn a_node_has_what_its_pods_use_not_what_it_had_at_the_time_of_the_backup() {
    let mut etcd = Etcd::start(1).await.unwrap();
    let node = Start::new(&etcd, 1).run();
    let old = node.held().await.to_string();
    let backup = etcd.backup().await.unwrap();
    let mut client = etcd.client(0).await.unwrap();
    drop(node);
    let name = format!("{PREFIX}{old}");
    client.put(name.clone(), value(9, 9), None).await.unwrap();
    let node = Start::new(&etcd, 1).run();
    let now = node.held().await;
    assert_ne!(now.to_string(), old);
    client.delete(name, None).await.unwrap();

    etcd.restore(&backup).await.unwrap();
    let mut client = etcd.client(0).await.unwrap();
    until(&mut client, |held| (held.len() == 2).then_some(())).await;
    node.sees(2).await;
    assert_eq!(node.held().await, now);
    let mut expected = [old, now.to_string()];
    expected.sort();
    let expected = expected.map(|key| (key, value(1, 1), true));
    assert_eq!(stored(&mut client).await, expected);
}
