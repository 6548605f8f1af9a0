//! `subnet.env`: what the CNI plugins read of this node's subnet, in flannel's keys.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use desired::lease::LeaseKey;
use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use netstate::{Mtu, Target};

/// Content of the file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SubnetEnv {
    /// All pods' addresses, at most one network per family.
    pub networks: Vec<IpNetwork>,
    /// This node's pods' addresses, at most one subnet per family.
    pub subnets: Vec<IpNetwork>,
    /// MTU of pod interfaces.
    pub mtu: Mtu,
    /// Whether the daemon masquerades, so that plugins need not.
    pub ip_masq: bool,
}

/// The files as a Target: path to content.
#[derive(Clone, Debug)]
pub struct SubnetFiles {
    paths: Vec<PathBuf>,
}

// === impl SubnetEnv ===

impl SubnetEnv {
    /// The file's text. `FLANNEL_SUBNET` carries the subnet's first host address, as flannel's does.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (v4, prefix) in [(true, ""), (false, "IPV6_")] {
            let of_family = |all: &[IpNetwork]| all.iter().copied().find(|one| one.is_ipv4() == v4);
            if let Some(network) = of_family(&self.networks) {
                text += &format!("FLANNEL_{prefix}NETWORK={network}\n");
            }
            if let Some(subnet) = of_family(&self.subnets) {
                let gateway = first_host(subnet);
                text += &format!("FLANNEL_{prefix}SUBNET={gateway}\n");
            }
        }
        text + &format!(
            "FLANNEL_MTU={}\nFLANNEL_IPMASQ={}\n",
            self.mtu, self.ip_masq
        )
    }
}

/// The lease that the first readable of `paths` speaks of: what this node had before.
#[must_use]
pub fn lease_in(paths: &[PathBuf]) -> Option<LeaseKey> {
    let texts = paths
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok());
    texts.filter_map(|text| lease_of(&text)).next()
}

fn lease_of(text: &str) -> Option<LeaseKey> {
    let value = |key: &str| {
        let mut lines = text.lines();
        let value = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        // An address without a length would be read as a subnet of one.
        value.filter(|value| value.contains('/'))
    };
    let v4: Ipv4Network = value("FLANNEL_SUBNET")?.parse().ok()?;
    let v6 = match value("FLANNEL_IPV6_SUBNET") {
        Some(text) => Some(text.parse::<Ipv6Network>().ok()?),
        None => None,
    };
    Some(LeaseKey {
        v4: Ipv4Network::new(v4.network(), v4.prefix()).ok()?,
        v6: v6.and_then(|v6| Ipv6Network::new(v6.network(), v6.prefix()).ok()),
    })
}

fn first_host(subnet: IpNetwork) -> String {
    match subnet {
        IpNetwork::V4(v4) => {
            let first = u32::from(v4.network()).saturating_add(1);
            format!("{}/{}", std::net::Ipv4Addr::from(first), v4.prefix())
        }
        IpNetwork::V6(v6) => {
            let first = u128::from(v6.network()).saturating_add(1);
            format!("{}/{}", std::net::Ipv6Addr::from(first), v6.prefix())
        }
    }
}

// === impl SubnetFiles ===

impl SubnetFiles {
    /// The files at `paths`, and no others.
    #[must_use]
    pub fn new(paths: Vec<PathBuf>) -> Self {
        Self { paths }
    }

    /// The subnets that the first readable of them speaks of.
    #[must_use]
    pub fn held(&self) -> Vec<IpNetwork> {
        let key = lease_in(&self.paths);
        key.into_iter().flat_map(|key| key.subnets()).collect()
    }

    /// What the files shall hold.
    #[must_use]
    pub fn wanted(&self, env: &SubnetEnv) -> BTreeMap<PathBuf, String> {
        self.paths
            .iter()
            .map(|path| (path.clone(), env.text()))
            .collect()
    }
}

impl Target for SubnetFiles {
    type Key = PathBuf;
    type Value = String;
    type Error = io::Error;

    fn observe(&mut self) -> io::Result<BTreeMap<PathBuf, String>> {
        let mut found = BTreeMap::new();
        for path in &self.paths {
            match fs::read_to_string(path) {
                Ok(text) => {
                    found.insert(path.clone(), text);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    fn put(&mut self, path: &PathBuf, text: &String) -> io::Result<()> {
        replace(path, text)
    }

    fn delete(&mut self, path: &PathBuf) -> io::Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// Replaces the file at `path` by one with `text`, so that no reader sees half of it.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(folder)?;
    }
    let draft = path.with_extension("env.draft");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o644)
        .open(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&draft, path)
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;

    use super::*;

    fn env() -> SubnetEnv {
        SubnetEnv {
            networks: vec!["10.244.0.0/16".parse().unwrap()],
            subnets: vec!["10.244.3.0/24".parse().unwrap()],
            mtu: Mtu::try_from(1450).unwrap(),
            ip_masq: true,
        }
    }

    #[test]
    fn the_text_is_flannels() {
        assert_eq!(
            env().text(),
            "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.3.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
        );
        let mut dual = env();
        dual.networks.push("fd00::/48".parse().unwrap());
        dual.subnets.push("fd00:0:0:3::/64".parse().unwrap());
        dual.ip_masq = false;
        assert_eq!(
            dual.text(),
            "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.3.1/24\n\
             FLANNEL_IPV6_NETWORK=fd00::/48\nFLANNEL_IPV6_SUBNET=fd00:0:0:3::1/64\n\
             FLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n"
        );
    }

    #[test]
    fn what_a_node_had_is_read_back() {
        let lease = lease_of(&env().text()).unwrap();
        assert_eq!(lease.to_string(), "10.244.3.0-24");
        let dual = "FLANNEL_SUBNET=10.244.3.1/24\nFLANNEL_IPV6_SUBNET=fd00:0:0:3::1/64\n";
        let lease = lease_of(dual).unwrap();
        assert_eq!(lease.to_string(), "10.244.3.0-24&fd00:0:0:3::-64");
        for junk in [
            "",
            "FLANNEL_SUBNET=",
            "FLANNEL_SUBNET=10.244.3.1",
            "FLANNEL_SUBNET=x/24",
        ] {
            assert_eq!(lease_of(junk), None, "{junk}");
        }
    }

    #[test]
    fn a_lost_or_edited_file_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let paths = ["a/subnet.env", "b/subnet.env"].map(|p| folder.path().join(p));
        let mut files = SubnetFiles::new(paths.to_vec());
        let wanted = files.wanted(&env());
        let heal = |files: &mut SubnetFiles| {
            let mut table = netstate::Wanted::new("subnet-file", files, &wanted);
            netstate::reconcile(&mut [&mut table])
        };
        assert_eq!(heal(&mut files).puts, 2);
        assert!(heal(&mut files).is_quiet());
        fs::write(&paths[0], "FLANNEL_MTU=9000\n").unwrap();
        fs::remove_file(&paths[1]).unwrap();
        assert_eq!(heal(&mut files).puts, 2);
        assert_eq!(fs::read_to_string(&paths[0]).unwrap(), env().text());
        assert_eq!(fs::read_dir(folder.path().join("a")).unwrap().count(), 1);
    }
}
