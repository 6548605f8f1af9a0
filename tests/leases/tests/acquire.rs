//! Getting, keeping and losing a lease in a real etcd.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod node;

use agent::lease::etcd::network_config;
use node::{PREFIX, Start, known, lease, own, stored, value};
use pretty_assertions::assert_eq;
use towline_leases::Etcd;

#[tokio::test]
async fn a_configuration_that_cannot_be_is_named_until_it_is_repaired() {
    let etcd = Etcd::start(1).await.unwrap();
    let mut client = etcd.client(0).await.unwrap();
    let settings = node::settings(&etcd);
    let key = settings.config_key();
    let with = |keys: &str| format!(r#"{{"Network":"10.5.0.0/16",{keys}}}"#);
    for (text, said) in [
        (
            with(r#""SubnetLen":17,"Backend":{"Type":"vxlan"}"#),
            "SubnetLen: 17: write 18 to 30",
        ),
        (
            with(r#""SubnetMin":"10.6.0.0","Backend":{"Type":"vxlan"}"#),
            "SubnetMin: 10.6.0.0: it is not within Network 10.5.0.0/16",
        ),
        (
            r#"{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00::/48","Backend":{"Type":"vxlan"}}"#
                .to_owned(),
            "EnableIPv4: false: leases in etcd are named by IPv4 subnets; write true, or use --kube-subnet-mgr",
        ),
        (
            with(r#""network":"10.6.0.0/16","Backend":{"Type":"vxlan"}"#),
            "network: \"10.6.0.0/16\": Network is the same key; keep one of them",
        ),
    ] {
        client.put(key.clone(), text, None).await.unwrap();
        let error = network_config(&settings).await.unwrap_err();
        assert_eq!(format!("{error:#}"), format!("etcd {key}: {said}"));
    }
    let good = with(r#""SubnetLen":26,"Backend":{"Type":"vxlan"}"#);
    client.put(key, good, None).await.unwrap();
    let pools = network_config(&settings).await.unwrap().pools().unwrap();
    assert_eq!(pools.v4.size(), 1023);
}

#[tokio::test]
async fn the_first_node_writes_flannels_key_and_value_for_a_day() {
    let etcd = Etcd::start(1).await.unwrap();
    let mut client = etcd.client(0).await.unwrap();
    let node = Start::new(&etcd, 1).run();
    let key = node.held().await;
    assert_eq!(
        stored(&mut client).await,
        [(key.to_string(), value(1, 1), true)]
    );
    let leases = client.leases().await.unwrap();
    assert_eq!(leases.leases().len(), 1);
    let id = leases.leases()[0].id();
    let ttl = client.lease_time_to_live(id, None).await.unwrap();
    assert_eq!(ttl.granted_ttl(), 86_400);
}

#[tokio::test]
async fn a_node_that_starts_again_has_the_same_lease_and_leaves_no_second_one() {
    let etcd = Etcd::start(1).await.unwrap();
    let mut client = etcd.client(0).await.unwrap();
    let node = Start::new(&etcd, 1).run();
    let key = node.held().await;
    // Killed between the transaction and its subnet file: nothing remembers but etcd.
    drop(node);
    let node = Start::new(&etcd, 1).run();
    assert_eq!(node.held().await, key);
    node.stop().await;
    assert_eq!(
        stored(&mut client).await.len(),
        1,
        "a stop gives nothing back"
    );
    assert_eq!(client.leases().await.unwrap().leases().len(), 1);
}

#[tokio::test]
async fn what_a_node_had_is_its_again_unless_somebody_has_it() {
    let etcd = Etcd::start(1).await.unwrap();
    let first = Start::new(&etcd, 1).previous("10.5.77.0-24").run();
    assert_eq!(first.held().await.to_string(), "10.5.77.0-24");
    let second = Start::new(&etcd, 2).previous("10.5.77.0-24").run();
    assert_ne!(second.held().await.to_string(), "10.5.77.0-24");
}

#[tokio::test]
async fn a_moved_network_gives_a_new_lease_for_the_old_one() {
    let etcd = Etcd::start(1).await.unwrap();
    let mut client = etcd.client(0).await.unwrap();
    let node = Start::new(&etcd, 1).run();
    node.held().await;
    drop(node);
    let node = Start::new(&etcd, 1).network("10.6.0.0/16").run();
    let key = node.held().await;
    assert!(key.to_string().starts_with("10.6."), "{key}");
    assert_eq!(
        stored(&mut client).await,
        [(key.to_string(), value(1, 1), true)]
    );
}

#[tokio::test]
async fn a_deleted_lease_is_taken_again() {
    let etcd = Etcd::start(1).await.unwrap();
    let mut client = etcd.client(0).await.unwrap();
    let node = Start::new(&etcd, 1).run();
    let key = node.held().await;
    let name = format!("{}{key}", PREFIX);
    let deleted = client.delete(name.clone(), None).await.unwrap();
    let revision = deleted.header().unwrap().revision();
    let begun = tokio::time::Instant::now();
    loop {
        let found = client.get(name.clone(), None).await.unwrap();
        if found
            .kvs()
            .first()
            .is_some_and(|pair| pair.create_revision() > revision)
        {
            break;
        }
        assert!(begun.elapsed() < node::LIMIT, "it stays away");
        tokio::task::yield_now().await;
    }
    assert_eq!(node.held().await, key);
}

#[tokio::test]
async fn a_foreign_value_is_named_and_never_overwritten() {
    let etcd = Etcd::start(1).await.unwrap();
    let mut client = etcd.client(0).await.unwrap();
    let node = Start::new(&etcd, 1).run();
    let key = node.held().await;
    let name = format!("{}{key}", PREFIX);
    client.put(name, value(9, 9), None).await.unwrap();
    let report = node.reports(|report| report.obstacle.is_some()).await;
    assert_eq!(
        report.obstacle.unwrap(),
        format!(
            "lease {key} of this node (PublicIP 192.0.2.1, VtepMAC 02:00:00:00:00:01) was overwritten by PublicIP \
             192.0.2.9, VtepMAC 02:00:00:00:00:09: give each node an address of its own (public-ip, iface), then delete \
             that key; this node takes it again"
        )
    );
    // A change of this node's own is no reason to write over it either.
    node.lease.send(Some(lease(1, 0x21))).unwrap();
    let other = Start::new(&etcd, 2).run();
    other.held().await;
    let held = stored(&mut client).await;
    let foreign = held.iter().find(|(name, ..)| *name == key.to_string());
    assert_eq!(foreign.unwrap().1, value(9, 9));
}

#[tokio::test]
async fn two_nodes_with_one_address_are_told_apart_and_named() {
    let etcd = Etcd::start(1).await.unwrap();
    let first = Start::new(&etcd, 1).run();
    let key = first.held().await;
    let twin = Start::new(&etcd, 1).mac(0x42).run();
    let report = twin.reports(|report| report.obstacle.is_some()).await;
    let said = report.obstacle.unwrap();
    let expected = format!(
        "lease {key} has this node's PublicIP 192.0.2.1 but VtepMAC 02:00:00:00:00:01, which is not this node's \
         02:00:00:00:00:42: "
    );
    assert!(said.starts_with(&expected), "{said}");
    assert_eq!(first.held().await, key);
}

#[tokio::test]
async fn a_changed_address_changes_the_lease_in_place() {
    let etcd = Etcd::start(1).await.unwrap();
    let mut client = etcd.client(0).await.unwrap();
    let (node, peer) = (Start::new(&etcd, 1).run(), Start::new(&etcd, 2).run());
    let key = node.held().await;
    peer.held().await;
    node.lease.send(Some(lease(7, 1))).unwrap();
    let moved = |cluster: &desired::cluster::Cluster| {
        cluster.leases().iter().any(|one| {
            let ip = one.announced.and_then(|announced| announced.public_ip);
            ip == "192.0.2.7".parse().ok() && one.subnets == [key.v4.into()]
        })
    };
    peer.until(moved).await;
    let names: Vec<String> = stored(&mut client)
        .await
        .into_iter()
        .map(|(name, ..)| name)
        .collect();
    assert_eq!(names.len(), 2);
    assert!(names.contains(&key.to_string()));
}

#[tokio::test]
async fn an_address_that_changed_while_the_node_was_down_changes_the_lease_in_place() {
    let etcd = Etcd::start(1).await.unwrap();
    let mut client = etcd.client(0).await.unwrap();
    let node = Start::new(&etcd, 1).run();
    let key = node.held().await;
    drop(node);
    let name = key.to_string();
    let node = Start::new(&etcd, 7).mac(1).previous(&name).run();
    assert_eq!(node.held().await, key);
    assert_eq!(stored(&mut client).await, [(name, value(7, 1), true)]);
}

#[tokio::test]
async fn a_full_network_is_waited_for() {
    let etcd = Etcd::start(1).await.unwrap();
    let mut client = etcd.client(0).await.unwrap();
    let start = |number| Start::new(&etcd, number).network("10.5.0.0/24");
    let nodes: Vec<_> = (1..=3).map(|number| start(number).run()).collect();
    for node in &nodes {
        node.held().await;
    }
    let late = start(4).run();
    let report = late.reports(|report| report.obstacle.is_some()).await;
    assert!(
        report
            .obstacle
            .unwrap()
            .starts_with("out of subnets: all 3 of 10.5.0.0/24")
    );
    assert_eq!(own(&late.store.snapshot()), None);
    let free = nodes[0].held().await;
    drop(nodes.into_iter().next());
    client
        .delete(format!("{}{free}", PREFIX), None)
        .await
        .unwrap();
    assert_eq!(late.held().await, free);
    late.reports(|report| report.obstacle.is_none()).await;
}

#[tokio::test]
async fn a_name_that_is_no_lease_is_gone_around_where_it_is_in_the_way() {
    let etcd = Etcd::start(1).await.unwrap();
    let mut client = etcd.client(0).await.unwrap();
    // flannel reads the last two as leases; the first is somebody's copy.
    let names = ["10.5.0.64-26.bak", "10.5.0.130-26", "10.5.0.192-026"];
    for name in names {
        let name = format!("{PREFIX}{name}");
        client.put(name, value(9, 9), None).await.unwrap();
    }
    let node = Start::new(&etcd, 1)
        .network("10.5.0.0/24")
        .previous("10.5.0.64-26")
        .run();
    let report = node.reports(|report| report.obstacle.is_some()).await;
    let said = report.obstacle.unwrap();
    assert!(said.starts_with("out of subnets: "), "{said}");
    assert_eq!(report.unreadable.len(), 3);
    let name = format!("{PREFIX}{}", names[1]);
    client.delete(name, None).await.unwrap();
    assert_eq!(node.held().await.to_string(), "10.5.0.128-26");
}

#[tokio::test]
async fn leases_are_read_however_large_they_are_together() {
    let etcd = Etcd::start(1).await.unwrap();
    let mut client = etcd.client(0).await.unwrap();
    let notes = "x".repeat(1_400_000);
    for at in 0..4 {
        let name = format!("{PREFIX}notes{at}");
        client.put(name, notes.clone(), None).await.unwrap();
    }
    let node = Start::new(&etcd, 1).run();
    node.held().await;
    assert_eq!(node.report.borrow().unreadable.len(), 4);
}

#[tokio::test]
async fn junk_among_the_leases_harms_nobody() {
    let etcd = Etcd::start(1).await.unwrap();
    let mut client = etcd.client(0).await.unwrap();
    let (node, peer) = (Start::new(&etcd, 1).run(), Start::new(&etcd, 2).run());
    let (own, others) = (node.held().await, peer.held().await);
    for (name, value) in [
        ("notes", "x"),
        ("10.5.200.0-24", "{"),
        (&others.to_string(), "\u{1}"),
    ] {
        client
            .put(format!("{}{name}", PREFIX), value, None)
            .await
            .unwrap();
    }
    let report = node.reports(|report| report.unreadable.len() == 3).await;
    let named = |name: &str| report.unreadable.iter().any(|said| said.contains(name));
    assert!(named("notes") && named("10.5.200.0-24: "), "{report:?}");
    let mut expected = [own, others];
    expected.sort();
    assert_eq!(
        known(&node.store.snapshot()),
        expected.map(|key| key.to_string()),
        "the peer stays reachable"
    );
}
