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

/// The reservations by address.
pub type Entries = BTreeMap<IpAddr, Owner>;

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
    let mut entries = Entries::new();
    let mut lines = 0;
    for line in log.split_inclusive('\n') {
        replay(line.strip_suffix('\n')?, &mut entries)?;
        lines += 1;
    }
    Some(Found { entries, lines })
}

fn replay(line: &str, entries: &mut Entries) -> Option<()> {
    if let Some(ip) = line.strip_prefix('-') {
        entries.remove(&ip.parse().ok()?)?;
        return Some(());
    }
    let mut words = line.strip_prefix('+')?.split('\r');
    let ip = words.next()?.parse().ok()?;
    let (container_id, ifname) = (words.next()?.to_owned(), words.next()?.to_owned());
    entries.insert(
        ip,
        Owner {
            container_id,
            ifname,
        },
    );
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
            let added = |(ip, owner): (&IpAddr, &Owner)| line(&Change::Added(*ip, owner.clone()));
            let log: String = entries.iter().map(added).collect();
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
        Change::Added(ip, owner) => format!("+{ip}\r{}\r{}\n", owner.container_id, owner.ifname),
        Change::Removed(ip) => format!("-{ip}\n"),
    }
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
