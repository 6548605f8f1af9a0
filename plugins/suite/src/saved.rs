//! The delegate's configurations, kept from ADD to DEL: one file an attachment.
//!
//! Files are moved into place, so a reader finds all of one or none. They are not forced to disk:
//! no pod outlives the power failure that could lose them, and DEL does without.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use protocol::{Attachment, Error, Request};

use crate::delegate::Delegate;

/// Joins container and interface in a file name; neither can hold it (interfaces hold no `:`).
const SEPARATOR: char = ':';
/// Begins the name of a file that is not complete; no container's ID begins so.
const BEING_WRITTEN: char = '.';

/// The folder of saved configurations.
#[derive(Debug)]
pub struct Saved {
    folder: PathBuf,
}

/// A file of the folder, by whose it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// Ours: the configuration of one attachment.
    Attachment(Attachment),
    /// One that flannel's own plugin left: the file is named by the container alone.
    Container(String),
    /// What a plugin that was killed did not complete.
    Incomplete(String),
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

    /// Saves `delegate`, readable by root only.
    ///
    /// # Errors
    /// Code 5 when it cannot be written.
    pub fn write(&self, attachment: &Attachment, delegate: &Delegate) -> Result<(), Error> {
        let name = name_of(attachment)?;
        let path = self.folder.join(&name);
        let fresh = self.folder.join(format!("{BEING_WRITTEN}{name}"));
        let create = || {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(true).mode(0o600);
            options.open(&fresh)
        };
        let file = create().or_else(|error| {
            if error.kind() != ErrorKind::NotFound {
                return Err(error);
            }
            let mut folders = DirBuilder::new();
            folders.recursive(true).mode(0o700).create(&self.folder)?;
            create()
        });
        file.and_then(|mut file| file.write_all(&delegate.encode()))
            .and_then(|()| fs::rename(&fresh, &path))
            .map_err(|error| failed("save", &path, &error))
    }

    /// What was saved for an attachment; `None` also for a file that holds no configuration.
    ///
    /// # Errors
    /// Code 5 when it is there and cannot be read.
    pub fn read(&self, attachment: &Attachment) -> Result<Option<Delegate>, Error> {
        self.decoded(&name_of(attachment)?)
    }

    /// What flannel's own plugin saved for a container; likewise.
    ///
    /// # Errors
    /// Code 5 when it is there and cannot be read.
    pub fn read_of_container(&self, attachment: &Attachment) -> Result<Option<Delegate>, Error> {
        name_of(attachment)?;
        self.decoded(&attachment.container_id)
    }

    /// Forgets an attachment; an unknown one is no error.
    ///
    /// # Errors
    /// Code 5 when it cannot be removed.
    pub fn remove(&self, attachment: &Attachment) -> Result<(), Error> {
        let name = name_of(attachment)?;
        self.unlink(&name)
    }

    /// Forgets a file by whose it is.
    ///
    /// # Errors
    /// Code 5 when it cannot be removed.
    pub fn remove_file(&self, owner: &Owner) -> Result<(), Error> {
        match owner {
            Owner::Attachment(attachment) => self.remove(attachment),
            Owner::Container(name) | Owner::Incomplete(name) => self.unlink(name),
        }
    }

    /// Everything in the folder, sorted.
    ///
    /// # Errors
    /// Code 5 when the folder is there and cannot be read.
    pub fn list(&self) -> Result<Vec<Owner>, Error> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed("read", &self.folder, &error)),
        };
        let mut owners = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| failed("read", &self.folder, &error))?;
            owners.extend(entry.file_name().to_str().and_then(owner_of));
        }
        owners.sort();
        Ok(owners)
    }

    /// Detaches and forgets what is of the request's network and not in `valid`, and what is of no
    /// use to anybody; `also` is done for each such attachment.
    ///
    /// # Errors
    /// The first failure, after everything else was tried.
    pub fn sweep(
        &self,
        request: &Request<'_>,
        valid: &[Attachment],
        also: &dyn Fn(&Attachment) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut outcome = Ok(());
        for owner in self.list()? {
            let swept = match &owner {
                Owner::Attachment(one) if valid.contains(one) => continue,
                Owner::Attachment(one) => match self.read(one) {
                    Ok(Some(found)) if found.network() != request.network => continue,
                    Ok(Some(found)) => also(one).and(found.del_of(request, one)),
                    // A file that lost its content serves nobody.
                    Ok(None) => also(one),
                    Err(error) => Err(error),
                },
                Owner::Container(id) if valid.iter().any(|one| one.container_id == *id) => continue,
                // Which interface it is for is not said; the delegate's own GC frees the rest.
                Owner::Container(id) => match self.decoded(id) {
                    Ok(Some(found)) if found.network() != request.network => continue,
                    other => other.map(drop),
                },
                Owner::Incomplete(_) => Ok(()),
            };
            outcome = outcome.and(swept.and_then(|()| self.remove_file(&owner)));
        }
        outcome
    }

    fn decoded(&self, name: &str) -> Result<Option<Delegate>, Error> {
        let path = self.folder.join(name);
        match fs::read(&path) {
            Ok(bytes) => Ok(Delegate::decode(&bytes)),
            Err(error) if is_absence(&error) => Ok(None),
            Err(error) => Err(failed("read", &path, &error)),
        }
    }

    fn unlink(&self, name: &str) -> Result<(), Error> {
        let path = self.folder.join(name);
        match fs::remove_file(&path) {
            Err(error) if !is_absence(&error) => Err(failed("remove", &path, &error)),
            _ => Ok(()),
        }
    }
}

