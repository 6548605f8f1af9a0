//! Names and addresses of a pod's interfaces, derived from the attachment they belong to.
//!
//! They are the same on every run, so a repeated ADD meets what the first one made, and a DEL finds
//! the host's end although the pod's namespace is gone.

use netstate::{IfName, MacAddr, NameError};
use sha2::{Digest, Sha256};

/// An attachment: one interface of one container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity<'a> {
    /// The container.
    pub container_id: &'a str,
    /// Its interface.
    pub ifname: &'a str,
}

// === impl Identity ===

impl Identity<'_> {
    /// The host's end of the pod's veth: `veth` and eight hexadecimal digits.
    ///
    /// # Errors
    /// Never for what this computes; the name is checked like every other.
    pub fn host_name(&self) -> Result<IfName, NameError> {
        let [a, b, c, d, ..] = self.digest("name");
        format!("veth{a:02x}{b:02x}{c:02x}{d:02x}").parse()
    }

    /// The Ethernet address of the host's end.
    #[must_use]
    pub fn host_mac(&self) -> MacAddr {
        MacAddr::local(self.digest("host"))
    }

    /// The Ethernet address of the pod's end.
    #[must_use]
    pub fn pod_mac(&self) -> MacAddr {
        MacAddr::local(self.digest("pod"))
    }

    fn digest(&self, what: &str) -> [u8; 6] {
        let mut hasher = Sha256::new();
        for part in [what, self.container_id, self.ifname] {
            hasher.update(part.as_bytes());
            hasher.update([0]);
        }
        let digest = hasher.finalize();
        std::array::from_fn(|at| digest[at])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_of_one_container_differ_and_stay_the_same() {
        let eth0 = Identity {
            container_id: "c1",
            ifname: "eth0",
        };
        let eth1 = Identity {
            container_id: "c1",
            ifname: "eth1",
        };
        assert_ne!(eth0.host_name(), eth1.host_name());
        assert_ne!(eth0.host_mac(), eth0.pod_mac());
        assert_eq!(eth0.host_name().unwrap().as_str(), "veth7ef52207");
    }
}
