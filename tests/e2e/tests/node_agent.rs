//! The node agent's own parts on a node without any API server: sandbox, plugins, container, end.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "the helpers of a test may panic as the test itself may"
)]

use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use lab::agent::checkpoint::PodDir;
use lab::agent::cni::{Attachment, Cni};
use lab::agent::container::{self, Run};
use lab::agent::sandbox;
use lab::agent::shim::{ContainerSpec, LOG_FILE};
use lab::cluster::{self, Cluster, Options};
use lab::enter::Place;
use lab::layout::{ClusterName, NodeId};
use lab::node;
use lab::overlay::Overlay;
use serde_json::json;

const CONFLIST: &str = r#"{"cniVersion":"1.1.0","name":"net","plugins":[
    {"type":"ptp","ipam":{"type":"host-local","ranges":[[{"subnet":"10.9.0.0/24"}]],
     "routes":[{"dst":"0.0.0.0/0"}]}}]}"#;

/// A cluster of namespaces only, removed at the end also when the test fails.
struct Lab(ClusterName);

impl Drop for Lab {
    fn drop(&mut self) {
        cluster::remove(&self.0).unwrap();
    }
}

fn on_a_node(name: &str, test: impl AsyncFnOnce(&Path, Cni) + Send) {
    let name: ClusterName = name.parse().unwrap();
    cluster::remove(&name).unwrap();
    let lab = Lab(name);
    let options = Options {
        name: lab.0.clone(),
        nodes: 1,
        mtu: 1500,
        overlay: Overlay::default(),
    };
    let cluster = Cluster::create(&options).expect("root and a built tree are needed");
    node::run_in(cluster.layout(), NodeId(1), || {
        std::fs::write("/etc/cni/net.d/10-net.conflist", CONFLIST)?;
        let cni = Cni {
            bin_dir: node::CNI_BIN_DIR.into(),
            conf_dir: node::CNI_CONF_DIR.into(),
        };
        // Built here, so that all of its threads are on the node.
        let runtime = tokio::runtime::Runtime::new()?;
        runtime.block_on(test(Path::new("/opt/towline/bin/node-agent"), cni));
        Ok(())
    })
    .unwrap();
}

fn pod() -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "default", "uid": "u-1"},
        "spec": {"containers": [{"name": "c"}]}
    }))
    .unwrap()
}

fn spec(sandbox: &str, argv: &[&str]) -> ContainerSpec {
    ContainerSpec {
        id: sandbox::random_id(),
        argv: argv.iter().map(|arg| (*arg).to_owned()).collect(),
        env: [("PATH".to_owned(), "/usr/bin:/bin".to_owned())].into(),
        cwd: "/".into(),
        place: Place {
            cgroup: Some("/sys/fs/cgroup/kubepods/podu-1/c".into()),
            ..sandbox::place(sandbox)
        },
        files: Default::default(),
    }
}

async fn run_to_end(
    agent: &Path,
    dir: &PodDir,
    number: i32,
    spec: &ContainerSpec,
) -> (Run, i32, String) {
    let folder = dir.run_dir("c", number).unwrap();
    let (run, child) = container::start(agent, &folder, number, spec).unwrap();
    let exit = run.ended(Some(child)).await.unwrap();
    let log = std::fs::read_to_string(folder.join(LOG_FILE)).unwrap();
    (run, exit.code, log)
}

