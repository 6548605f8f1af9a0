//! `towline node release`.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pretty_assertions::assert_eq;
use serde_json::json;

use crate::host::{ETCD, PEER, PREFIX, etcdctl, health, leased, on_a_host, until};

#[test]
fn a_release_gives_all_back_once_and_for_this_run() {
    on_a_host(|mut host| {
        host.start_etcd();
        let mut towlined = host.start();
        host.hears("READY=1");
        let held = leased();
        let subnet = held[0].replace('-', "/");
        let (status, answer) = host.ask("POST", "/v1/node/release");
        assert_eq!(status, 200, "{answer}");
        let file = host.path("state/subnet.env");
        assert_eq!(answer["subnets"], json!([subnet]));
        assert_eq!(answer["removed"]["routes"], json!(["10.5.2.0/24"]));
        assert_eq!(answer["removed"]["devices"], json!(["flannel.1"]));
        assert_eq!(answer["removed"]["rules"], json!(["inet towline"]));
        let files = answer["removed"]["files"].as_array().unwrap();
        assert!(files.contains(&json!(file)), "{files:?}");
        let nothing = json!({ "routes": [], "device": null, "rules": false, "file": null });
        assert_eq!((leased(), host.left()), (vec![], nothing.clone()));
        let etcd_leases = etcdctl(&["lease", "list"]).unwrap();
        assert!(etcd_leases.contains("found 0 leases"), "{etcd_leases}");

        let (status, answer) = host.ask("POST", "/v1/node/release");
        assert_eq!((status, &answer["subnets"]), (200, &json!([])));
        assert_eq!(answer["removed"]["routes"], json!([]));

        // Passes go on, by the timer and by others' leases, and nothing comes back.
        let passes = || host.ask("GET", "/v1/status").1["loops"]["overlay"]["passes"].as_u64();
        let before = passes().unwrap();
        etcdctl(&["put", &format!("{PREFIX}/subnets/10.5.3.0-24"), PEER]).unwrap();
        until(|| passes().filter(|passes| *passes > before + 1));
        assert_eq!((leased(), host.left()), (vec![], nothing));
        let (_, status) = host.ask("GET", "/v1/status");
        assert_eq!(status["ready"], false);
        let why = status["waitingFor"][0].as_str().unwrap();
        assert!(why.contains("a restart of towlined"), "{why}");

        assert_eq!(towlined.stop().code(), Some(0));
        let _next = host.start();
        host.hears("READY=1");
        assert_eq!(leased().len(), 1);
    });
}

#[test]
fn a_release_without_the_store_changes_nothing() {
    on_a_host(|mut host| {
        host.start_etcd();
        let _towlined = host.start();
        host.hears("READY=1");
        let left = host.left();
        host.kill_etcd();
        let (status, answer) = host.ask("POST", "/v1/node/release");
        assert_eq!(status, 503, "{answer}");
        let details = answer["details"].as_str().unwrap();
        assert!(details.contains("Nothing was removed"), "{details}");
        assert!(details.contains(ETCD), "{details}");
        assert_eq!(host.left(), left);
    });
}

#[test]
fn a_release_that_the_store_never_answers_is_given_up_and_the_lease_is_kept() {
    on_a_host(|mut host| {
        host.start_etcd();
        let mut towlined = host.start();
        host.hears("READY=1");
        let (held, left) = (leased(), host.left());
        let etcd = Pid::from_raw(host.etcd.as_ref().unwrap().id().try_into().unwrap());
        // It takes connections and requests, and says nothing.
        kill(etcd, Signal::SIGSTOP).unwrap();
        let asked = Instant::now();
        let (status, answer) = host.ask("POST", "/v1/node/release");
        assert!(
            asked.elapsed() < Duration::from_secs(25),
            "{:?}",
            asked.elapsed()
        );
        assert_eq!((status, &answer["msg"]), (503, &json!("not ready")));
        let details = answer["details"].as_str().unwrap();
        assert!(details.contains("this node keeps its lease"), "{details}");
        kill(etcd, Signal::SIGCONT).unwrap();
        // What was under way may be done late: then it is taken again.
        health("/readyz", |status, body| {
            status == 200 && body["notes"] == json!([])
        });
        until(|| (leased() == held).then_some(()));
        assert_eq!(host.left(), left);
        let (status, _) = host.ask("POST", "/v1/node/release");
        assert_eq!((status, leased()), (200, vec![]));
        assert_eq!(towlined.stop().code(), Some(0));
    });
}
