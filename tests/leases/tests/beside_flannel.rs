//! Nodes beside flanneld in one etcd, in both directions. flanneld is the model of it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod node;

use std::time::Duration;

use futures::future::join_all;
use node::{Node, PREFIX, Start, known, lease, stored, until, value};
use pretty_assertions::assert_eq;
use towline_leases::flanneld::{Event, Exit, Running};
use towline_leases::{Etcd, Flanneld};

/// flanneld on node `ip`, with the MAC `mac`.
fn flanneld(ip: u8, mac: u8) -> Flanneld {
    Flanneld {
        public_ip: format!("192.0.2.{ip}").parse().unwrap(),
        value: value(ip, mac),
        network: "10.5.0.0/16".parse().unwrap(),
        network_v6: None,
        previous: None,
        ttl: 86_400,
        margin: Duration::from_secs(3600),
    }
}

async fn start(etcd: &Etcd, flanneld: Flanneld) -> Running {
    let client = etcd.client(0).await.unwrap();
    flanneld.start(client).await.unwrap()
}

fn key(running: &Running) -> String {
    format!("{}-24", running.subnet.ip())
}

/// Waits until flanneld has a way to exactly these.
async fn reaches(running: &Running, expected: &[(String, String)]) {
    let mut peers = running.peers.clone();
    let is_so = |peers: &towline_leases::flanneld::Peers| {
        let reached = peers.reached.iter();
        let reached = reached.map(|(name, value)| (name.clone(), value.clone()));
        let mut expected = expected.to_vec();
        expected.sort();
        reached.collect::<Vec<_>>() == expected
    };
    let found = tokio::time::timeout(node::LIMIT, peers.wait_for(is_so)).await;
    assert!(found.is_ok(), "{:?}", running.peers.borrow().reached);
}

/// The values of all leases that a node knows but its own, by name.
fn values(node: &Node) -> Vec<(String, String)> {
    let cluster = node.store.snapshot();
    let own = node::own(&cluster);
    let desired::cluster::Leases::InStore { held, .. } = &cluster.leases else {
        panic!("no leases");
    };
    let others = held.iter().filter(|(key, _)| Some(**key) != own);
    let mut all: Vec<(String, String)> = others
        .map(|(key, announced)| {
            let value = announced.attributes().encode();
            (key.to_string(), String::from_utf8(value).unwrap())
        })
        .collect();
    all.sort();
    all
}

#[tokio::test]
async fn both_see_each_others_leases_exactly() {
    let etcd = Etcd::start(1).await.unwrap();
    let first = start(&etcd, flanneld(11, 0x11)).await;
    let (one, two) = (Start::new(&etcd, 1).run(), Start::new(&etcd, 2).run());
    let (ones, twos) = (one.held().await.to_string(), two.held().await.to_string());
    let second = start(&etcd, flanneld(12, 0x12)).await;
    let all = [
        (ones, value(1, 1)),
        (twos, value(2, 2)),
        (key(&first), value(11, 0x11)),
        (key(&second), value(12, 0x12)),
    ];
    let but = |at: usize| {
        let mut others = all.to_vec();
        others.remove(at);
        others.sort();
        others
    };
    one.sees(4).await;
    two.sees(4).await;
    assert_eq!(values(&one), but(0));
    assert_eq!(values(&two), but(1));
    reaches(&first, &but(2)).await;
    reaches(&second, &but(3)).await;

    // A change of ours reaches flanneld as it is.
    one.lease.send(Some(lease(1, 0x31))).unwrap();
    let mut others = but(2);
    let ours = others.iter_mut().find(|other| other.1 == value(1, 1));
    ours.unwrap().1 = value(1, 0x31);
    reaches(&first, &others).await;
}

#[tokio::test]
async fn many_that_start_together_share_nothing() {
    let etcd = Etcd::start(1).await.unwrap();
    let ours: Vec<Node> = (1..=20)
        .map(|number| Start::new(&etcd, number).network("10.5.0.0/19").run())
        .collect();
    let theirs = (101..=110).map(|number| {
        let mut flanneld = flanneld(number, number);
        flanneld.network = "10.5.0.0/19".parse().unwrap();
        let etcd = &etcd;
        async move {
            // flanneld that loses a race exits, and its service manager starts it again.
            loop {
                let client = etcd.client(0).await.unwrap();
                match flanneld.clone().start(client).await {
                    Ok(running) => return running,
                    Err(error) => assert_eq!(error.to_string(), "subnet already exists"),
                }
            }
        }
    });
    let theirs = join_all(theirs).await;
    let mut all: Vec<String> = theirs.iter().map(key).collect();
    all.extend(
        join_all(ours.iter().map(Node::held))
            .await
            .iter()
            .map(ToString::to_string),
    );
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 30);
}

