//! An index of the reservations, so that thousands of files need not be read at every call.
//!
//! The files remain the truth, and other programs may change them. After each change of ours the
//! folder's modification time is set to the very nanosecond that the index holds, so any change by
//! somebody else, even in the same tick of the kernel's clock, makes the index count for nothing.
//! It is a log: a first line of fixed length with that time and the length of the rest, then
//! `+ip CR container CR interface` and `-ip`. No part can hold a CR, which separates them in the
//! files too.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::net::IpAddr;
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::stat::futimens;
use nix::sys::time::TimeSpec;

use crate::host_local::store::Owner;

/// The index's name in the folder.
const NAME: &str = ".towline-index";
const MAGIC: &str = "towline-index 1";
/// A log is written anew when it has this many times as many lines as reservations.
const SLACK: usize = 2;
/// Below this many lines a log is never written anew.
const FEW: usize = 64;

/// The reservations by address, with their owners' text in one piece: thousands of small strings
/// would cost more than reading the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entries {
    text: String,
    /// Where in `text` the owner stands, as `container CR interface`.
    places: BTreeMap<IpAddr, Range<usize>>,
}

/// A change since the index was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// An address was reserved.
    Added(IpAddr, Owner),
    /// An address was given back.
    Removed(IpAddr),
}

/// A modification time in seconds and nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    seconds: i64,
    nanoseconds: i64,
}

/// A time that no folder has.
const NEVER: Stamp = Stamp {
    seconds: 0,
    nanoseconds: 0,
};

/// What an index held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The reservations.
    pub entries: Entries,
    /// Lines of its log.
    pub lines: usize,
}

// === impl Entries ===

impl Entries {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Whether `ip` is among them.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.places.contains_key(&ip)
    }

    /// Address, container and interface of each, in order of addresses.
    pub fn iter(&self) -> impl Iterator<Item = (IpAddr, &str, &str)> {
        self.places.iter().map(|(ip, place)| {
            let owner = &self.text[place.clone()];
            let (container_id, ifname) = owner.split_once('\r').unwrap_or((owner, ""));
            (*ip, container_id, ifname)
        })
    }

    /// Adds a reservation, in place of the one that `ip` had.
    pub fn insert(&mut self, ip: IpAddr, owner: &Owner) {
        let start = self.text.len();
        self.text.push_str(&owner.container_id);
        self.text.push('\r');
        self.text.push_str(&owner.ifname);
        self.places.insert(ip, start..self.text.len());
    }

    /// Removes a reservation; whether there was one is returned.
    pub fn remove(&mut self, ip: IpAddr) -> bool {
        self.places.remove(&ip).is_some()
    }
}

/// Reads the index of `folder`; `None` when there is none, it is unreadable, or the folder has been
/// changed since.
#[must_use]
pub fn read(folder: &Path) -> Option<Found> {
    let mut text = String::new();
    File::open(folder.join(NAME))
        .ok()?
        .read_to_string(&mut text)
        .ok()?;
    let (head, log) = text.split_once('\n')?;
    if head != header(stamp_of(&File::open(folder).ok()?).ok()?, log.len()) {
        return None;
    }
    let mut places = BTreeMap::new();
    let (mut lines, mut start) = (0, head.len() + 1);
    for line in log.split_inclusive('\n') {
        replay(line.strip_suffix('\n')?, start, &mut places)?;
        start += line.len();
        lines += 1;
    }
    Some(Found {
        entries: Entries { text, places },
        lines,
    })
}

/// One line of the log, which begins at `start` of the text.
fn replay(line: &str, start: usize, places: &mut BTreeMap<IpAddr, Range<usize>>) -> Option<()> {
    if let Some(ip) = line.strip_prefix('-') {
        places.remove(&ip.parse().ok()?)?;
        return Some(());
    }
    let (ip, owner) = line.strip_prefix('+')?.split_once('\r')?;
    owner.split_once('\r')?;
    let end = start + line.len();
    places.insert(ip.parse().ok()?, end - owner.len()..end);
    Some(())
}

/// Makes the index of `folder` say what its reservations are now: `entries`, of which `changes` are
/// new since `found` was read (`None` when there was no index).
///
/// # Errors
/// When it cannot be written. It counts for nothing then, because the folder's time differs.
pub fn write(
    folder: &Path,
    entries: &Entries,
    changes: &[Change],
    found: Option<usize>,
) -> io::Result<()> {
    let path = folder.join(NAME);
    let lines = found.map(|lines| lines + changes.len());
    let (file, length) = match lines.filter(|lines| *lines <= FEW + SLACK * entries.len()) {
        Some(_) => {
            let file = OpenOptions::new().write(true).open(&path)?;
            let log: String = changes.iter().map(line).collect();
            let end = file.metadata()?.len();
            file.write_all_at(log.as_bytes(), end)?;
            let before = usize::try_from(end)
                .unwrap_or_default()
                .saturating_sub(first_line());
            (file, before + log.len())
        }
        None => {
            let mut options = OpenOptions::new();
            let file = options
                .create(true)
                .write(true)
                .truncate(true)
                .mode(0o600)
                .open(&path)?;
            let log: String = entries
                .iter()
                .map(|(ip, id, ifname)| added(ip, id, ifname))
                .collect();
            let text = format!("{}\n{log}", header(NEVER, 0));
            file.write_all_at(text.as_bytes(), 0)?;
            (file, log.len())
        }
    };
    let stamp = mark(folder)?;
    file.write_all_at(header(stamp, length).as_bytes(), 0)
}

fn line(change: &Change) -> String {
    match change {
        Change::Added(ip, owner) => added(*ip, &owner.container_id, &owner.ifname),
        Change::Removed(ip) => format!("-{ip}\n"),
    }
}

fn added(ip: IpAddr, container_id: &str, ifname: &str) -> String {
    format!("+{ip}\r{container_id}\r{ifname}\n")
}

/// Of one length for every time and length, so that it can be overwritten.
fn header(stamp: Stamp, length: usize) -> String {
    format!(
        "{MAGIC} {:020}.{:09} {length:020}",
        stamp.seconds, stamp.nanoseconds
    )
}

/// Length of the header with its newline.
fn first_line() -> usize {
    header(NEVER, 0).len() + 1
}

/// Gives the folder a modification time that nobody else's change will have.
fn mark(folder: &Path) -> io::Result<Stamp> {
    let directory = File::open(folder)?;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let seconds = i64::try_from(now.as_secs()).unwrap_or_default();
    let time = TimeSpec::new(seconds, i64::from(now.subsec_nanos()));
    futimens(directory.as_fd(), &TimeSpec::UTIME_OMIT, &time)?;
    let stamp = stamp_of(&directory)?;
    if (stamp.seconds, stamp.nanoseconds) == (time.tv_sec(), time.tv_nsec()) {
        Ok(stamp)
    } else {
        // A file system that rounds times cannot tell changes of one interval apart.
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "the file system rounds times",
        ))
    }
}

fn stamp_of(file: &File) -> io::Result<Stamp> {
    let metadata = file.metadata()?;
    Ok(Stamp {
        seconds: metadata.mtime(),
        nanoseconds: metadata.mtime_nsec(),
    })
}
