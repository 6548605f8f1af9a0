//! The delegate's configurations, kept from ADD to DEL: one file an attachment.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use protocol::{Attachment, Error};

/// Joins container and interface in a file name; neither can hold it (interfaces hold no `:`).
const SEPARATOR: char = ':';
const BEING_WRITTEN: &str = ".new";

/// The folder of saved configurations.
#[derive(Debug)]
pub struct Saved {
    folder: PathBuf,
}

// === impl Saved ===

impl Saved {
    /// Keeps them in `folder`.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
        }
    }

    /// Saves `config`, on disk before this returns.
    ///
    /// # Errors
    /// Code 5 when it cannot be written.
    pub fn write(&self, container_id: &str, ifname: &str, config: &[u8]) -> Result<(), Error> {
        let path = self.path(container_id, ifname);
        let mut fresh = path.clone().into_os_string();
        fresh.push(BEING_WRITTEN);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)
            .and_then(|()| {
                let mut options = OpenOptions::new();
                options
                    .write(true)
                    .create(true)
                    .truncate(true)
                    .mode(0o600)
                    .open(&fresh)
            })
            .and_then(|mut file| file.write_all(config).and_then(|()| file.sync_data()))
            .and_then(|()| fs::rename(&fresh, &path))
            .map_err(|error| failed("save", &path, &error))
    }

    /// The configuration saved for an attachment.
    ///
    /// # Errors
    /// Code 5 when it is there and cannot be read.
    pub fn read(&self, container_id: &str, ifname: &str) -> Result<Option<Vec<u8>>, Error> {
        let path = self.path(container_id, ifname);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", &path, &error)),
        }
    }

    /// Forgets an attachment; an unknown one is no error.
    ///
    /// # Errors
    /// Code 5 when it cannot be removed.
    pub fn remove(&self, container_id: &str, ifname: &str) -> Result<(), Error> {
        let path = self.path(container_id, ifname);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(failed("remove", &path, &error))
            }
            _ => Ok(()),
        }
    }

    /// All attachments with a saved configuration.
    ///
    /// # Errors
    /// Code 5 when the folder is there and cannot be read.
    pub fn attachments(&self) -> Result<Vec<Attachment>, Error> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed("read", &self.folder, &error)),
        };
        let mut attachments = Vec::new();
        for entry in entries {
            let name = entry
                .map_err(|error| failed("read", &self.folder, &error))?
                .file_name();
            let Some((container_id, ifname)) = name.to_str().and_then(|n| n.split_once(SEPARATOR))
            else {
                continue;
            };
            if !ifname.ends_with(BEING_WRITTEN) {
                let (container_id, ifname) = (container_id.to_owned(), ifname.to_owned());
                attachments.push(Attachment {
                    container_id,
                    ifname,
                });
            }
        }
        attachments.sort();
        Ok(attachments)
    }

    fn path(&self, container_id: &str, ifname: &str) -> PathBuf {
        self.folder
            .join(format!("{container_id}{SEPARATOR}{ifname}"))
    }
}

fn failed(what: &str, path: &Path, error: &std::io::Error) -> Error {
    Error::io(format!("cannot {what} {}", path.display())).details(error)
}
