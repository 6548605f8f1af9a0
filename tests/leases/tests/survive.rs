//! What etcd goes through, and nodes with it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod node;

use etcd_client::{GetOptions, WatchOptions};
use node::{PREFIX, Start, known, lease, stored, until, value};
use pretty_assertions::assert_eq;
use towline_leases::{Etcd, Proxy};

/// The MAC by which a node reaches the lease of node `ip`.
fn mac_of(cluster: &desired::cluster::Cluster, ip: &str) -> Option<String> {
    let lease = cluster
        .leases()
        .into_iter()
        .find(|one| one.announced.and_then(|announced| announced.public_ip) == ip.parse().ok())?;
    let macs = lease.announced?.attributes().macs();
    macs.first().map(ToString::to_string)
}

#[tokio::test]
async fn a_renewal_is_an_event_for_nobody() {
    let etcd = Etcd::start(1).await.unwrap();
    let mut client = etcd.client(0).await.unwrap();
    let node = Start::new(&etcd, 1).ttl(6).run();
    let key = node.held().await;
    let name = format!("{PREFIX}{key}");
    let found = client.get(name.clone(), None).await.unwrap();
    let (created, id) = (found.kvs()[0].create_revision(), found.kvs()[0].lease());
    // Longer than its life: without signs of life it would be gone.
    let begun = tokio::time::Instant::now();
    let (mut renewed, mut before) = (0, i64::MAX);
    while renewed < 3 || begun.elapsed().as_secs() < 8 {
        let ttl = client.lease_time_to_live(id, None).await.unwrap().ttl();
        assert!(ttl >= 0, "it has expired");
        renewed += u32::from(ttl > before);
        before = ttl;
        assert!(begun.elapsed() < node::LIMIT, "it is never renewed");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    // Nothing was written to all of etcd since: there is nothing to watch.
    let found = client.get(name, None).await.unwrap();
    assert_eq!(found.header().unwrap().revision(), created);
    assert_eq!(found.kvs()[0].lease(), id);
}

#[tokio::test]
async fn a_node_that_is_killed_as_its_lease_is_written_has_that_lease_again() {
    let etcd = Etcd::start(1).await.unwrap();
    let mut client = etcd.client(0).await.unwrap();
    let options = WatchOptions::new().with_prefix();
    let mut watch = client.watch(PREFIX, Some(options)).await.unwrap();
    watch.message().await.unwrap();
    let node = Start::new(&etcd, 1).run();
    let message = watch.message().await.unwrap().unwrap();
    assert_eq!(message.events().len(), 1);
    // Whether it has seen the answer or not: its subnet file was not written.
    drop(node);
    let node = Start::new(&etcd, 1).run();
    let key = node.held().await;
    let names: Vec<String> = stored(&mut client)
        .await
        .into_iter()
        .map(|one| one.0)
        .collect();
    assert_eq!(names, [key.to_string()]);
}

#[tokio::test]
async fn leases_stay_while_etcd_is_down_and_nothing_is_written_after() {
    let mut etcd = Etcd::start(1).await.unwrap();
    let (node, peer) = (
        Start::new(&etcd, 1).ttl(3).run(),
        Start::new(&etcd, 2).ttl(3).run(),
    );
    let (own, other) = (node.held().await, peer.held().await);
    node.until(|cluster| known(cluster).len() == 2).await;
    let mut client = etcd.client(0).await.unwrap();
    let options = || Some(GetOptions::new().with_prefix());
    let before = client.get(PREFIX, options()).await.unwrap();
    etcd.kill(0).unwrap();
    let endpoint = etcd.endpoints()[0].clone();
    let begun = tokio::time::Instant::now();
    let report = node.reports(|report| report.trouble.is_some()).await;
    assert!(report.trouble.unwrap().contains(&endpoint));
    // Longer than the leases live.
    while begun.elapsed().as_secs() < 5 {
        assert!(node.runs() && peer.runs());
        assert_eq!(known(&node.store.snapshot()).len(), 2);
        assert!(!node.report.borrow().connected);
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    etcd.restart(0).await.unwrap();
    node.reports(|report| report.connected && report.trouble.is_none())
        .await;
    peer.reports(|report| report.connected).await;
    let mut client = etcd.client(0).await.unwrap();
    let after = client.get(PREFIX, options()).await.unwrap();
    let shown = |found: &etcd_client::GetResponse| format!("{:?}", found.kvs());
    assert_eq!(shown(&after), shown(&before));
    assert_eq!((node.held().await, peer.held().await), (own, other));
}

#[tokio::test]
async fn an_etcd_that_answers_nothing_is_noticed_and_connected_to_anew() {
    let etcd = Etcd::start(1).await.unwrap();
    let node = Start::new(&etcd, 1).run();
    let key = node.held().await;
    etcd.pause(0, true).unwrap();
    node.reports(|report| !report.connected).await;
    assert_eq!(known(&node.store.snapshot()), [key.to_string()]);
    etcd.pause(0, false).unwrap();
    node.reports(|report| report.connected).await;
    assert_eq!(node.held().await, key);
}

#[tokio::test]
async fn what_changes_in_a_gap_of_the_watch_is_seen_even_if_it_was_compacted() {
    let etcd = Etcd::start(1).await.unwrap();
    let mut client = etcd.client(0).await.unwrap();
    let proxy = Proxy::to(etcd.address(0)).await.unwrap();
    let node = Start::new(&etcd, 1).through(&proxy).run();
    let (peer, gone) = (Start::new(&etcd, 2).run(), Start::new(&etcd, 3).run());
    node.held().await;
    let (_, leaving) = (peer.held().await, gone.held().await);
    node.until(|cluster| known(cluster).len() == 3).await;

    proxy.cut();
    node.reports(|report| !report.connected).await;
    peer.lease.send(Some(lease(2, 0x22))).unwrap();
    until(&mut client, |held| {
        held.iter().any(|one| one.1 == value(2, 0x22)).then_some(())
    })
    .await;
    drop(gone);
    let deleted = client.delete(format!("{PREFIX}{leaving}"), None).await;
    let now = deleted.unwrap().header().unwrap().revision();
    client.compact(now, None).await.unwrap();
    let before = node.store.snapshot();
    assert_eq!(mac_of(&before, "192.0.2.2").unwrap(), "02:00:00:00:00:02");

    proxy.mend();
    let after = node.until(|cluster| known(cluster).len() == 2).await;
    assert_eq!(mac_of(&after, "192.0.2.2").unwrap(), "02:00:00:00:00:22");
}

#[tokio::test]
async fn a_wiped_etcd_gets_the_leases_of_living_nodes_again_before_others_can_have_them() {
    let mut etcd = Etcd::start(1).await.unwrap();
    let start = |etcd: &Etcd, number| Start::new(etcd, number).network("10.5.0.0/22");
    let (one, two) = (start(&etcd, 1).run(), start(&etcd, 2).run());
    let mut keys = [one.held().await, two.held().await];
    etcd.wipe().await.unwrap();
    let mut client = etcd.client(0).await.unwrap();
    until(&mut client, |held| (held.len() == 2).then_some(())).await;
    let late = start(&etcd, 3).run();
    let third = late.held().await;
    assert!(
        !keys.contains(&third),
        "a living node's subnet is given away"
    );
    keys.sort();
    assert_eq!(
        {
            let mut now = [one.held().await, two.held().await];
            now.sort();
            now
        },
        keys
    );
    one.until(|cluster| known(cluster).len() == 3).await;
}

#[tokio::test]
async fn what_an_older_revision_does_not_know_is_written_again() {
    let mut etcd = Etcd::start(1).await.unwrap();
    let early = Start::new(&etcd, 1).run();
    let first = early.held().await;
    let backup = etcd.backup().await.unwrap();
    early.reports(|report| report.connected).await;
    let later = Start::new(&etcd, 2).run();
    let second = later.held().await;
    early.until(|cluster| known(cluster).len() == 2).await;
    etcd.restore(&backup).await.unwrap();
    let mut client = etcd.client(0).await.unwrap();
    let all = until(&mut client, |held| (held.len() == 2).then(|| held.to_vec())).await;
    let mut names = [first, second];
    names.sort_by_key(ToString::to_string);
    let found: Vec<String> = all.iter().map(|one| one.0.clone()).collect();
    assert_eq!(found, names.map(|key| key.to_string()));
    early
        .until(|cluster| known(cluster).len() == 2 && mac_of(cluster, "192.0.2.2").is_some())
        .await;
    assert_eq!((early.held().await, later.held().await), (first, second));
}

#[tokio::test]
async fn a_lease_that_expired_behind_a_cut_and_went_to_another_is_not_taken_back() {
    let etcd = Etcd::start(1).await.unwrap();
    let mut client = etcd.client(0).await.unwrap();
    let proxy = Proxy::to(etcd.address(0)).await.unwrap();
    let node = Start::new(&etcd, 1).through(&proxy).ttl(3).run();
    let key = node.held().await;
    proxy.cut();
    until(&mut client, |held| held.is_empty().then_some(())).await;
    let heir = Start::new(&etcd, 2).previous(&key.to_string()).run();
    assert_eq!(heir.held().await, key);
    proxy.mend();
    node.until(|cluster| node::own(cluster).is_some_and(|own| own != key))
        .await;
    let held = stored(&mut client).await;
    assert!(
        held.contains(&(key.to_string(), value(2, 2), true)),
        "{held:?}"
    );
    assert_eq!(held.len(), 2);
}

#[tokio::test]
async fn a_node_that_is_cut_off_beyond_its_leases_end_goes_on_and_has_the_same_again() {
    let etcd = Etcd::start(1).await.unwrap();
    let mut client = etcd.client(0).await.unwrap();
    let proxy = Proxy::to(etcd.address(0)).await.unwrap();
    let node = Start::new(&etcd, 1).through(&proxy).ttl(3).run();
    let (key, peer) = (node.held().await, Start::new(&etcd, 2).run());
    let other = peer.held().await;
    node.sees(2).await;
    let before = node.store.snapshot();
    proxy.cut();
    until(&mut client, |held| (held.len() == 1).then_some(())).await;
    peer.sees(1).await;
    // A while longer: a second life of the etcd lease.
    let begun = tokio::time::Instant::now();
    while begun.elapsed().as_secs() < 3 {
        assert!(node.runs());
        assert_eq!(node.store.snapshot().leases, before.leases);
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert!(!node.report.borrow().connected);
    proxy.mend();
    peer.sees(2).await;
    let mut expected = [(key, value(1, 1)), (other, value(2, 2))];
    expected.sort_by_key(|one| one.0.to_string());
    let held = stored(&mut client).await;
    let expected = expected.map(|(key, value)| (key.to_string(), value, true));
    assert_eq!(held, expected);
    assert_eq!(node.store.snapshot().leases, before.leases);
}

#[tokio::test]
async fn a_lease_that_expired_and_went_to_a_twin_with_this_nodes_address_stays_the_twins() {
    let etcd = Etcd::start(1).await.unwrap();
    let mut client = etcd.client(0).await.unwrap();
    let proxy = Proxy::to(etcd.address(0)).await.unwrap();
    let node = Start::new(&etcd, 1).through(&proxy).ttl(3).run();
    let key = node.held().await.to_string();
    proxy.cut();
    until(&mut client, |held| held.is_empty().then_some(())).await;
    let twin = Start::new(&etcd, 1).mac(0x42).previous(&key).run();
    assert_eq!(twin.held().await.to_string(), key);
    proxy.mend();
    let report = node.reports(|report| report.obstacle.is_some()).await;
    let said = report.obstacle.unwrap();
    assert!(said.contains("but VtepMAC 02:00:00:00:00:42"), "{said}");
    let held = stored(&mut client).await;
    assert_eq!(held, [(key, value(1, 0x42), true)]);
    assert_eq!(twin.report.borrow().obstacle, None);
}

#[tokio::test]
async fn nodes_follow_each_other_through_the_loss_of_the_leader_and_a_member_replaced() {
    let mut etcd = Etcd::start(3).await.unwrap();
    let (one, two) = (Start::new(&etcd, 1).run(), Start::new(&etcd, 2).run());
    let keys = (one.held().await, two.held().await);
    one.sees(2).await;

    let leader = etcd.leader().await.unwrap();
    etcd.kill(leader).unwrap();
    let third = Start::new(&etcd, 3).run();
    third.held().await;
    one.sees(3).await;
    two.sees(3).await;
    etcd.restart(leader).await.unwrap();

    let other = (leader + 1) % 3;
    etcd.rotate(other).await.unwrap();
    let fourth = Start::new(&etcd, 4).run();
    fourth.held().await;
    one.sees(4).await;
    two.sees(4).await;
    assert_eq!((one.held().await, two.held().await), keys);
    assert!(one.runs() && two.runs() && third.runs());
}
