//! Reservations as files, compatible with the reference plugin's: `<folder>/<ip>` holding
//! `container CR LF interface`, `last_reserved_ip.<set>` and `lock`.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use protocol::{Attachment, Error};

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

    /// Whether the file's owner `held` is this one; a file of an old version names only containers.
    fn holds(&self, held: &Self) -> bool {
        self.container_id == held.container_id
            && (held.ifname == self.ifname || held.ifname.is_empty())
    }
}

// === impl Store ===

impl Store {
    /// Opens and locks the store, making its folder if need be.
    ///
    /// # Errors
    /// Code 5 when folder or lock cannot be had.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let made = DirBuilder::new().recursive(true).mode(0o755).create(folder);
        made.map_err(|error| failed("make", folder, &error))?;
        Self::lock(folder)
    }

    /// Opens and locks the store if its folder is there.
    ///
    /// # Errors
    /// Code 5 when the lock cannot be had.
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
        Ok(Self {
            folder: folder.to_owned(),
            _lock: lock,
        })
    }

    /// All reserved addresses.
    ///
    /// # Errors
    /// Code 5 when the folder cannot be read.
    pub fn reserved(&self) -> Result<BTreeSet<IpAddr>, Error> {
        let entries = fs::read_dir(&self.folder).map_err(|e| failed("read", &self.folder, &e))?;
        let mut reserved = BTreeSet::new();
        for entry in entries {
            let entry = entry.map_err(|e| failed("read", &self.folder, &e))?;
            // Everything else in the folder is not named by an address.
            reserved.extend(
                entry
                    .file_name()
                    .to_str()
                    .and_then(|name| name.parse::<IpAddr>().ok()),
            );
        }
        Ok(reserved)
    }

    /// The addresses that `owner` holds.
    ///
    /// # Errors
    /// Code 5 when a reservation cannot be read.
    pub fn addresses_of(&self, owner: &Owner) -> Result<Vec<IpAddr>, Error> {
        let entries = self.entries()?;
        Ok(entries
            .into_iter()
            .filter(|(_, held)| owner.holds(held))
            .map(|(ip, _)| ip)
            .collect())
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
    pub fn reserve(&self, ip: IpAddr, owner: &Owner, set: usize) -> Result<(), Error> {
        let path = self.path(ip);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(|error| failed("reserve", &path, &error))?;
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
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(ip.to_string().as_bytes()))
            .map_err(|error| failed("write", &path, &error))
    }

    /// Gives `ip` back; an unreserved one is no error.
    ///
    /// # Errors
    /// Code 5 when it cannot be removed.
    pub fn forget(&self, ip: IpAddr) -> Result<(), Error> {
        let path = self.path(ip);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(failed("remove", &path, &error))
            }
            _ => Ok(()),
        }
    }

    /// Gives back everything that `owner` holds.
    ///
    /// # Errors
    /// The first failure, after everything else was tried.
    pub fn release(&self, owner: &Owner) -> Result<(), Error> {
        self.forget_all(self.addresses_of(owner)?)
    }

    /// Gives back everything that belongs to no attachment in `valid`.
    ///
    /// # Errors
    /// The first failure, after everything else was tried.
    pub fn keep_only(&self, valid: &[Attachment]) -> Result<(), Error> {
        let is_valid = |held: &Owner| {
            valid.iter().any(|one| {
                let (container_id, ifname) = (one.container_id.clone(), one.ifname.clone());
                Owner {
                    container_id,
                    ifname,
                }
                .holds(held)
            })
        };
        let stale = self
            .entries()?
            .into_iter()
            .filter(|(_, held)| !is_valid(held));
        self.forget_all(stale.map(|(ip, _)| ip).collect())
    }

    fn forget_all(&self, ips: Vec<IpAddr>) -> Result<(), Error> {
        let mut outcome = Ok(());
        for ip in ips {
            outcome = outcome.and(self.forget(ip));
        }
        outcome
    }

    fn entries(&self) -> Result<Vec<(IpAddr, Owner)>, Error> {
        let mut entries = Vec::new();
        for ip in self.reserved()? {
            let path = self.path(ip);
            match fs::read(&path) {
                Ok(bytes) => entries.push((ip, Owner::parse(&String::from_utf8_lossy(&bytes)))),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(failed("read", &path, &error)),
            }
        }
        Ok(entries)
    }

    fn path(&self, ip: IpAddr) -> PathBuf {
        self.folder.join(ip.to_string())
    }
}

fn failed(what: &str, path: &Path, error: &std::io::Error) -> Error {
    Error::io(format!("host-local cannot {what} {}", path.display())).details(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(container_id: &str, ifname: &str) -> Owner {
        Owner {
            container_id: container_id.to_owned(),
            ifname: ifname.to_owned(),
        }
    }

    #[test]
    fn files_are_the_reference_plugins() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        store
            .reserve("10.1.0.2".parse().unwrap(), &owner("c1", "eth0"), 0)
            .unwrap();
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(read("10.1.0.2"), "c1\r\neth0");
        assert_eq!(read("last_reserved_ip.0"), "10.1.0.2");
        assert!(
            store
                .reserve("10.1.0.2".parse().unwrap(), &owner("c2", "eth0"), 0)
                .is_err()
        );
        assert_eq!(read("10.1.0.2"), "c1\r\neth0");
    }

    #[test]
    fn legacy_and_padded_files_belong_to_their_container() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        fs::write(folder.path().join("10.1.0.2"), "c1").unwrap();
        fs::write(folder.path().join("10.1.0.3"), " c1 \r\n eth1 \n").unwrap();
        fs::write(folder.path().join("10.1.0.4"), "c2\r\neth0").unwrap();
        fs::write(folder.path().join("10.1.0.5"), "").unwrap();
        let held = |id: &str, ifname: &str| {
            let ips = store.addresses_of(&owner(id, ifname)).unwrap();
            ips.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(held("c1", "eth0"), ["10.1.0.2"]);
        assert_eq!(held("c1", "eth1"), ["10.1.0.2", "10.1.0.3"]);
        let valid = [Attachment {
            container_id: "c2".into(),
            ifname: "eth0".into(),
        }];
        store.keep_only(&valid).unwrap();
        let left: Vec<_> = store.reserved().unwrap().into_iter().collect();
        assert_eq!(left, ["10.1.0.4".parse::<IpAddr>().unwrap()]);
    }
}
