//! What cannot be avoided: the same entries made by iproute2's batch modes, on a host of their own.

use std::path::Path;
use std::time::{Duration, Instant};

use hostnet::{Netlink, Netns};
use netstate::Address;

use super::peers::{DEVICE, Peer, bridge_batch, ip_batch};
use super::world::new_namespace;
use crate::command::run;

/// A host with an uplink, and the batches.
pub(crate) struct Floor {
    netns: Netns,
    folder: tempfile::TempDir,
}

// === impl Floor ===

impl Floor {
    /// A host for entries of `peers`.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn new(peers: &[Peer]) -> anyhow::Result<Self> {
        let netns = new_namespace()?;
        netns.run_in(|| run("ip link add eth0 up type veth peer name eth0p"))??;
        let mut netlink = Netlink::open_in(&netns)?;
        netlink.set_up(&"eth0p".parse()?)?;
        let address = Address::new("172.30.0.2/16".parse()?);
        netlink.add_address(&"eth0".parse()?, &address)?;
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("ip"), ip_batch(peers))?;
        std::fs::write(folder.path().join("bridge"), bridge_batch(peers))?;
        Ok(Self { netns, folder })
    }

    /// Makes all entries on a new device: the time that takes once the device is there.
    ///
    /// # Errors
    /// When the kernel refuses one.
    pub(crate) fn make(&self) -> anyhow::Result<Duration> {
        let batch = |name: &str| shown(&self.folder.path().join(name));
        let (ip, bridge) = (batch("ip"), batch("bridge"));
        self.netns.run_in(|| {
            run(&format!(
                "ip link add {DEVICE} type vxlan id 1 dev eth0 local 172.30.0.2 dstport 8472 nolearning"
            ))?;
            run(&format!("ip link set {DEVICE} up"))?;
            let begun = Instant::now();
            run(&format!("bridge -batch {bridge}"))?;
            run(&format!("ip -batch {ip}"))?;
            let took = begun.elapsed();
            run(&format!("ip link delete {DEVICE}"))?;
            Ok(took)
        })?
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
