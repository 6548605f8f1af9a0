//! TLS with certificates of clients, and users with tokens that expire.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod node;

use std::time::Duration;

use agent::lease::etcd::{EtcdSettings, network_config};
use etcd_client::{Client, ConnectOptions, Permission, PermissionType};
use node::{PREFIX, Start, settings};
use pretty_assertions::assert_eq;
use tempfile::TempDir;
use towline_leases::certificates::Identity;
use towline_leases::{Authority, Etcd, Settings};

fn with(etcd: &Etcd, authority: &Authority, identity: Option<&Identity>) -> EtcdSettings {
    EtcdSettings {
        ca: Some(authority.certificate()),
        identity: identity.map(|one| (one.certificate.clone(), one.key.clone())),
        ..settings(etcd)
    }
}

async fn tls(folder: &TempDir) -> (Etcd, Authority) {
    let settings = Settings {
        tls: Some(Authority::new(folder.path()).unwrap()),
        ..Settings::default()
    };
    let etcd = Etcd::start_with(1, settings).await.unwrap();
    (etcd, Authority::open(folder.path()).unwrap())
}

#[tokio::test]
async fn certificates_are_read_anew_for_each_connection() {
    let folder = TempDir::new().unwrap();
    let (mut etcd, authority) = tls(&folder).await;
    let identity = authority.client("node").unwrap();
    let mut start = Start::new(&etcd, 1);
    start.settings = with(&etcd, &authority, Some(&identity));
    let node = start.run();
    let key = node.held().await;

    // A certificate that etcd does not take is no matter for the connection there is.
    let stranger = TempDir::new().unwrap();
    let wrong = Authority::new(stranger.path()).unwrap();
    let wrong = wrong.client("node").unwrap();
    std::fs::copy(wrong.certificate, &identity.certificate).unwrap();
    std::fs::copy(wrong.key, &identity.key).unwrap();
    let peer = authority.client("peer").unwrap();
    let mut other = Start::new(&etcd, 2);
    other.settings = with(&etcd, &authority, Some(&peer));
    let other = other.run();
    other.held().await;
    node.sees(2).await;
    assert!(node.report.borrow().connected);

    // The next connection is refused, and the one after a new certificate is not.
    etcd.kill(0).unwrap();
    etcd.restart(0).await.unwrap();
    other.reports(|report| report.connected).await;
    let refused = |report: &agent::lease::etcd::StoreReport| {
        let trouble = report.trouble.as_deref().unwrap_or_default();
        trouble.contains("does etcd's trusted-ca-file have the signer of certificate")
    };
    node.reports(refused).await;
    authority.client("node").unwrap();
    node.reports(|report| report.connected).await;
    assert_eq!(node.held().await, key);
}

#[tokio::test]
async fn wrong_certificates_are_one_clear_error() {
    let folder = TempDir::new().unwrap();
    let (etcd, authority) = tls(&folder).await;
    let url = etcd.endpoints()[0].clone();
    let said = async |settings: &EtcdSettings| {
        let error = network_config(settings).await.unwrap_err();
        let text = format!("{error:#}");
        assert!(!text.contains('\n') && text.len() < 300, "{text}");
        text
    };
    let identity = authority.client("node").unwrap();
    let good = with(&etcd, &authority, Some(&identity));
    let text = said(&good).await;
    assert!(
        text.contains("etcd has no /coreos.com/network/config: "),
        "{text}"
    );

    let stranger = TempDir::new().unwrap();
    let other = Authority::new(stranger.path()).unwrap();
    let text = said(&with(&etcd, &other, Some(&identity))).await;
    assert!(
        text.starts_with(&format!("etcd at {url}: "))
            && text.contains("invalid peer certificate: UnknownIssuer"),
        "{text}"
    );

    let text = said(&with(&etcd, &authority, None)).await;
    let hint = "does etcd ask for a client certificate? Set etcd-certfile and etcd-keyfile";
    assert!(text.ends_with(hint), "{text}");

    let text = said(&EtcdSettings {
        ca: Some("/nowhere/ca.pem".into()),
        ..good.clone()
    })
    .await;
    assert!(
        text.contains("etcd-cafile: /nowhere/ca.pem: No such file"),
        "{text}"
    );
}

#[tokio::test]
async fn a_user_who_may_touch_leases_only_is_enough_and_its_token_is_renewed() {
    let folder = Settings {
        token_ttl: Some(1),
        ..Settings::default()
    };
    let etcd = Etcd::start_with(1, folder).await.unwrap();
    let mut root = etcd.client(0).await.unwrap();
    let password = "correct horse";
    for user in ["root", "towline"] {
        root.user_add(user, password, None).await.unwrap();
    }
    root.user_grant_role("root", "root").await.unwrap();
    root.role_add("leases").await.unwrap();
    let under = Permission::new(PermissionType::Readwrite, "/coreos.com/network/").with_prefix();
    root.role_grant_permission("leases", under).await.unwrap();
    root.user_grant_role("towline", "leases").await.unwrap();
    root.auth_enable().await.unwrap();

    let start = |number| {
        let mut start = Start::new(&etcd, number).ttl(6);
        start.settings.user = Some(("towline".to_owned(), password.to_owned()));
        start
    };
    let node = start(1).run();
    let key = node.held().await;

    // Signs of life and writes go on long after the first token has expired.
    let options = ConnectOptions::new()
        .with_user("root", password)
        .with_auto_token_refresh(true);
    let mut root = Client::connect(etcd.endpoints(), Some(options))
        .await
        .unwrap();
    let name = format!("{PREFIX}{key}");
    let begun = tokio::time::Instant::now();
    let mut last = 0x20;
    while begun.elapsed() < Duration::from_secs(9) {
        last += 1;
        node.lease.send(Some(node::lease(1, last))).unwrap();
        loop {
            let found = root.get(name.clone(), None).await.unwrap();
            let pair = found.kvs().first().expect("it has expired");
            if pair.value() == node::value(1, last).as_bytes() {
                break;
            }
            assert!(begun.elapsed() < node::LIMIT, "the write does not come");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        tokio::time::sleep(Duration::from_millis(1100)).await;
    }
    let peer = start(2).run();
    peer.held().await;
    node.sees(2).await;

    let mut wrong = start(3);
    wrong.settings.user = Some(("towline".to_owned(), "wrong".to_owned()));
    let wrong = wrong.run();
    let report = wrong.reports(|report| report.trouble.is_some()).await;
    let text = report.trouble.unwrap();
    assert!(
        text.contains("authentication failed, invalid user ID or password"),
        "{text}"
    );
}
