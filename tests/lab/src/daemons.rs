//! The cluster's daemons: the control plane on the machine, towlined and the node agent on each node.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_yaml_ng::Value;

use crate::cluster::Cluster;
use crate::diagnose::tail;
use crate::enter::Place;
use crate::etcd;
use crate::layout::NodeId;
use crate::overlay::{Backend, LeaseStore};
use crate::process::Process;
use crate::wait::until;
use crate::{node, wire};

/// Owner of the control plane's log and cgroup.
pub const CONTROL_PLANE: &str = "control-plane";
/// Name of Towline's daemon.
pub const TOWLINED: &str = "towlined";
/// Name of the lab's kubelet.
pub const NODE_AGENT: &str = "node-agent";

const CLUSTER_CIDR: &str = "10.244.0.0/16";
const SERVICE_CIDR: &str = "10.96.0.0/16";
const API_PORT: u16 = 6443;
const START_LIMIT: Duration = Duration::from_secs(20);

impl Cluster {
    /// Starts the control plane and waits until it answers.
    ///
    /// # Errors
    /// When it ends or is not ready in time; shows the end of its log.
    pub fn start_control_plane(&mut self) -> Result<()> {
        let layout = self.layout().clone();
        let program = self.program("control-plane");
        let data = layout.control_plane_data();
        let listen = format!(
            "{}={}:{API_PORT}",
            layout.netns(wire::UNDERLAY).display(),
            wire::GATEWAY
        );
        let kubeconfig = layout.kubeconfig();
        let argv: Vec<&OsStr> = vec![
            program.as_os_str(),
            "serve".as_ref(),
            "--data-dir".as_ref(),
            data.as_os_str(),
            "--listen".as_ref(),
            "127.0.0.1:0".as_ref(),
            "--listen-netns".as_ref(),
            listen.as_ref(),
            "--kubeconfig-out".as_ref(),
            kubeconfig.as_os_str(),
            "--cluster-cidr".as_ref(),
            CLUSTER_CIDR.as_ref(),
            "--service-cidr".as_ref(),
            SERVICE_CIDR.as_ref(),
            "--node-cidr-mask".as_ref(),
            "24".as_ref(),
        ];
        let cgroup = self.cgroup().child(CONTROL_PLANE);
        let place = Place {
            cgroup: Some(cgroup.path().to_owned()),
            ..Place::default()
        };
        let process = self.start(CONTROL_PLANE, CONTROL_PLANE, &place, &argv)?;
        let log = layout.log(CONTROL_PLANE, CONTROL_PLANE);
        until("the control plane is ready", START_LIMIT, || {
            let text = fs::read_to_string(&log).unwrap_or_default();
            if text
                .lines()
                .any(|line| line.starts_with('{') && line.contains("\"ready\":true"))
            {
                return Ok(Ok(()));
            }
            still_running(&process, &log)?;
            Ok(Err(tail(&log)))
        })
    }

    /// Gives a node its configuration files and starts its daemons.
    ///
    /// # Errors
    /// When a file cannot be written or a daemon cannot be started.
    pub fn start_node(&mut self, node: NodeId) -> Result<()> {
        let kubeconfig =
            fs::read_to_string(self.layout().kubeconfig()).context("read the kubeconfig")?;
        let kubeconfig = with_server(
            &kubeconfig,
            &format!("https://{}:{API_PORT}", wire::GATEWAY),
        )?;
        let overlay = self.state().overlay;
        node::run_in(self.layout(), node, || {
            let write = |path: &str, text: &str| {
                fs::write(path, text).with_context(|| format!("write {path} on {}", node.name()))
            };
            write(node::KUBECONFIG, &kubeconfig)?;
            if overlay.leases == LeaseStore::Kube {
                write(node::NET_CONF, &net_conf(overlay.backend))?;
            }
            write(
                &format!("{}/10-towline.conflist", node::CNI_CONF_DIR),
                CONFLIST,
            )
        })?;
        self.start_towlined(node)?;
        self.start_node_agent(node)?;
        Ok(())
    }

