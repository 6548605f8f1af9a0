//! What an interface was before ADD: `<dataDir>/<container>_<interface>.json`, in the reference's
//! form with a few members more.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use protocol::{Attachment, Error};
use serde::{Deserialize, Serialize};

/// Attributes to restore; absent ones were not changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Backup {
    /// Ethernet address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Took all frames.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub promisc: Option<bool>,
    /// MTU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Took all multicast frames.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allmulti: Option<bool>,
    /// Packets that its queue held.
    #[serde(rename = "txQLen", skip_serializing_if = "Option::is_none")]
    pub queue_length: Option<u32>,
    /// MTU of the other end of a veth; ours alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_mtu: Option<u32>,
    /// The network, for GC; the reference's files have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Whose it is: the file's name can mean two, for `_` may be in either part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<Attachment>,
}

/// The file of an attachment.
#[must_use]
pub fn path(folder: &Path, attachment: &Attachment) -> PathBuf {
    let Attachment {
        container_id,
        ifname,
    } = attachment;
    // Neither holds a slash, and an ID begins with a letter or a digit.
    folder.join(format!("{container_id}_{ifname}.json"))
}

/// Reads a file; `None` when it is not there or is another attachment's. One that cannot be
/// understood has nothing to restore.
#[must_use]
pub fn read(folder: &Path, attachment: &Attachment) -> Option<Backup> {
    let text = fs::read(path(folder, attachment)).ok()?;
    let backup: Backup = serde_json::from_slice(&text).unwrap_or_default();
    let is_ours = backup
        .owner
        .as_ref()
        .is_none_or(|owner| owner == attachment);
    is_ours.then_some(backup)
}

/// Writes a file, readable by root only, whole or not at all.
///
/// # Errors
/// Code 5.
pub fn write(folder: &Path, attachment: &Attachment, backup: &Backup) -> Result<(), Error> {
    let path = path(folder, attachment);
    let fresh = path.with_extension("new");
    let attempt = || {
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&fresh)?;
        file.write_all(&serde_json::to_vec(backup)?)?;
        fs::rename(&fresh, &path)
    };
    let written = attempt().or_else(|error| {
        if error.kind() != ErrorKind::NotFound {
            return Err(error);
        }
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
        attempt()
    });
    written.map_err(|error| Error::io(format!("cannot write {}", path.display())).details(error))
}

/// Removes a file; an absent one is no error.
///
/// # Errors
/// Code 5.
pub fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if !is_absent(&error) => {
            Err(Error::io(format!("cannot remove {}", path.display())).details(error))
        }
        _ => Ok(()),
    }
}

/// Removes the files of `network` that belong to no attachment in `valid`. Files that do not say
/// whose they are stay.
///
/// # Errors
/// The first that cannot be removed, after all others were tried.
pub fn sweep(folder: &Path, network: &str, valid: &[Attachment]) -> Result<(), Error> {
    let entries = match fs::read_dir(folder) {
        Err(error) if is_absent(&error) => return Ok(()),
        other => other.map_err(|error| {
            Error::io(format!("cannot read {}", folder.display())).details(error)
        })?,
    };
    let mut outcome = Ok(());
    for path in entries.flatten().map(|entry| entry.path()) {
        let backup = fs::read(&path).ok();
        let backup = backup.and_then(|text| serde_json::from_slice::<Backup>(&text).ok());
        let is_stale = backup.is_some_and(|backup| {
            let of_network = backup.network.as_deref() == Some(network);
            of_network && backup.owner.is_some_and(|owner| !valid.contains(&owner))
        });
        if is_stale {
            outcome = outcome.and(remove(&path));
        }
    }
    outcome
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}