#[tokio::test]
async fn its_renewals_are_taken_and_ours_are_not_seen() {
    let etcd = Etcd::start(1).await.unwrap();
    let mut client = etcd.client(0).await.unwrap();
    // A day in miniature: flanneld renews when 3 of 6 seconds are left.
    let running = start(
        &etcd,
        Flanneld {
            ttl: 6,
            margin: Duration::from_secs(3),
            ..flanneld(11, 0x11)
        },
    )
    .await;
    let node = Start::new(&etcd, 1).ttl(6).run();
    let own = node.held().await.to_string();
    node.sees(2).await;
    let before = node.store.snapshot();
    reaches(&running, &[(own.clone(), value(1, 1))]).await;
    let told = running.peers.borrow().events.len();
    let found = client.get(format!("{PREFIX}{own}"), None).await.unwrap();
    let modified = found.kvs()[0].mod_revision();

    let mut renewals = running.renewals.clone();
    let three = tokio::time::timeout(node::LIMIT, renewals.wait_for(|count| *count >= 3)).await;
    three.unwrap().unwrap();
    // Both have lived longer than their leases, and neither has noticed anything.
    assert_eq!(running.peers.borrow().events.len(), told);
    assert!(running.runs());
    let found = client.get(format!("{PREFIX}{own}"), None).await.unwrap();
    assert_eq!(found.kvs()[0].mod_revision(), modified);
    assert_eq!(node.store.snapshot().leases, before.leases);
    assert_eq!(node.report.borrow().obstacle, None);
}

