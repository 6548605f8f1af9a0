//! Many nodes in one network: nobody gets what another has, whatever its size and family.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod node;

use desired::lease::LeaseKey;
use desired::lease::acquire::overlap;
use etcd_client::{EventType, GetOptions, PutOptions, WatchOptions};
use futures::future::join_all;
use node::{PREFIX, Start, pool, stored, until, value};
use pretty_assertions::assert_eq;
use towline_leases::requests::{between, requests};
use towline_leases::{Etcd, crowd};

/// Fails if two of `keys` share an address.
fn assert_apart(keys: &[LeaseKey]) {
    for (at, one) in keys.iter().enumerate() {
        for other in &keys[at + 1..] {
            let shared = one
                .subnets()
                .any(|one| other.subnets().any(|other| overlap(one, other)));
            assert!(!shared, "{one} and {other} overlap");
        }
    }
}

async fn held(nodes: &[node::Node]) -> Vec<LeaseKey> {
    join_all(nodes.iter().map(node::Node::held)).await
}

#[tokio::test]
async fn forty_that_start_at_once_all_get_one_of_63_subnets() {
    let etcd = Etcd::start(1).await.unwrap();
    let subnets = pool("10.5.0.0/18", 24);
    assert_eq!(subnets.size(), 63);
    let nodes: Vec<_> = (1..=40)
        .map(|number| Start::new(&etcd, number).pools(subnets, None).run())
        .collect();
    let keys = held(&nodes).await;
    assert_apart(&keys);
    let mut client = etcd.client(0).await.unwrap();
    assert_eq!(stored(&mut client).await.len(), 40);
    // Lost races leave nothing behind: each node has one etcd lease.
    assert_eq!(client.leases().await.unwrap().leases().len(), 40);
}

#[tokio::test]
async fn subnets_of_mixed_sizes_never_overlap() {
    let etcd = Etcd::start(1).await.unwrap();
    let sizes = [22, 24, 25, 26, 28, 30];
    let nodes: Vec<_> = (1..=24)
        .map(|number| {
            let len = sizes[usize::from(number) % sizes.len()];
            let network = pool("10.5.0.0/19", len);
            Start::new(&etcd, number).pools(network, None).run()
        })
        .collect();
    let mut client = etcd.client(0).await.unwrap();
    // Seven blocks of 22 in a /19: the network may be full for some of the large ones.
    for node in &nodes {
        node.until_settled().await;
    }
    let keys: Vec<LeaseKey> = stored(&mut client)
        .await
        .iter()
        .map(|one| one.0.parse().unwrap())
        .collect();
    assert!(keys.len() >= 20, "{keys:?}");
    assert_apart(&keys);
}

#[tokio::test]
async fn dual_stack_leases_never_share_a_subnet_of_either_family() {
    let etcd = Etcd::start(1).await.unwrap();
    let (v4, v6) = (pool("10.5.0.0/20", 24), pool("fc00:5::/44", 48));
    let nodes: Vec<_> = (1..=12)
        .map(|number| {
            // Some know of one family only.
            let v6 = (number % 3 != 0).then_some(v6);
            Start::new(&etcd, number).pools(v4, v6).run()
        })
        .collect();
    assert_apart(&held(&nodes).await);
}

#[tokio::test]
async fn at_no_moment_are_there_two_leases_with_one_address_of_either_family() {
    let etcd = Etcd::start(1).await.unwrap();
    let mut client = etcd.client(0).await.unwrap();
    let options = WatchOptions::new().with_prefix().with_start_revision(1);
    let mut watch = client.watch(PREFIX, Some(options)).await.unwrap();
    // Nodes of two minds about IPv4 subnets: their IPv6 subnets have no place in common.
    let v6 = pool("fc00:5::/60", 64);
    let nodes: Vec<_> = (1..=12)
        .map(|number| {
            let len = if number % 2 == 0 { 24 } else { 26 };
            let v4 = pool("10.5.0.0/20", len);
            Start::new(&etcd, number).pools(v4, Some(v6)).run()
        })
        .collect();
    assert_apart(&held(&nodes).await);
    let mut now: Vec<LeaseKey> = Vec::new();
    while now.len() < 12 {
        let message = watch.message().await.unwrap().unwrap();
        for event in message.events() {
            let name = event.kv().unwrap().key_str().unwrap();
            let key = name.strip_prefix(PREFIX).unwrap().parse().unwrap();
            match event.event_type() {
                EventType::Put => now.push(key),
                EventType::Delete => panic!("{name} was given up"),
            }
            assert_apart(&now);
        }
    }
}

