//! Locks between our own processes, for changes that the kernel has no transaction for.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;

use nix::fcntl::{Flock, FlockArg};

use crate::error::{Error, Result};

const FOLDER: &str = "/run/towline";

/// A lock held until this is dropped, or the process ends.
#[derive(Debug)]
pub struct Lock {
    /// Unlocks when dropped.
    _file: Flock<File>,
}

/// Takes the lock `/run/towline/<name>.lock`, as soon as whoever has it lets go of it.
///
/// # Errors
/// When the file cannot be made.
pub fn exclusive(name: &str) -> Result<Lock> {
    let path = format!("{FOLDER}/{name}.lock");
    let open = || {
        let mut options = OpenOptions::new();
        let options = options.create(true).truncate(false).write(true).mode(0o600);
        options.open(&path)
    };
    let file = open().or_else(|_| fs::create_dir_all(FOLDER).and_then(|()| open()));
    let file = file.map_err(|error| Error::io("lock", &path, &error))?;
    let locked = Flock::lock(file, FlockArg::LockExclusive);
    let _file = locked.map_err(|(_, errno)| Error::errno("lock", &path, errno))?;
    Ok(Lock { _file })
}
