//! The subnet file: flannel's keys, one `KEY=VALUE` a line.

use std::collections::BTreeMap;
use std::path::Path;

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use netstate::Mtu;
use netstate::route::masked;
use protocol::Error;

/// What `towlined` or `flanneld` says about this node's part of the cluster network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subnet {
    /// `FLANNEL_SUBNET`: this node's subnet; its address part is the gateway's.
    pub v4: Option<Ipv4Network>,
    /// `FLANNEL_IPV6_SUBNET`: likewise.
    pub v6: Option<Ipv6Network>,
    /// `FLANNEL_MTU`: MTU of pods.
    pub mtu: Mtu,
    /// `FLANNEL_NETWORK` and `FLANNEL_IPV6_NETWORK`: the whole cluster's, each a list.
    pub networks: Vec<IpNetwork>,
    /// `FLANNEL_IPMASQ`: the daemon masquerades what leaves the cluster.
    pub masqueraded: Option<bool>,
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
                "subnet file {} cannot be read; is the daemon running that writes it?",
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
        let mut networks = Vec::new();
        for (key, is_v4) in [("FLANNEL_NETWORK", true), ("FLANNEL_IPV6_NETWORK", false)] {
            for text in pairs.get(key).iter().flat_map(|list| list.split(',')) {
                let network: IpNetwork = with_prefix(key, text.trim())?;
                if network.is_ipv4() != is_v4 {
                    return Err(format!("{key} {text:?} is of the other family"));
                }
                if !networks.contains(&masked(network)) {
                    networks.push(masked(network));
                }
            }
        }
        let masqueraded = match pairs.get("FLANNEL_IPMASQ") {
            None => None,
            Some(&"true") => Some(true),
            Some(&"false") => Some(false),
            Some(other) => return Err(format!("FLANNEL_IPMASQ {other:?} is not true or false")),
        };
        Ok(Self {
            v4,
            v6,
            mtu,
            networks,
            masqueraded,
        })
    }

    /// This node's subnets, IPv4 first; host bits are the gateway's.
    pub fn subnets(&self) -> impl Iterator<Item = IpNetwork> {
        let v4 = self.v4.map(IpNetwork::V4);
        v4.into_iter().chain(self.v6.map(IpNetwork::V6))
    }
}

fn network<T: std::str::FromStr>(
    pairs: &BTreeMap<&str, &str>,
    key: &str,
) -> Result<Option<T>, String> {
    let parse = |value: &&str| with_prefix(key, value);
    pairs.get(key).map(parse).transpose()
}

/// An address alone would be taken for a subnet of one address.
fn with_prefix<T: std::str::FromStr>(key: &str, text: &str) -> Result<T, String> {
    let parsed = text.contains('/').then(|| text.parse().ok()).flatten();
    parsed.ok_or_else(|| format!("{key} {text:?} is no subnet such as 10.244.1.1/24"))
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
        let networks: Vec<String> = subnet.networks.iter().map(ToString::to_string).collect();
        assert_eq!(networks, ["10.244.0.0/16", "fd00::/56"]);
        assert_eq!(subnet.masqueraded, Some(true));
        let text = "FLANNEL_NETWORK=10.1.0.0/16,10.2.3.0/16,10.1.0.0/16\n\
                    FLANNEL_SUBNET=10.1.1.1/24\nFLANNEL_MTU=1450\n";
        let subnet = Subnet::parse(text).unwrap();
        let networks: Vec<String> = subnet.networks.iter().map(ToString::to_string).collect();
        assert_eq!(networks, ["10.1.0.0/16", "10.2.0.0/16"]);
        assert_eq!(subnet.masqueraded, None);
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
            (
                "FLANNEL_SUBNET=10.244.1.1",
                "FLANNEL_SUBNET \"10.244.1.1\" is no subnet such as 10.244.1.1/24",
            ),
            (
                "FLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU=9\n",
                "FLANNEL_MTU: MTU \"9\": is not within 68 to 65535 bytes",
            ),
            (
                "FLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU=1450\nFLANNEL_NETWORK=10.0.0.0/8,y/8",
                "FLANNEL_NETWORK \"y/8\" is no subnet such as 10.244.1.1/24",
            ),
            (
                "FLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU=1450\nFLANNEL_NETWORK=fd00::/8",
                "FLANNEL_NETWORK \"fd00::/8\" is of the other family",
            ),
            (
                "FLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=yes",
                "FLANNEL_IPMASQ \"yes\" is not true or false",
            ),
        ] {
            assert_eq!(Subnet::parse(text), Err(problem.to_owned()));
        }
    }
}