/// A name that is too long for a file was never saved, and so was nothing in what is no folder.
fn is_absence(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::NotFound | ErrorKind::InvalidFilename | ErrorKind::NotADirectory
    )
}

/// The run loop has checked both already; a name made of them must never leave the folder.
fn name_of(attachment: &Attachment) -> Result<String, Error> {
    attachment.check()?;
    let Attachment {
        container_id,
        ifname,
    } = attachment;
    Ok(format!("{container_id}{SEPARATOR}{ifname}"))
}

/// `None` for a file that neither plugin made.
fn owner_of(name: &str) -> Option<Owner> {
    if name.starts_with(BEING_WRITTEN) {
        return Some(Owner::Incomplete(name.to_owned()));
    }
    let (container_id, ifname) = name.split_once(SEPARATOR).unwrap_or((name, "eth0"));
    let attachment = Attachment {
        container_id: container_id.to_owned(),
        ifname: ifname.to_owned(),
    };
    attachment.check().ok()?;
    Some(if name.contains(SEPARATOR) {
        Owner::Attachment(attachment)
    } else {
        Owner::Container(attachment.container_id)
    })
}

fn failed(what: &str, path: &Path, error: &std::io::Error) -> Error {
    Error::io(format!("cannot {what} {}", path.display())).details(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_apart_by_their_names() {
        let attachment = |ifname: &str| {
            Some(Owner::Attachment(Attachment {
                container_id: "c1".to_owned(),
                ifname: ifname.to_owned(),
            }))
        };
        assert_eq!(owner_of("c1:eth0"), attachment("eth0"));
        assert_eq!(owner_of("c1:eth0.new"), attachment("eth0.new"));
        assert_eq!(owner_of("c1"), Some(Owner::Container("c1".to_owned())));
        let incomplete = Owner::Incomplete(".c1:eth0".to_owned());
        assert_eq!(owner_of(".c1:eth0"), Some(incomplete));
        assert_eq!(owner_of("some notes"), None);
    }

    #[test]
    fn no_name_leaves_the_folder() {
        let saved = Saved::new(Path::new("/nowhere"));
        for (container_id, ifname) in [("../x", "eth0"), ("c1", "../../x"), ("", "eth0")] {
            let hostile = Attachment {
                container_id: container_id.to_owned(),
                ifname: ifname.to_owned(),
            };
            assert_eq!(saved.read(&hostile).map_err(|error| error.code), Err(4));
            assert_eq!(saved.remove(&hostile).map_err(|error| error.code), Err(4));
        }
    }
}