#[tokio::test]
async fn a_node_takes_over_the_lease_of_the_flanneld_that_it_succeeds() {
    let etcd = Etcd::start(1).await.unwrap();
    let mut client = etcd.client(0).await.unwrap();
    let peer = start(&etcd, flanneld(12, 0x12)).await;
    // Near its end: a second less and it would be gone.
    let old = start(
        &etcd,
        Flanneld {
            ttl: 5,
            margin: Duration::from_secs(1),
            ..flanneld(1, 0x51)
        },
    )
    .await;
    let name = key(&old);
    reaches(&peer, &[(name.clone(), value(1, 0x51))]).await;
    let events = peer.peers.borrow().events.len();
    drop(old);
    let found = client.get(format!("{PREFIX}{name}"), None).await.unwrap();
    let (modified, id) = (found.kvs()[0].mod_revision(), found.kvs()[0].lease());

    // The device and its MAC are adopted: nothing changes for anybody.
    let node = Start::new(&etcd, 1).mac(0x51).run();
    assert_eq!(node.held().await.to_string(), name);
    let begun = tokio::time::Instant::now();
    while begun.elapsed().as_secs() < 8 {
        let ttl = client.lease_time_to_live(id, None).await.unwrap().ttl();
        assert!(ttl >= 0, "it has expired");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let found = client.get(format!("{PREFIX}{name}"), None).await.unwrap();
    assert_eq!(found.kvs()[0].mod_revision(), modified);
    assert_eq!(peer.peers.borrow().events.len(), events);
}

#[tokio::test]
async fn with_another_mac_the_subnet_file_says_that_the_lease_is_this_nodes() {
    let etcd = Etcd::start(1).await.unwrap();
    let peer = start(&etcd, flanneld(12, 0x12)).await;
    let old = start(&etcd, flanneld(1, 0x51)).await;
    let name = key(&old);
    drop(old);
    let stranger = Start::new(&etcd, 1).run();
    let report = stranger.reports(|report| report.obstacle.is_some()).await;
    assert!(
        report
            .obstacle
            .unwrap()
            .contains("VtepMAC 02:00:00:00:00:51")
    );
    drop(stranger);
    let node = Start::new(&etcd, 1).previous(&name).run();
    assert_eq!(node.held().await.to_string(), name);
    reaches(&peer, &[(name, value(1, 1))]).await;
}

#[tokio::test]
async fn flanneld_takes_over_the_lease_of_the_node_that_it_succeeds() {
    let etcd = Etcd::start(1).await.unwrap();
    let mut client = etcd.client(0).await.unwrap();
    let (node, peer) = (Start::new(&etcd, 1).run(), Start::new(&etcd, 2).run());
    let name = node.held().await.to_string();
    peer.sees(1 + 1).await;
    node.stop().await;
    let running = start(&etcd, flanneld(1, 0x61)).await;
    assert_eq!(key(&running), name);
    peer.until(|cluster| {
        cluster.leases().iter().any(|one| {
            one.announced.is_some_and(|announced| {
                announced.attributes().encode() == value(1, 0x61).as_bytes()
            })
        })
    })
    .await;
    assert_eq!(stored(&mut client).await.len(), 2);
    assert_eq!(known(&peer.store.snapshot()).len(), 2);
}

#[tokio::test]
async fn a_flanneld_that_still_runs_on_this_node_is_joined_or_named() {
    let etcd = Etcd::start(1).await.unwrap();
    let mut client = etcd.client(0).await.unwrap();
    let renewing = |mac| Flanneld {
        ttl: 4,
        margin: Duration::from_secs(2),
        ..flanneld(1, mac)
    };
    // The same device: its renewals put the key on new etcd leases, which are kept from then on.
    let same = start(&etcd, renewing(1)).await;
    let node = Start::new(&etcd, 1).run();
    let name = node.held().await.to_string();
    assert_eq!(name, key(&same));
    let mut renewals = same.renewals.clone();
    let two = tokio::time::timeout(node::LIMIT, renewals.wait_for(|count| *count >= 2)).await;
    two.unwrap().unwrap();
    drop(same);
    let found = client.get(format!("{PREFIX}{name}"), None).await.unwrap();
    let id = found.kvs()[0].lease();
    let begun = tokio::time::Instant::now();
    while begun.elapsed().as_secs() < 6 {
        let ttl = client.lease_time_to_live(id, None).await.unwrap().ttl();
        assert!(ttl >= 0, "it has expired");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(node.report.borrow().obstacle, None);

    // Another device: two that write over each other would be seen by all.
    let other = start(&etcd, flanneld(1, 0x71)).await;
    assert_eq!(key(&other), name);
    let report = node.reports(|report| report.obstacle.is_some()).await;
    let said = report.obstacle.unwrap();
    assert!(
        said.contains("(PublicIP 192.0.2.1, VtepMAC 02:00:00:00:00:01)")
            && said.contains("by PublicIP 192.0.2.1, VtepMAC 02:00:00:00:00:71"),
        "{said}"
    );
    assert_eq!(stored(&mut client).await[0].1, value(1, 0x71));
}

#[tokio::test]
async fn the_model_has_flannelds_defects() {
    let etcd = Etcd::start(1).await.unwrap();
    let mut client = etcd.client(0).await.unwrap();
    let mut running = start(&etcd, flanneld(11, 0x11)).await;
    let node = Start::new(&etcd, 1).run();
    let own = node.held().await.to_string();
    reaches(&running, &[(own.clone(), value(1, 1))]).await;

    // One key that cannot be read: flanneld loses its peers, ours does not.
    client
        .put(format!("{PREFIX}notes"), "x", None)
        .await
        .unwrap();
    reaches(&running, &[]).await;
    let last = running.peers.borrow().events.last().cloned();
    assert_eq!(last, Some(Event::Removed(own)));
    node.reports(|report| report.unreadable.len() == 1).await;
    node.sees(2).await;

    // A reservation gets an end.
    let reserved = r#"{"PublicIP":"192.0.2.13"}"#;
    let name = format!("{PREFIX}10.5.250.0-24");
    client.put(name, reserved, None).await.unwrap();
    let third = start(&etcd, flanneld(13, 0x13)).await;
    assert_eq!(key(&third), "10.5.250.0-24");
    let expires = until(&mut client, |held| {
        let found = held.iter().find(|one| one.0 == "10.5.250.0-24")?;
        Some(found.2)
    });
    assert!(expires.await);

    // Its lease deleted: it ends.
    client
        .delete(format!("{PREFIX}{}", key(&running)), None)
        .await
        .unwrap();
    assert_eq!(running.ended().await.unwrap(), Exit::Revoked);
}
