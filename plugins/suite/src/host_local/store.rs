//! Reservations as files, compatible with the reference plugin's: `<folder>/<ip>` holding
//! `container CR LF interface`, `last_reserved_ip.<set>` and `lock`.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use protocol::{Attachment, Error};

use crate::host_local::index::{self, Change, Entries};

/// Who holds an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The container.
    pub container_id: String,
    /// Its interface; empty in files of old versions, which knew containers only.
    pub ifname: String,
}

/// The reservations of one network, locked until this is dropped.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    entries: Entries,
    /// Lines of the index that was read; `None` when the files were read instead.
    indexed: Option<usize>,
    changes: Vec<Change>,
    _lock: Flock<File>,
}

// === impl Owner ===

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.container_id, self.ifname)
    }
}

impl Owner {
    fn parse(text: &str) -> Self {
        let mut lines = text
            .split(['\r', '\n'])
            .map(str::trim)
            .filter(|line| !line.is_empty());
        let mut next = || lines.next().unwrap_or_default().to_owned();
        Self {
            container_id: next(),
            ifname: next(),
        }
    }

    fn text(&self) -> String {
        format!("{}\r\n{}", self.container_id, self.ifname)
    }
}

/// Whether a reservation's owner is this attachment; files of old versions name only containers.
fn is_of((container_id, ifname): (&str, &str), held: (&str, &str)) -> bool {
    container_id == held.0 && (held.1 == ifname || held.1.is_empty())
}

// === impl Store ===

