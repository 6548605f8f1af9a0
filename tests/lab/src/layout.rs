//! Where a lab keeps its things: checked names, state paths, and the binaries it drives.

use std::fmt;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// Folder that holds one state folder per lab cluster.
pub const STATE_ROOT: &str = "/run/towline-lab";

/// Name of a lab cluster: 1 to 20 of `a-z`, `0-9` and `-`, starting with a letter. It becomes part of
/// paths and cgroup names, so nothing else is let through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClusterName(String);

impl ClusterName {
    /// The checked text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ClusterName {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let good = (1..=20).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        if !good {
            bail!("--name {text:?}: use 1 to 20 of a-z, 0-9 and '-', starting with a letter");
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for ClusterName {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<ClusterName> for String {
    fn from(name: ClusterName) -> Self {
        name.0
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One node of the lab, numbered from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NodeId(pub u8);

impl NodeId {
    /// Kubernetes node name, `node1` onwards.
    pub fn name(self) -> String {
        format!("node{}", self.0)
    }

    /// The node's InternalIP on the underlay, 172.30.0.11 onwards.
    pub fn address(self) -> Ipv4Addr {
        Ipv4Addr::new(172, 30, 0, 10 + self.0)
    }
}

/// Paths of one lab cluster's state. The folder is a private tmpfs of mode 0700, so unmounting it
/// removes everything below at once.
#[derive(Debug, Clone)]
pub struct Layout {
    name: ClusterName,
    root: PathBuf,
}

impl Layout {
    /// Paths for the cluster called `name`; nothing is created.
    pub fn new(name: &ClusterName) -> Self {
        Self {
            name: name.clone(),
            root: Path::new(STATE_ROOT).join(name.as_str()),
        }
    }

    /// The cluster's name.
    pub fn name(&self) -> &ClusterName {
        &self.name
    }

    /// The state folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Recorded facts about the running cluster.
    pub fn state_file(&self) -> PathBuf {
        self.root.join("state.json")
    }

    /// Kubeconfig for this machine's own namespace.
    pub fn kubeconfig(&self) -> PathBuf {
        self.root.join("kubeconfig")
    }

    /// Bind-mounted network namespace called `name` (a node, `underlay` or `outside`).
    pub fn netns(&self, name: &str) -> PathBuf {
        self.root.join("netns").join(name)
    }

    /// Bind-mounted mount namespace of a node.
    pub fn mntns(&self, node: &str) -> PathBuf {
        self.root.join("mntns").join(node)
    }

    /// Standard output and error of a process of the lab.
    pub fn log(&self, owner: &str, process: &str) -> PathBuf {
        self.root
            .join("logs")
            .join(owner)
            .join(format!("{process}.log"))
    }

    /// Folder of the logs of `owner`.
    pub fn log_dir(&self, owner: &str) -> PathBuf {
        self.root.join("logs").join(owner)
    }

    /// Data folder of the control plane.
    pub fn control_plane_data(&self) -> PathBuf {
        self.root.join("control-plane")
    }

    /// Data folder of etcd.
    pub fn etcd_data(&self) -> PathBuf {
        self.root.join("etcd")
    }

    /// Name of the cluster's cgroup below the cgroup v2 root.
    pub fn cgroup_name(&self) -> String {
        format!("towline-{}", self.name)
    }
}

/// The built tree: `bin/` and `cni/bin/`.
#[derive(Debug, Clone)]
pub struct Artefacts {
    root: PathBuf,
}

const NEEDED: &[&str] = &[
    "bin/node-agent",
    "bin/control-plane",
    "bin/towlined",
    "cni/bin/towline",
    "cni/bin/ptp",
    "cni/bin/host-local",
    "cni/bin/loopback",
    "cni/bin/portmap",
];

impl Artefacts {
    /// Finds the built tree: `$TOWLINE_OUT`, else beside the running executable, else `./out`.
    ///
    /// # Errors
    /// Names the first missing file of the last place looked at.
    pub fn find() -> Result<Self> {
        if let Some(out) = std::env::var_os("TOWLINE_OUT") {
            return Self::at(Path::new(&out))
                .with_context(|| format!("TOWLINE_OUT={}", Path::new(&out).display()));
        }
        let exe = std::env::current_exe().context("find the running executable")?;
        let beside = exe.parent().and_then(Path::parent);
        if let Some(found) = beside.and_then(|dir| Self::at(dir).ok()) {
            return Ok(found);
        }
        // A test binary runs from its package's folder, so look upwards for the built tree.
        let cwd = std::env::current_dir().context("find the current folder")?;
        for dir in cwd.ancestors() {
            if dir.join("out/bin").is_dir() {
                return Self::at(&dir.join("out"));
            }
        }
        bail!(
            "no built tree found: run `make build`, or set TOWLINE_OUT to the folder that holds bin/ and cni/bin/"
        )
    }

    /// Checks the tree at `root`.
    ///
    /// # Errors
    /// Names a missing file and says what to do.
    pub fn at(root: &Path) -> Result<Self> {
        let root = root
            .canonicalize()
            .with_context(|| format!("{}: run `make build`", root.display()))?;
        for file in NEEDED {
            if !root.join(file).is_file() {
                bail!("{} is missing: run `make build`", root.join(file).display());
            }
        }
        Ok(Self { root })
    }

    /// Folder of the daemons and tools.
    pub fn bin_dir(&self) -> PathBuf {
        self.root.join("bin")
    }

    /// Folder of the CNI plugins.
    pub fn cni_dir(&self) -> PathBuf {
        self.root.join("cni/bin")
    }

    /// One daemon or tool.
    pub fn bin(&self, name: &str) -> PathBuf {
        self.root.join("bin").join(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_the_state_folder_are_refused() {
        for bad in [
            "",
            "..",
            "a/b",
            "-a",
            "A",
            "a b",
            "aaaaaaaaaaaaaaaaaaaaa",
            "1a",
        ] {
            assert!(bad.parse::<ClusterName>().is_err(), "{bad:?}");
        }
        let name: ClusterName = "lab-2".parse().unwrap();
        assert_eq!(
            Layout::new(&name).netns("node1"),
            Path::new("/run/towline-lab/lab-2/netns/node1")
        );
    }
}