#[tokio::test]
async fn a_key_with_equal_ipv4_and_other_ipv6_is_in_the_way() {
    let etcd = Etcd::start(1).await.unwrap();
    let mut client = etcd.client(0).await.unwrap();
    // Three subnets; flannel holds two of them in forms that are not this node's.
    for name in ["10.5.0.64-26&fc00:9:0:1::-64", "10.5.0.128-27"] {
        let name = format!("{PREFIX}{name}");
        client.put(name, value(9, 9), None).await.unwrap();
    }
    let node = Start::new(&etcd, 1).network("10.5.0.0/24").run();
    assert_eq!(node.held().await.to_string(), "10.5.0.192-26");
    let late = Start::new(&etcd, 2)
        .network("10.5.0.0/24")
        .previous("10.5.0.64-26")
        .run();
    let report = late.reports(|report| report.obstacle.is_some()).await;
    assert!(report.obstacle.unwrap().starts_with("out of subnets: "));
    assert_eq!(stored(&mut client).await.len(), 3);
}

#[tokio::test]
async fn an_overlap_that_others_make_is_named_with_both_sides() {
    let etcd = Etcd::start(1).await.unwrap();
    let mut client = etcd.client(0).await.unwrap();
    let node = Start::new(&etcd, 1).previous("10.5.8.0-24").run();
    let key = node.held().await;
    let name = format!("{PREFIX}10.5.8.0-22");
    client.put(name.clone(), value(9, 9), None).await.unwrap();
    let report = node.reports(|report| report.obstacle.is_some()).await;
    assert_eq!(
        report.obstacle.unwrap(),
        "lease 10.5.8.0-24 of this node (PublicIP 192.0.2.1, VtepMAC 02:00:00:00:00:01) shares addresses with lease \
         10.5.8.0-22 (PublicIP 192.0.2.9, VtepMAC 02:00:00:00:00:09): release one of them, and set the same SubnetLen \
         everywhere"
    );
    client.delete(name, None).await.unwrap();
    node.reports(|report| report.obstacle.is_none()).await;
    assert_eq!(node.held().await, key);
}

#[tokio::test]
async fn a_reservation_stays_one_and_needs_no_etcd_lease() {
    let etcd = Etcd::start(1).await.unwrap();
    let mut client = etcd.client(0).await.unwrap();
    let name = format!("{PREFIX}10.5.4.0-24");
    let reserved = r#"{"PublicIP":"192.0.2.1"}"#;
    client.put(name, reserved, None).await.unwrap();
    let before = requests(&etcd.endpoints()[0]).await.unwrap();
    let kept = ("10.5.4.0-24".to_owned(), value(1, 1), false);
    for _ in 0..2 {
        let node = Start::new(&etcd, 1).run();
        assert_eq!(node.held().await.to_string(), "10.5.4.0-24");
        assert_eq!(stored(&mut client).await, std::slice::from_ref(&kept));
        node.stop().await;
    }
    assert_eq!(client.leases().await.unwrap().leases().len(), 0);
    let asked = between(&before, &requests(&etcd.endpoints()[0]).await.unwrap());
    assert_eq!(asked.get("LeaseGrant"), None);
    assert_eq!(asked.get("LeaseKeepAlive"), None);
}

#[tokio::test]
async fn a_lease_that_an_administrator_makes_a_reservation_has_no_end() {
    let etcd = Etcd::start(1).await.unwrap();
    let mut client = etcd.client(0).await.unwrap();
    let node = Start::new(&etcd, 1).run();
    let key = node.held().await;
    node.reports(|report| report.expires.is_some()).await;
    let name = format!("{PREFIX}{key}");
    client.put(name, value(1, 1), None).await.unwrap();
    node.reports(|report| report.expires.is_none()).await;
    assert_eq!(node.held().await, key);
}

