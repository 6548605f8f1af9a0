//! The subnet file: flannel's keys, one `KEY=VALUE` a line.

use std::collections::BTreeMap;
use std::path::Path;

use ipnetwork::{Ipv4Network, Ipv6Network};
use netstate::Mtu;
use protocol::Error;

/// What the daemon says about this node's part of the cluster network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subnet {
    /// `FLANNEL_SUBNET`: this node's subnet; its address part is the gateway's.
    pub v4: Option<Ipv4Network>,
    /// `FLANNEL_IPV6_SUBNET`: likewise.
    pub v6: Option<Ipv6Network>,
    /// `FLANNEL_MTU`: MTU of pods.
    pub mtu: Mtu,
}

// === impl Subnet ===

impl Subnet {
    /// Reads the file.
    ///
    /// # Errors
    /// Code 11 when it is not there yet, 7 when it cannot be understood.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            let msg = format!(
                "subnet file {} cannot be read; is towlined running?",
                path.display()
            );
            Error::try_again(msg).details(error)
        })?;
        Self::parse(&text)
            .map_err(|problem| Error::config(format!("subnet file {}: {problem}", path.display())))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let pairs: BTreeMap<&str, &str> = text
            .lines()
            .filter_map(|line| line.trim().split_once('='))
            .filter(|(_, value)| !value.trim().is_empty())
            .map(|(key, value)| (key.trim(), value.trim()))
            .collect();
        let v4 = network(&pairs, "FLANNEL_SUBNET")?;
        let v6 = network(&pairs, "FLANNEL_IPV6_SUBNET")?;
        if v4.is_none() && v6.is_none() {
            return Err("has neither FLANNEL_SUBNET nor FLANNEL_IPV6_SUBNET".to_owned());
        }
        let mtu = pairs.get("FLANNEL_MTU").ok_or("has no FLANNEL_MTU")?;
        let number: u32 = mtu
            .parse()
            .map_err(|_| format!("FLANNEL_MTU {mtu:?} is no number"))?;
        let mtu = Mtu::try_from(number).map_err(|error| format!("FLANNEL_MTU: {error}"))?;
        Ok(Self { v4, v6, mtu })
    }
}

fn network<T: std::str::FromStr>(
    pairs: &BTreeMap<&str, &str>,
    key: &str,
) -> Result<Option<T>, String> {
    let parse = |value: &&str| {
        value
            .parse()
            .map_err(|_| format!("{key} {value:?} is no subnet such as 10.244.1.1/24"))
    };
    pairs.get(key).map(parse).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flannels_file_is_read() {
        let text = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\n\
                    FLANNEL_IPV6_NETWORK=fd00::/56\nFLANNEL_IPV6_SUBNET=fd00:0:0:1::1/64\n\
                    FLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";
        let subnet = Subnet::parse(text).unwrap();
        assert_eq!(subnet.v4.unwrap().to_string(), "10.244.1.1/24");
        assert_eq!(subnet.v6.unwrap().to_string(), "fd00:0:0:1::1/64");
        assert_eq!(subnet.mtu.get(), 1450);
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        for (text, problem) in [
            (
                "FLANNEL_MTU=1450",
                "has neither FLANNEL_SUBNET nor FLANNEL_IPV6_SUBNET",
            ),
            ("FLANNEL_SUBNET=10.244.1.1/24", "has no FLANNEL_MTU"),
            (
                "FLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU=x",
                "FLANNEL_MTU \"x\" is no number",
            ),
            (
                "FLANNEL_SUBNET=x",
                "FLANNEL_SUBNET \"x\" is no subnet such as 10.244.1.1/24",
            ),
        ] {
            assert_eq!(Subnet::parse(text), Err(problem.to_owned()));
        }
    }
}