    /// Starts the node agent on a node.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_node_agent(&mut self, node: NodeId) -> Result<Process> {
        let agent = format!("{}/{NODE_AGENT}", node::BIN_DIR);
        let (name, ip) = (node.name(), node.address().to_string());
        let argv = [
            agent.as_str(),
            "run",
            "--node-name",
            &name,
            "--node-ip",
            &ip,
            "--kubeconfig",
            node::KUBECONFIG,
        ];
        let argv = argv.map(OsStr::new);
        self.start(&name, NODE_AGENT, &self.node_place(node), &argv)
    }

    /// Starts towlined on a node.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_towlined(&mut self, node: NodeId) -> Result<Process> {
        let program = format!("{}/{TOWLINED}", node::BIN_DIR);
        let name = node.name();
        let mut argv = vec![
            program.as_str(),
            "--node-name",
            &name,
            "--kubeconfig",
            node::KUBECONFIG,
            "--iface",
            "eth0",
            "--cgroup-root",
            node::CGROUP,
        ];
        let endpoints = etcd::url();
        match self.state().overlay.leases {
            LeaseStore::Kube => argv.extend(["--net-config-path", node::NET_CONF]),
            LeaseStore::Etcd => {
                argv.extend(["--kube-subnet-mgr=false", "--etcd-endpoints", &endpoints]);
            }
        }
        let argv: Vec<&OsStr> = argv.into_iter().map(OsStr::new).collect();
        self.start(&name, TOWLINED, &self.node_place(node), &argv)
    }

    /// Waits until a node's towlined says it is healthy.
    ///
    /// # Errors
    /// When it ends or is not healthy in time; shows the end of its log.
    pub fn wait_towlined(&self, node: NodeId) -> Result<()> {
        let log = self.layout().log(&node.name(), TOWLINED);
        let process = self.process(&node.name(), TOWLINED)?;
        until(
            &format!("towlined on {} is healthy", node.name()),
            START_LIMIT,
            || {
                still_running(process, &log)?;
                Ok(node::run_in(self.layout(), node, health).map_err(|error| format!("{error:#}")))
            },
        )
        .with_context(|| format!("log of towlined on {}:\n{}", node.name(), tail(&log)))
    }
}

/// Asks the health endpoint of the network namespace this runs in.
fn health() -> Result<()> {
    let mut stream =
        TcpStream::connect((Ipv4Addr::LOCALHOST, 10256)).context("connect to :10256")?;
    stream
        .set_read_timeout(Some(Duration::from_secs(1)))
        .context("set the timeout")?;
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n")
        .context("send the request")?;
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .context("read the answer")?;
    match answer.split(' ').nth(1) {
        Some("200") => Ok(()),
        _ => bail!("/healthz: {}", answer.lines().last().unwrap_or_default()),
    }
}

pub(crate) fn still_running(process: &Process, log: &Path) -> Result<()> {
    if !process.is_running() {
        bail!("it ended; the end of {}:\n{}", log.display(), tail(log));
    }
    Ok(())
}

/// The kubeconfig with its cluster at another address.
fn with_server(kubeconfig: &str, server: &str) -> Result<String> {
    let mut document: Value = serde_yaml_ng::from_str(kubeconfig).context("read the kubeconfig")?;
    let cluster = document
        .get_mut("clusters")
        .and_then(|clusters| clusters.get_mut(0))
        .and_then(|cluster| cluster.get_mut("cluster"))
        .context("the kubeconfig names no cluster")?;
    cluster["server"] = Value::from(server);
    serde_yaml_ng::to_string(&document).context("write the kubeconfig")
}

/// The network configuration, in flannel's schema.
pub(crate) fn net_conf(backend: Backend) -> String {
    format!("{{\"Network\":\"{CLUSTER_CIDR}\",\"Backend\":{{\"Type\":\"{backend}\"}}}}\n")
}

/// The node's CNI configuration, as the DaemonSet of manifests/ installs it.
const CONFLIST: &str = r#"{
  "cniVersion": "1.1.0",
  "name": "towline",
  "plugins": [
    {
      "type": "towline",
      "subnetFile": "/run/towline/subnet.env",
      "socket": "/run/towline/towlined.sock",
      "delegate": { "type": "ptp" },
      "policyTimeout": 10
    },
    { "type": "portmap", "capabilities": { "portMappings": true } }
  ]
}
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_server_of_a_kubeconfig_changes() {
        let text = "clusters:\n- name: c\n  cluster:\n    server: https://127.0.0.1:1\n    x: y\n";
        assert_eq!(
            with_server(text, "https://10.0.0.1:2").unwrap(),
            "clusters:\n- name: c\n  cluster:\n    server: https://10.0.0.1:2\n    x: y\n"
        );
        assert!(with_server("clusters: []", "x").is_err());
    }
}
