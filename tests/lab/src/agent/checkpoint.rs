//! What the node agent keeps on disk, so that a restart finds its pods: one folder per pod.

use std::fs;
use std::io::{ErrorKind, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::cni::{Attachment, Network};

/// A pod's sandbox as recorded before and after its network is made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SandboxRecord {
    /// The runtime's id, 64 hexadecimal digits.
    pub id: String,
    /// The pod's uid.
    pub uid: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// Whether the pod lives in the node's own namespaces; there are no attachments then.
    pub host_network: bool,
    /// Attachments begun, in order; recorded before ADD so that a crash leaves nothing unknown.
    pub attachments: Vec<AttachmentRecord>,
    /// Whether every ADD has succeeded.
    pub ready: bool,
    /// The pod's addresses.
    pub addresses: Vec<IpAddr>,
}

/// One attachment with what DEL needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttachmentRecord {
    /// The configuration as it was at ADD.
    pub network: Network,
    /// The interface.
    pub attachment: Attachment,
    /// The result of ADD, once there is one.
    pub result: Option<Value>,
}

/// The folder of one pod.
#[derive(Debug, Clone)]
pub struct PodDir(PathBuf);

impl PodDir {
    /// The folder for the pod `uid` below `root`.
    ///
    /// # Errors
    /// When the uid could not be a folder's name.
    pub fn new(root: &Path, uid: &str) -> Result<Self> {
        let good = (1..=64).contains(&uid.len())
            && uid.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        if !good {
            bail!("metadata.uid {uid:?}: not a uid");
        }
        Ok(Self(root.join(uid)))
    }

    /// All pods' records below `root`; damaged ones are reported in place.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn all(root: &Path) -> Result<Vec<(PodDir, Result<SandboxRecord>)>> {
        let mut found = Vec::new();
        let entries = match fs::read_dir(root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(found),
            Err(error) => return Err(error).with_context(|| format!("list {}", root.display())),
        };
        for entry in entries {
            let dir = PodDir(
                entry
                    .with_context(|| format!("list {}", root.display()))?
                    .path(),
            );
            let record = dir
                .sandbox()
                .and_then(|record| record.context("no sandbox recorded"));
            found.push((dir, record));
        }
        Ok(found)
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Creates it.
    ///
    /// # Errors
    /// When that fails.
    pub fn create(&self) -> Result<()> {
        fs::create_dir_all(&self.0).with_context(|| format!("create {}", self.0.display()))
    }

    /// Removes it with all it holds.
    ///
    /// # Errors
    /// When that fails; an absent folder is fine.
    pub fn remove(&self) -> Result<()> {
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("remove {}", self.0.display()))
            }
            _ => Ok(()),
        }
    }

    /// The recorded sandbox, if any.
    ///
    /// # Errors
    /// When the record is damaged.
    pub fn sandbox(&self) -> Result<Option<SandboxRecord>> {
        read_json(&self.0.join("sandbox.json"))
    }

    /// Records the sandbox.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn set_sandbox(&self, record: &SandboxRecord) -> Result<()> {
        write_json(&self.0.join("sandbox.json"), record)
    }

    /// The folder of run number `run` of a container.
    ///
    /// # Errors
    /// When the container's name could not be a folder's name.
    pub fn run_dir(&self, container: &str, run: i32) -> Result<PathBuf> {
        Ok(self.container_dir(container)?.join(run.to_string()))
    }

    /// The newest run of a container, if it ever ran.
    ///
    /// # Errors
    /// As [`PodDir::run_dir`], or when the folder cannot be read.
    pub fn last_run(&self, container: &str) -> Result<Option<i32>> {
        let dir = self.container_dir(container)?;
        match fs::read_dir(&dir) {
            Ok(entries) => Ok(entries
                .flatten()
                .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
                .max()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("list {}", dir.display())),
        }
    }

    fn container_dir(&self, container: &str) -> Result<PathBuf> {
        let good = (1..=63).contains(&container.len())
            && container
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        if !good {
            bail!("containers[].name {container:?}: not a DNS label");
        }
        Ok(self.0.join("containers").join(container))
    }
}

/// Reads a JSON file; none when it is absent.
///
/// # Errors
/// When it cannot be read or is damaged.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    let value =
        serde_json::from_slice(&text).with_context(|| format!("read {}", path.display()))?;
    Ok(Some(value))
}

/// Writes a JSON file so that a reader sees all of it or nothing.
///
/// # Errors
/// When it cannot be written.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let fresh = path.with_extension("new");
    let text = serde_json::to_vec(value).context("encode a record")?;
    let mut file =
        fs::File::create(&fresh).with_context(|| format!("create {}", fresh.display()))?;
    file.write_all(&text)
        .with_context(|| format!("write {}", fresh.display()))?;
    fs::rename(&fresh, path).with_context(|| format!("replace {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_the_api_never_leave_the_folder() {
        let root = Path::new("/r");
        assert!(PodDir::new(root, "../x").is_err());
        let dir = PodDir::new(root, "0a-b").unwrap();
        assert!(dir.run_dir("../x", 0).is_err());
        assert_eq!(
            dir.run_dir("c", 2).unwrap(),
            Path::new("/r/0a-b/containers/c/2")
        );
    }

    #[test]
    fn the_newest_run_is_found_by_number() {
        let temp = tempfile::tempdir().unwrap();
        let dir = PodDir::new(temp.path(), "u").unwrap();
        assert_eq!(dir.last_run("c").unwrap(), None);
        for run in [0, 9, 10] {
            fs::create_dir_all(dir.run_dir("c", run).unwrap()).unwrap();
        }
        assert_eq!(dir.last_run("c").unwrap(), Some(10));
    }
}
