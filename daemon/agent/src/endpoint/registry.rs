//! Endpoints on disk: one file per registration, so that a restarted daemon knows its pods.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use desired::cluster::{EndpointId, LocalEndpoint};
use netstate::IfName;
use serde::{Deserialize, Serialize};

use super::registration::Registration;

/// The folder with one file per registered endpoint.
#[derive(Clone, Debug)]
pub struct Registry {
    folder: PathBuf,
}

/// Content of one file.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    container_id: String,
    ifname: String,
    host_ifindex: u32,
    #[serde(flatten)]
    registration: Registration,
}

// === impl Registry ===

impl Registry {
    /// Opens (and makes) `<state_dir>/endpoints`, readable by root only.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn open(state_dir: &Path) -> io::Result<Self> {
        let folder = state_dir.join("endpoints");
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)?;
        Ok(Self { folder })
    }

    /// Every endpoint on file whose interface is still the one that was registered. Files that
    /// are not readable, and those of interfaces that are gone, are removed.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn load(
        &self,
        ifindex_of: impl Fn(&IfName) -> Option<u32>,
    ) -> io::Result<BTreeMap<EndpointId, LocalEndpoint>> {
        let mut endpoints = BTreeMap::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            match read(&path, &ifindex_of) {
                Ok(endpoint) => {
                    endpoints.insert(endpoint.id.clone(), endpoint);
                }
                Err(reason) => {
                    tracing::warn!(file = %path.display(), %reason, "endpoint is not adopted");
                    fs::remove_file(&path)?;
                }
            }
        }
        Ok(endpoints)
    }

    /// Writes `endpoint`, atomically.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, endpoint: &LocalEndpoint, registration: &Registration) -> io::Result<()> {
        let record = Record {
            container_id: endpoint.id.container_id.clone(),
            ifname: endpoint.id.ifname.as_str().to_owned(),
            host_ifindex: endpoint.host_ifindex,
            registration: registration.clone(),
        };
        let path = self.path(&endpoint.id);
        let draft = path.with_extension("draft");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&draft)?;
        file.write_all(&serde_json::to_vec(&record)?)?;
        drop(file);
        fs::rename(&draft, &path)
    }

    /// Removes the file of `id`; an absent one is no error.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub fn remove(&self, id: &EndpointId) -> io::Result<()> {
        match fs::remove_file(self.path(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// `@` is in no container id, and neither part can hold a `/`: both are checked on parse.
    fn path(&self, id: &EndpointId) -> PathBuf {
        let name = format!("{}@{}.json", id.container_id, id.ifname);
        self.folder.join(name)
    }
}

fn read(path: &Path, ifindex_of: impl Fn(&IfName) -> Option<u32>) -> Result<LocalEndpoint, String> {
    let text = fs::read(path).map_err(|error| error.to_string())?;
    let record: Record = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    let id = Registration::id(&record.container_id, &record.ifname).map_err(|e| e.to_string())?;
    let endpoint = record
        .registration
        .endpoint(id, ifindex_of)
        .map_err(|error| error.to_string())?;
    if endpoint.host_ifindex == record.host_ifindex {
        Ok(endpoint)
    } else {
        Err(format!(
            "interface {} is another one now",
            endpoint.host_interface
        ))
    }
}
