//! What flanneld leaves behind on a node that it no longer runs on: its rules.
//!
//! While it runs they are left alone, because it would put them back. Its device, routes and lease
//! need nothing here: they have the names and shapes of ours, and are adopted.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::linux::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use hostnet::iptables::{IptablesTarget, may_have_chain};
use hostnet::{ErrorKind, Nftables};
use netstate::Target as _;
use netstate::nft::{Family, TableFamily};

/// The program's name.
const FLANNELD: &str = "flanneld";
/// The port of its health in flannel's own manifests.
const HEALTH_PORT: u16 = 8081;
const HEALTH_PATIENCE: Duration = Duration::from_millis(200);
/// How long its rules are left alone if they come back after they were removed: somebody makes them,
/// so it runs, though it is not seen.
const PEACE: Duration = Duration::from_secs(600);
/// Its chains in iptables, with their tables.
const CHAINS: [(&str, &str); 2] = [("nat", "FLANNEL-POSTRTG"), ("filter", "FLANNEL-FWD")];
/// Its nftables tables.
const TABLES: [(TableFamily, &str); 2] = [
    (TableFamily::Ip, "flannel-ipv4"),
    (TableFamily::Ip6, "flannel-ipv6"),
];

/// Removes flanneld's rules once it is gone.
#[derive(Debug)]
pub struct Succession {
    nftables: Nftables,
    /// Where flanneld's health would answer, unless we do.
    health_port: Option<u16>,
    /// When its rules were removed last.
    removed: Option<Instant>,
    said: Option<String>,
}

// === impl Succession ===

impl Succession {
    /// Works in the network namespace of the calling thread. `healthz` is where this daemon itself
    /// answers.
    ///
    /// # Errors
    /// When the kernel has no nftables.
    pub fn open(healthz: &[SocketAddr]) -> hostnet::Result<Self> {
        let ours = healthz.iter().any(|address| address.port() == HEALTH_PORT);
        Ok(Self {
            nftables: Nftables::open()?,
            health_port: if ours { None } else { Some(HEALTH_PORT) },
            removed: None,
            said: None,
        })
    }

    /// Removes what is there if flanneld is not, and tells how much that was. To be called in each
    /// pass that looks: without anything of flanneld's it is five questions to the kernel.
    ///
    /// # Errors
    /// When the kernel refuses. A missing iptables program is no error, but a line in the log.
    pub fn take_over(&mut self) -> hostnet::Result<usize> {
        let chains = self.chains()?;
        let tables = self.tables()?;
        if chains.is_empty() && tables.is_empty() {
            return Ok(0);
        }
        if self.flanneld_runs() {
            self.say("flanneld runs on this node: its rules are left alone until it is gone");
            return Ok(0);
        }
        if self.removed.is_some_and(|at| at.elapsed() < PEACE) {
            self.say(
                "flanneld's rules are back: it runs where it is not seen, so they are left alone",
            );
            return Ok(0);
        }
        let mut removed = 0;
        for (family, name) in tables {
            self.nftables.delete_of(family, name)?;
            removed += 1;
        }
        for (family, table, chain) in chains {
            let mut target = IptablesTarget::new(family, table, &[chain]);
            let done = target.observe().and_then(|found| match found.is_empty() {
                true => Ok(0),
                false => target.delete(&table.to_owned()).map(|()| 1),
            });
            match done {
                Ok(count) => removed += count,
                Err(error) if error.kind == ErrorKind::Unsupported => self.say(&error.to_string()),
                Err(error) => return Err(error),
            }
        }
        if removed > 0 {
            self.removed = Some(Instant::now());
            tracing::info!(
                removed,
                "flanneld is gone: its chains and tables are removed"
            );
        }
        Ok(removed)
    }

    /// Its chains that can be there.
    fn chains(&self) -> hostnet::Result<Vec<(Family, &'static str, &'static str)>> {
        let mut found = Vec::new();
        for family in [Family::V4, Family::V6] {
            for (table, chain) in CHAINS {
                if may_have_chain(family, table, chain)? {
                    found.push((family, table, chain));
                }
            }
        }
        Ok(found)
    }

    fn tables(&mut self) -> hostnet::Result<Vec<(TableFamily, &'static str)>> {
        let mut found = Vec::new();
        for (family, name) in TABLES {
            if self.nftables.exists(family, name)? {
                found.push((family, name));
            }
        }
        Ok(found)
    }

    /// Whether a process called flanneld is in this network namespace; or, because a container may
    /// not see the processes of another, whether anybody answers where flanneld's health would.
    fn flanneld_runs(&self) -> bool {
        process_in_this_namespace(FLANNELD) || self.health_port.is_some_and(answers)
    }

    fn say(&mut self, message: &str) {
        if self.said.as_deref() != Some(message) {
            tracing::info!("{message}");
            self.said = Some(message.to_owned());
        }
    }
}

fn answers(port: u16) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpStream::connect_timeout(&address, HEALTH_PATIENCE).is_ok()
}

fn process_in_this_namespace(name: &str) -> bool {
    let namespace = |path: &Path| {
        fs::metadata(path)
            .ok()
            .map(|one| (one.st_dev(), one.st_ino()))
    };
    let own = namespace(Path::new("/proc/thread-self/ns/net"));
    let Ok(processes) = fs::read_dir("/proc") else {
        return false;
    };
    let is_it = |folder: &Path| {
        let comm = fs::read_to_string(folder.join("comm"));
        comm.is_ok_and(|comm| comm.trim_end() == name) && namespace(&folder.join("ns/net")) == own
    };
    processes.flatten().any(|entry| is_it(&entry.path()))
}
