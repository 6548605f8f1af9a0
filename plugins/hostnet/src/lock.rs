//! Locks between our own processes, for changes that the kernel has no transaction for.

use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::error::{Error, Result};

const FOLDER: &str = "/run/towline";
/// Who has a lock keeps it for milliseconds; a program that it runs may wait 5 s for a lock of its own.
const PATIENCE: Duration = Duration::from_secs(30);

/// A lock held until this is dropped, or the process ends.
#[derive(Debug)]
pub struct Lock {
    /// Unlocks when dropped.
    _file: Flock<File>,
}

/// Takes the lock `/run/towline/<name>.lock`, as soon as whoever has it lets go of it.
///
/// # Errors
/// When the file cannot be made, or somebody keeps the lock for half a minute.
pub fn exclusive(name: &str) -> Result<Lock> {
    let path = format!("{FOLDER}/{name}.lock");
    let open = || {
        let mut options = OpenOptions::new();
        let options = options.create(true).truncate(false).write(true).mode(0o600);
        options.open(&path)
    };
    let make = || DirBuilder::new().recursive(true).mode(0o755).create(FOLDER);
    let file = open().or_else(|_| make().and_then(|()| open()));
    let file = file.map_err(|error| Error::io("lock", &path, &error))?;
    let locked = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Err((file, Errno::EWOULDBLOCK)) => wait(file, PATIENCE),
        other => other.map_err(|(_, errno)| errno),
    };
    let _file = locked.map_err(|errno| Error::errno("lock", &path, errno))?;
    Ok(Lock { _file })
}

/// Waits in the kernel's queue, which is in nobody's disfavour. Who gives up leaves a thread there
/// until the process ends.
fn wait(file: File, patience: Duration) -> nix::Result<Flock<File>> {
    let (tell, told) = mpsc::sync_channel(0);
    let queue = move || {
        let locked = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno);
        // Where nobody listens any more, this lets go of the lock.
        drop(tell.send(locked));
    };
    thread::Builder::new()
        .spawn(queue)
        .map_err(|_| Errno::EAGAIN)?;
    told.recv_timeout(patience).unwrap_or(Err(Errno::ETIMEDOUT))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &std::path::Path) -> File {
        let mut options = OpenOptions::new();
        let options = options.create(true).truncate(false).write(true);
        options.open(path).unwrap()
    }

    #[test]
    fn a_lock_that_somebody_keeps_is_given_up_and_one_that_is_let_go_is_had() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let kept = Flock::lock(open(&path), FlockArg::LockExclusive).unwrap();
        let patience = Duration::from_millis(20);
        let refused = wait(open(&path), patience).map(drop);
        assert_eq!(refused, Err(Errno::ETIMEDOUT));
        drop(kept);
        // Also from the thread that was in the queue before.
        assert!(wait(open(&path), PATIENCE).is_ok());
    }
}