#[tokio::test]
async fn a_value_of_this_node_put_back_or_removed_ends_the_obstacle() {
    let etcd = Etcd::start(1).await.unwrap();
    let mut client = etcd.client(0).await.unwrap();
    let node = Start::new(&etcd, 1).run();
    let key = node.held().await;
    let name = format!("{PREFIX}{key}");
    let named = |report: &agent::lease::etcd::StoreReport| report.obstacle.is_some();

    client.put(name.clone(), value(9, 9), None).await.unwrap();
    node.reports(named).await;
    let id = client.lease_grant(60, None).await.unwrap().id();
    let options = PutOptions::new().with_lease(id);
    client
        .put(name.clone(), value(1, 1), Some(options))
        .await
        .unwrap();
    node.reports(|report| report.obstacle.is_none()).await;
    // It hangs on that etcd lease now, and a change of the node's own keeps it so.
    node.lease.send(Some(node::lease(1, 0x21))).unwrap();
    until(&mut client, |held| {
        (held[0].1 == value(1, 0x21)).then_some(())
    })
    .await;
    let found = client.get(name.clone(), None).await.unwrap();
    assert_eq!(found.kvs()[0].lease(), id);

    // Something unreadable is no claim, and not repaired either.
    client.put(name.clone(), "junk", None).await.unwrap();
    let report = node.reports(named).await;
    let said = report.obstacle.unwrap();
    assert!(
        said.contains("overwritten by a value that cannot be read"),
        "{said}"
    );
    client.delete(name, None).await.unwrap();
    node.reports(|report| report.obstacle.is_none()).await;
    until(&mut client, |held| {
        (held == [(key.to_string(), value(1, 0x21), true)]).then_some(())
    })
    .await;
}

#[tokio::test]
async fn nothing_but_leases_is_written_anywhere_in_etcd() {
    let etcd = Etcd::start(1).await.unwrap();
    let mut client = etcd.client(0).await.unwrap();
    let nodes: Vec<_> = (1..=3).map(|at| Start::new(&etcd, at).run()).collect();
    let keys = held(&nodes).await;
    let all = GetOptions::new().with_all_keys();
    let found = client.get("", Some(all)).await.unwrap();
    let mut names: Vec<&str> = found
        .kvs()
        .iter()
        .map(|pair| pair.key_str().unwrap())
        .collect();
    names.sort_unstable();
    let mut expected: Vec<String> = keys.iter().map(|key| format!("{PREFIX}{key}")).collect();
    expected.sort_unstable();
    assert_eq!(names, expected);
}

#[tokio::test]
async fn to_join_takes_the_same_few_requests_however_many_leases_there_are() {
    let etcd = Etcd::start(1).await.unwrap();
    let mut client = etcd.client(0).await.unwrap();
    for at in 1..=200 {
        let name = format!("{PREFIX}10.5.{at}.0-24");
        client.put(name, value(200, 200), None).await.unwrap();
    }
    let url = etcd.endpoints()[0].clone();
    let before = requests(&url).await.unwrap();
    let node = Start::new(&etcd, 1).run();
    node.held().await;
    node.sees(201).await;
    let asked = between(&before, &requests(&url).await.unwrap());
    let expected = [("LeaseGrant", 1), ("Range", 1), ("Txn", 1), ("Watch", 1)];
    assert_eq!(
        asked.into_iter().collect::<Vec<_>>(),
        expected.map(|(method, count)| (method.to_owned(), count))
    );
}

#[tokio::test]
async fn a_race_as_the_benchmark_has_it_is_counted_in_full() {
    let etcd = Etcd::start(1).await.unwrap();
    let v4 = pool("10.5.0.0/22", 26);
    let pools = desired::lease::Pools { v4, v6: None };
    // Every subnet there is.
    let race = crowd::race(&etcd, pools, 15, node::LIMIT).await.unwrap();
    assert_eq!((race.keys.len(), race.times.len()), (15, 15));
    assert_apart(&race.keys);
    assert_eq!(
        race.requests["LeaseGrant"], 15,
        "one for each, kept through lost races"
    );
    assert!(race.requests["Txn"] >= 15);
    assert!(race.requests["Range"] >= 15);
    assert_eq!(race.requests.get("LeaseRevoke"), None);
}