impl Store {
    /// Opens and locks the store, making its folder if need be.
    ///
    /// # Errors
    /// Code 5 when folder, lock or a reservation cannot be read.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let made = DirBuilder::new().recursive(true).mode(0o755).create(folder);
        made.map_err(|error| failed("make", folder, &error))?;
        Self::lock(folder)
    }

    /// Opens and locks the store if its folder is there.
    ///
    /// # Errors
    /// Code 5 when lock or a reservation cannot be read.
    pub fn open_existing(folder: &Path) -> Result<Option<Self>, Error> {
        if folder.is_dir() {
            Self::lock(folder).map(Some)
        } else {
            Ok(None)
        }
    }

    fn lock(folder: &Path) -> Result<Self, Error> {
        let path = folder.join("lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path);
        let file = file.map_err(|error| failed("open", &path, &error))?;
        let lock = Flock::lock(file, FlockArg::LockExclusive)
            .map_err(|(_, errno)| failed("lock", &path, &errno.into()))?;
        let (entries, indexed) = match index::read(folder) {
            Some(found) => (found.entries, Some(found.lines)),
            None => (scan(folder)?, None),
        };
        let folder = folder.to_owned();
        Ok(Self {
            folder,
            entries,
            indexed,
            changes: Vec::new(),
            _lock: lock,
        })
    }

    /// Whether `ip` is reserved.
    #[must_use]
    pub fn is_reserved(&self, ip: IpAddr) -> bool {
        self.entries.contains(ip)
    }

    /// All reserved addresses, in order.
    pub fn reserved(&self) -> impl Iterator<Item = IpAddr> {
        self.entries.iter().map(|(ip, _, _)| ip)
    }

    /// The addresses that `owner` holds.
    #[must_use]
    pub fn addresses_of(&self, owner: &Owner) -> Vec<IpAddr> {
        let own = (owner.container_id.as_str(), owner.ifname.as_str());
        let held = self
            .entries
            .iter()
            .filter(|(_, id, ifname)| is_of(own, (id, ifname)));
        held.map(|(ip, _, _)| ip).collect()
    }

    /// The address last given from set number `set`.
    ///
    /// # Errors
    /// Code 5 when it cannot be read. A file without an address counts as absent.
    pub fn last_reserved(&self, set: usize) -> Result<Option<IpAddr>, Error> {
        let path = self.folder.join(format!("last_reserved_ip.{set}"));
        match fs::read_to_string(&path) {
            Ok(text) => Ok(text.trim().parse().ok()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", &path, &error)),
        }
    }

    /// Reserves `ip` from set number `set` for `owner`.
    ///
    /// # Errors
    /// Code 5 when it is reserved or cannot be written; nothing is left then.
    pub fn reserve(&mut self, ip: IpAddr, owner: &Owner, set: usize) -> Result<(), Error> {
        let path = self.path(ip);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(|error| failed("reserve", &path, &error))?;
        self.entries.insert(ip, owner);
        self.changes.push(Change::Added(ip, owner.clone()));
        let written = file
            .write_all(owner.text().as_bytes())
            .map_err(|error| failed("write", &path, &error));
        let outcome = written.and_then(|()| self.remember(ip, set));
        outcome.map_err(|error| match self.forget(ip) {
            Ok(()) => error,
            Err(second) => error.details(format!("then, giving back: {second}")),
        })
    }

    fn remember(&self, ip: IpAddr, set: usize) -> Result<(), Error> {
        let path = self.folder.join(format!("last_reserved_ip.{set}"));
        let text = ip.to_string();
        // Written over rather than emptied first: ext4 writes a file that was emptied to the disk
        // when it is closed, which takes milliseconds.
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .and_then(|file| {
                file.write_all_at(text.as_bytes(), 0)?;
                let length = text.len() as u64;
                if file.metadata()?.len() > length {
                    file.set_len(length)?;
                }
                Ok(())
            })
            .map_err(|error| failed("write", &path, &error))
    }

    /// Gives `ip` back; an unreserved one is no error.
    ///
    /// # Errors
    /// Code 5 when it cannot be removed.
    pub fn forget(&mut self, ip: IpAddr) -> Result<(), Error> {
        let path = self.path(ip);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(failed("remove", &path, &error));
            }
            _ => {}
        }
        if self.entries.remove(ip) {
            self.changes.push(Change::Removed(ip));
        }
        Ok(())
    }

    /// Gives back everything that `owner` holds.
    ///
    /// # Errors
    /// The first failure, after everything else was tried.
    pub fn release(&mut self, owner: &Owner) -> Result<(), Error> {
        self.forget_all(&self.addresses_of(owner))
    }

    /// Gives back everything that belongs to no attachment in `valid`.
    ///
    /// # Errors
    /// The first failure, after everything else was tried.
    pub fn keep_only(&mut self, valid: &[Attachment]) -> Result<(), Error> {
        let is_valid = |held| {
            valid
                .iter()
                .any(|one| is_of((one.container_id.as_str(), one.ifname.as_str()), held))
        };
        let stale = self
            .entries
            .iter()
            .filter(|(_, id, ifname)| !is_valid((id, ifname)));
        let stale: Vec<IpAddr> = stale.map(|(ip, _, _)| ip).collect();
        self.forget_all(&stale)
    }

    fn forget_all(&mut self, ips: &[IpAddr]) -> Result<(), Error> {
        let mut outcome = Ok(());
        for ip in ips {
            outcome = outcome.and(self.forget(*ip));
        }
        outcome
    }

    fn path(&self, ip: IpAddr) -> PathBuf {
        self.folder.join(ip.to_string())
    }
}

impl Drop for Store {
    /// Brings the index up to date, still under the lock. Without one the files are read instead,
    /// so that a failure costs the next call some time and nothing else.
    fn drop(&mut self) {
        if self.indexed.is_none() || !self.changes.is_empty() {
            let _ = index::write(&self.folder, &self.entries, &self.changes, self.indexed);
        }
    }
}

/// Reads all reservations from their files. What is not named by an address is something else.
fn scan(folder: &Path) -> Result<Entries, Error> {
    let mut entries = Entries::default();
    for entry in fs::read_dir(folder).map_err(|error| failed("read", folder, &error))? {
        let name = entry
            .map_err(|error| failed("read", folder, &error))?
            .file_name();
        let Some(ip) = name.to_str().and_then(|name| name.parse::<IpAddr>().ok()) else {
            continue;
        };
        let path = folder.join(&name);
        match fs::read(&path) {
            Ok(bytes) => {
                entries.insert(ip, &Owner::parse(&String::from_utf8_lossy(&bytes)));
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(failed("read", &path, &error)),
        }
    }
    Ok(entries)
}

fn failed(what: &str, path: &Path, error: &std::io::Error) -> Error {
    Error::io(format!("host-local cannot {what} {}", path.display())).details(error)
}
