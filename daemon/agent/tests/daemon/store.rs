//! What is said of a store that is not there, or goes away.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use pretty_assertions::assert_eq;
use serde_json::{Value, json};

use crate::host::{ETCD, PREFIX, etcdctl, get, health, metric, on_a_host, until};

const NETWORK: &str = r#"{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}"#;

fn first(body: &Value) -> &str {
    body["waitingFor"][0].as_str().unwrap_or_default()
}

#[test]
fn while_the_network_configuration_is_awaited_everything_answers_and_a_stop_ends_at_once() {
    on_a_host(|mut host| {
        let mut towlined = host.start();
        let status = host.hears("STATUS=waits for the network configuration");
        assert!(status.contains(ETCD), "{status}");
        let (_, body) = health("/readyz", |status, _| status == 503);
        assert_eq!(body["notes"], json!([]));
        assert!(
            first(&body).starts_with("the network configuration: etcd at "),
            "{body}"
        );
        assert!(first(&body).contains(ETCD), "{body}");
        for path in ["/healthz", "/livez"] {
            assert_eq!(health(path, |_, _| true).0, 200);
        }
        assert_eq!(metric("towline_ready "), Some(0.0));
        assert_eq!(metric("towline_lease_store_connected "), Some(0.0));
        let (_, status) = host.ask("GET", "/v1/status");
        assert_eq!(
            (&status["node"], &status["ready"]),
            (&json!("n1"), &json!(false))
        );
        assert_eq!(first(&status), first(&body));
        let (code, answer) = host.ask("GET", "/v1/leases");
        assert_eq!((code, &answer["code"]), (503, &json!(11)));
        let stopped = Instant::now();
        assert_eq!(towlined.stop().code(), Some(0));
        assert!(
            stopped.elapsed() < Duration::from_secs(2),
            "{:?}",
            stopped.elapsed()
        );
        host.hears("STOPPING=1");

        // A pod that goes meanwhile leaves nothing for the daemon to take up.
        let file = host.path("state/endpoints/c1@eth0.json");
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, "{}").unwrap();
        host.run_etcd();
        let _towlined = host.start();
        let config = format!("{PREFIX}/config");
        health("/readyz", |_, body| {
            first(body).contains(&format!("etcd has no {config}"))
        });
        assert_eq!(host.ask("DELETE", "/v1/endpoints/c1/eth0").0, 204);
        assert!(!file.exists());

        until(|| etcdctl(&["put", &config, NETWORK]));
        host.hears("READY=1");
        assert_eq!(
            health("/readyz", |status, _| status == 200).1["waitingFor"],
            json!([])
        );
        assert_eq!(health("/healthz", |_, _| true).0, 200);
    });
}

#[test]
fn an_outage_of_the_store_is_told_everywhere_and_the_node_stays_ready() {
    on_a_host(|mut host| {
        host.start_etcd();
        let _towlined = host.start();
        host.hears("READY=1");
        let left = host.left();
        host.kill_etcd();
        let told = host.hears("STATUS=ready; etcd is not followed since ");
        assert!(
            told.ends_with("leases, routes and pods stay as they were"),
            "{told}"
        );
        let (_, body) = health("/readyz", |_, body| body["notes"][0].is_string());
        assert_eq!(body["waitingFor"], json!([]));
        let note = body["notes"][0].as_str().unwrap();
        assert!(note.contains(ETCD), "{note}");
        assert_eq!(get(10256, "/readyz").unwrap().0, 200);
        assert_eq!(metric("towline_ready "), Some(1.0));
        assert_eq!(metric("towline_lease_store_connected "), Some(0.0));
        let (_, status) = host.ask("GET", "/v1/status");
        assert_eq!(
            (&status["ready"], &status["notes"][0].is_string()),
            (&json!(true), &true)
        );
        let (_, leases) = host.ask("GET", "/v1/leases");
        assert_eq!(leases["connected"], false);
        assert!(
            leases["trouble"].as_str().unwrap().contains(ETCD),
            "{leases}"
        );
        assert!(leases["troubleSince"].is_string(), "{leases}");
        assert_eq!(leases["leases"].as_array().unwrap().len(), 2);
        assert_eq!(host.left(), left);

        host.run_etcd();
        health("/readyz", |status, body| {
            status == 200 && body["notes"] == json!([])
        });
        until(|| (metric("towline_lease_store_connected ") == Some(1.0)).then_some(()));
        assert_eq!(host.left(), left);
    });
}

#[test]
fn an_address_that_another_node_has_is_said_before_any_pod_is_carried() {
    on_a_host(|mut host| {
        host.start_etcd();
        let other = r#"{"PublicIP":"172.30.0.1","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:99"}}"#;
        let key = format!("{PREFIX}/subnets/10.5.9.0-24");
        etcdctl(&["put", &key, other]).unwrap();
        let _towlined = host.start();
        let why = "a lease: lease 10.5.9.0-24 has this node's PublicIP 172.30.0.1 but VtepMAC 02:00:00:00:00:99";
        let (_, body) = health("/readyz", |_, body| first(body).starts_with(why));
        assert_eq!(body["waitingFor"].as_array().unwrap().len(), 1, "{body}");
        assert!(
            host.hears("STATUS=waits for a lease: ")
                .contains("02:00:00:00:00:99")
        );
        etcdctl(&["del", &key]).unwrap();
        host.hears("READY=1");
    });
}

#[test]
fn services_without_an_api_server_are_refused_in_one_line() {
    on_a_host(|host| {
        let towlined = Command::new(env!("CARGO_BIN_EXE_towlined"))
            .env_clear()
            .args(["--kube-subnet-mgr=false", "--node-name=n1", "--iface=eth0"])
            .arg("--socket")
            .arg(host.path("towlined.sock"))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8(towlined.stderr).unwrap();
        assert_eq!(towlined.status.code(), Some(1), "{said}");
        assert_eq!(
            said,
            "towlined: settings: datapath: ebpf: Services and NetworkPolicy come from an API server: name one with \
             --kubeconfig, or say --datapath=none to keep the overlay alone\n"
        );
    });
}
