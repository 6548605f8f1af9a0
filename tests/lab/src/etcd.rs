//! The etcd of a lab whose leases are there: one member on the underlay, reached by all nodes.

use std::ffi::OsStr;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::cluster::Cluster;
use crate::daemons::{net_conf, still_running};
use crate::diagnose::tail;
use crate::enter::Place;
use crate::wait::until;
use crate::wire;

/// Owner of etcd's log and cgroup, and its name.
pub const ETCD: &str = "etcd";

/// What keys of the network begin with: flannel's default.
pub const PREFIX: &str = "/coreos.com/network";

const START_LIMIT: Duration = Duration::from_secs(20);

/// Where clients on nodes connect.
pub fn url() -> String {
    format!("http://{}:2379", wire::GATEWAY)
}

impl Cluster {
    /// Starts etcd and writes the network configuration into it.
    ///
    /// # Errors
    /// When it is not installed, ends, or does not answer in time; shows the end of its log.
    pub fn start_etcd(&mut self) -> Result<()> {
        let data = self.layout().etcd_data();
        let client = url();
        let peer = format!("http://{}:2380", wire::GATEWAY);
        let initial = format!("default={peer}");
        let argv: Vec<&OsStr> = vec![
            "etcd".as_ref(),
            "--data-dir".as_ref(),
            data.as_os_str(),
            "--listen-client-urls".as_ref(),
            client.as_ref(),
            "--advertise-client-urls".as_ref(),
            client.as_ref(),
            "--listen-peer-urls".as_ref(),
            peer.as_ref(),
            "--initial-advertise-peer-urls".as_ref(),
            peer.as_ref(),
            "--initial-cluster".as_ref(),
            initial.as_ref(),
            "--logger".as_ref(),
            "zap".as_ref(),
        ];
        let place = self.etcd_place();
        let process = self.start(ETCD, ETCD, &place, &argv)?;
        let log = self.layout().log(ETCD, ETCD);
        let conf = net_conf(self.state().overlay.backend);
        let key = format!("{PREFIX}/config");
        until("etcd takes the network configuration", START_LIMIT, || {
            still_running(&process, &log)?;
            let put = self.etcdctl(&["put", &key, conf.trim()]);
            Ok(put.map(drop).map_err(|error| format!("{error:#}")))
        })
        .with_context(|| format!("log of etcd (package etcd-server):\n{}", tail(&log)))
    }

    /// What `etcdctl` answers to `arguments`.
    ///
    /// # Errors
    /// When it is not installed or fails.
    pub fn etcdctl(&self, arguments: &[&str]) -> Result<String> {
        let mut command = self.command(&self.etcd_place())?;
        command.args(["etcdctl", "--endpoints", &url()]);
        command.args(["--dial-timeout", "1s", "--command-timeout", "2s"]);
        command.args(arguments).env("ETCDCTL_API", "3");
        let output = command
            .output()
            .context("run etcdctl (package etcd-client)")?;
        if !output.status.success() {
            let error = String::from_utf8_lossy(&output.stderr);
            bail!("etcdctl {}: {}", arguments.join(" "), error.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn etcd_place(&self) -> Place {
        Place {
            net: Some(self.layout().netns(wire::UNDERLAY)),
            cgroup: Some(self.cgroup().child(ETCD).path().to_owned()),
            ..Place::default()
        }
    }
}
