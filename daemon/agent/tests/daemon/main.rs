//! The whole daemon in a network namespace of the test's own: with leases in a real etcd and no API
//! server, as flanneld may run, and with leases on Nodes of the test control plane. Needs root and
//! etcd.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod host;
mod kube;
mod release;
mod store;

use pretty_assertions::assert_eq;
use serde_json::json;

use crate::host::{PREFIX, etcdctl, leased, metric, on_a_host};

#[test]
fn a_stop_tears_nothing_down_and_the_next_daemon_goes_on_with_the_same_lease() {
    on_a_host(|mut host| {
        host.start_etcd();
        let mut first = host.start();
        host.hears("READY=1");
        let (held, left) = (leased(), host.left());
        assert_eq!(held.len(), 1);
        assert_eq!(left["routes"], json!(["10.5.2.0/24"]));
        assert_eq!(left["rules"], true);
        assert!(left["device"].is_string() && left["file"].is_string());
        assert_eq!(first.stop().code(), Some(0));
        host.hears("STOPPING=1");
        assert_eq!((leased(), host.left()), (held.clone(), left.clone()));

        let _second = host.start();
        host.hears("READY=1");
        assert_eq!((leased(), host.left()), (held, left));
    });
}

#[test]
fn leases_and_differences_are_shown_and_counted() {
    on_a_host(|mut host| {
        host.start_etcd();
        etcdctl(&["put", &format!("{PREFIX}/subnets/notes"), "x"]).unwrap();
        let _towlined = host.start();
        host.hears("READY=1");
        let (_, shown) = host.ask("GET", "/v1/leases");
        assert_eq!(shown["store"], "etcd");
        assert_eq!(shown["connected"], true);
        assert_eq!(shown["unreadable"].as_array().unwrap().len(), 1, "{shown}");
        let leases = shown["leases"].as_array().unwrap();
        let own = leases.iter().find(|lease| lease["own"] == true).unwrap();
        let expiry = own["expiry"].as_i64().unwrap();
        assert!((86_000..=86_400).contains(&expiry), "{own}");
        assert_eq!(own["state"], "own");
        let peer = leases.iter().find(|lease| lease["own"] == false).unwrap();
        assert_eq!(
            (&peer["state"], &peer["expiry"]),
            (&json!("ok"), &json!("never"))
        );
        assert_eq!(metric("towline_leases "), Some(2.0));
        assert_eq!(metric("towline_lease_obstacles "), Some(0.0));
        assert_eq!(metric("towline_lease_store_connected "), Some(1.0));
        assert_eq!(metric("towline_lease_unreadable_keys "), Some(1.0));
        assert!(metric("towline_lease_expiry_timestamp_seconds").is_some());
        assert_eq!(host.ask("GET", "/v1/drift"), (200, json!([])));
    });
}
