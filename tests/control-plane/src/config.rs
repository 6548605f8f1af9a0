//! What is fixed for a cluster when it is started.

use std::net::SocketAddr;

use ipnetwork::IpNetwork;

/// Address plan of a cluster, checked when the command line is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterConfig {
    /// Addresses of pods; nodes get blocks out of it.
    pub cluster_cidr: IpNetwork,
    /// Addresses of Services.
    pub service_cidr: IpNetwork,
    /// Prefix length of a node's block of `cluster_cidr`.
    pub node_cidr_mask: u8,
    /// Where the `kubernetes` Service leads: address and port of this API server as nodes reach it.
    pub advertise: SocketAddr,
}

/// A contradiction in the address plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The node mask does not divide the cluster CIDR.
    #[error(
        "--node-cidr-mask {mask}: must be between {prefix}, the length of --cluster-cidr {cidr}, and {most}"
    )]
    NodeMask {
        /// The mask given.
        mask: u8,
        /// The cluster CIDR.
        cidr: IpNetwork,
        /// Its prefix length.
        prefix: u8,
        /// Longest possible mask.
        most: u8,
    },
    /// The two ranges overlap.
    #[error("--service-cidr {service}: overlaps --cluster-cidr {cluster}; choose disjoint ranges")]
    Overlap {
        /// Range of Services.
        service: IpNetwork,
        /// Range of pods.
        cluster: IpNetwork,
    },
    /// The service range has no room.
    #[error("--service-cidr {0}: too small; give at least 8 addresses")]
    ServiceRange(IpNetwork),
}

impl ClusterConfig {
    /// Checks that the ranges fit together.
    ///
    /// # Errors
    /// The first contradiction found.
    pub fn check(&self) -> Result<(), ConfigError> {
        let most = if self.cluster_cidr.is_ipv4() { 30 } else { 126 };
        let prefix = self.cluster_cidr.prefix();
        if self.node_cidr_mask < prefix || self.node_cidr_mask > most {
            return Err(ConfigError::NodeMask {
                mask: self.node_cidr_mask,
                cidr: self.cluster_cidr,
                prefix,
                most,
            });
        }
        let (service, cluster) = (self.service_cidr, self.cluster_cidr);
        if service.contains(cluster.network()) || cluster.contains(service.network()) {
            return Err(ConfigError::Overlap { service, cluster });
        }
        let widest = if service.is_ipv4() { 29 } else { 125 };
        if service.prefix() > widest {
            return Err(ConfigError::ServiceRange(service));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(cluster: &str, service: &str, mask: u8) -> ClusterConfig {
        ClusterConfig {
            cluster_cidr: cluster.parse().unwrap(),
            service_cidr: service.parse().unwrap(),
            node_cidr_mask: mask,
            advertise: "127.0.0.1:6443".parse().unwrap(),
        }
    }

    #[test]
    fn contradictions_are_named() {
        assert_eq!(config("10.244.0.0/16", "10.96.0.0/16", 24).check(), Ok(()));
        let text = |config: ClusterConfig| config.check().unwrap_err().to_string();
        assert_eq!(
            text(config("10.244.0.0/16", "10.96.0.0/16", 8)),
            "--node-cidr-mask 8: must be between 16, the length of --cluster-cidr 10.244.0.0/16, and 30"
        );
        assert_eq!(
            text(config("10.0.0.0/8", "10.96.0.0/16", 24)),
            "--service-cidr 10.96.0.0/16: overlaps --cluster-cidr 10.0.0.0/8; choose disjoint ranges"
        );
        assert_eq!(
            text(config("10.244.0.0/16", "10.96.0.0/31", 24)),
            "--service-cidr 10.96.0.0/31: too small; give at least 8 addresses"
        );
    }
}