#[test]
fn a_pod_gets_its_network_from_the_plugins_and_gives_it_back() {
    on_a_node("e2e-sandbox", async |agent, cni| {
        let dir = PodDir::new(Path::new("/var/lib/node-agent/pods"), "u-1").unwrap();
        let record = sandbox::create(&cni, &dir, &pod()).await.unwrap();
        assert_eq!(
            record.addresses,
            ["10.9.0.2".parse::<std::net::IpAddr>().unwrap()]
        );
        assert!(Path::new("/var/lib/cni/networks/net/10.9.0.2").exists());

        let script = "hostname; echo $$; ip -4 -brief address show eth0; ip -brief link show lo; \
                      ls /run /var/lib/node-agent; touch /x; exit 3";
        let (_, code, log) =
            run_to_end(agent, &dir, 0, &spec(&record.id, &["sh", "-c", script])).await;
        assert_eq!(code, 3, "{log}");
        let text = log
            .lines()
            .map(|line| line.splitn(4, ' ').nth(3).unwrap())
            .collect::<Vec<_>>();
        assert_eq!(&text[..2], ["p", "1"], "{log}");
        assert!(text[2].contains("10.9.0.2"), "{log}");
        assert!(text[3].starts_with("lo"), "{log}");
        assert!(log.contains("Read-only file system"), "{log}");

        sandbox::remove(&cni, &dir, &record).await.unwrap();
        assert!(!Path::new("/var/lib/cni/networks/net/10.9.0.2").exists());
        assert_eq!(std::fs::read_dir("/run/netns").unwrap().count(), 0);
        let links = std::fs::read_dir("/sys/class/net").unwrap().count();
        assert_eq!(links, 2, "lo and eth0");
    });
}

/// The first process of a pid namespace gets only signals that it handles, so one that is sent before
/// is lost: whether this is the applet already, with its handler in place.
fn heeds_sigterm(pid: i32) -> bool {
    let read = |file: &str| std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let status = String::from_utf8(read("status")).unwrap();
    let handled = status
        .lines()
        .find_map(|line| line.strip_prefix("SigCgt:"))
        .map_or(0, |mask| u64::from_str_radix(mask.trim(), 16).unwrap());
    let sigterm = 1 << (nix::sys::signal::Signal::SIGTERM as i32 - 1);
    read("cmdline").ends_with(b"applet\0pause\0") && handled & sigterm != 0
}

#[test]
fn a_container_outlives_its_agent_and_is_found_again() {
    on_a_node("e2e-adopt", async |agent, cni| {
        let dir = PodDir::new(Path::new("/var/lib/node-agent/pods"), "u-1").unwrap();
        let record = sandbox::create(&cni, &dir, &pod()).await.unwrap();
        let pause = [agent.to_str().unwrap(), "applet", "pause"];
        let folder = dir.run_dir("c", 0).unwrap();
        let (first, child) =
            container::start(agent, &folder, 0, &spec(&record.id, &pause)).unwrap();
        drop(child);
        let found = container::adopt(&folder, 0).unwrap().unwrap();
        assert_eq!(found.id, first.id);
        let started = async || {
            Ok(match found.process()? {
                Some(process) if heeds_sigterm(process.pid) => Ok(()),
                _ => Err("it does not handle SIGTERM yet".to_owned()),
            })
        };
        lab::wait::eventually("it is the applet", Duration::from_secs(5), started)
            .await
            .unwrap();
        let ((), exit) = tokio::join!(
            async { found.stop(Duration::from_secs(5)).await.unwrap() },
            async { found.ended(None).await.unwrap() }
        );
        assert_eq!(exit.signal, None, "pause handles SIGTERM");
        sandbox::remove(&cni, &dir, &record).await.unwrap();
    });
}

#[test]
fn a_failing_plugin_leaves_nothing_and_is_named() {
    on_a_node("e2e-fail", async |_, cni| {
        let broken = CONFLIST.replace("}]}", "},{\"type\":\"ptp\",\"ipam\":{\"type\":\"none\"}}]}");
        std::fs::write("/etc/cni/net.d/10-net.conflist", broken).unwrap();
        let dir = PodDir::new(Path::new("/var/lib/node-agent/pods"), "u-1").unwrap();
        let error = sandbox::create(&cni, &dir, &pod()).await.unwrap_err();
        assert!(
            format!("{error:#}").contains("CNI plugin ptp ADD failed"),
            "{error:#}"
        );
        let record = dir.sandbox().unwrap().unwrap();
        let attached: &Attachment = &record.attachments[1].attachment;
        assert_eq!(attached.ifname, "eth0");
        // DEL of the plugin that does not exist may fail too; the first one's address must be free.
        let _ = sandbox::remove(&cni, &dir, &record).await;
        assert!(!Path::new("/var/lib/cni/networks/net/10.9.0.2").exists());
    });
}
