//! Snapshots: all objects in one file, so that the log does not grow for ever.
//!
//! `snapshot-R` holds everything up to revision R in the log's record format, ended by a record of
//! an empty key. `wal-R` holds what came after R. A snapshot is written to a temporary file, made
//! durable and renamed; logs and snapshots it replaces are removed only then.

use std::fs::{File, TryLockError};
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use super::state::State;
use super::wal::{End, LOG_MAGIC, Log, Record, Records, encode};
use super::{Extract, Index, Key, Options, Shared, StoreError, Stored, read};

const SNAPSHOT_MAGIC: &[u8; 8] = b"TOWLSNP1";

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> StoreError {
    let path = path.to_owned();
    move |cause| StoreError::Io {
        action,
        path,
        cause,
    }
}

/// Reads the directory; answers the state and the log to append to.
pub(crate) fn restore(options: &Options, extract: &Extract) -> Result<(State, Log), StoreError> {
    let dir = &options.dir;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(io_error("create", dir))?;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))
        .map_err(io_error("set mode of", dir))?;
    let lock = lock(dir)?;
    let mut state = State::new(options.history, options.history_age);
    let snapshot = numbered(dir, "snapshot-")?.pop();
    if let Some((revision, path)) = &snapshot {
        load_snapshot(&mut state, path, extract)?;
        state.loaded(*revision);
    }
    let logs = numbered(dir, "wal-")?;
    let last = logs.len().saturating_sub(1);
    let mut tail = None;
    for (index, (_, path)) in logs.into_iter().enumerate() {
        let size = replay(&mut state, &path, extract, index == last)?;
        tail = Some((path, size));
    }
    let log = match tail {
        Some((path, size)) => Log::resume(path, size, options.sync)?,
        None => Log::create(log_path(dir, state.revision), options.sync)?,
    };
    Ok((state, log.hold(lock)))
}

fn lock(dir: &Path) -> Result<File, StoreError> {
    let path = dir.join("lock");
    let file = File::create(&path).map_err(io_error("create", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked(dir.to_owned())),
        Err(TryLockError::Error(cause)) => Err(io_error("lock", &path)(cause)),
    }
}

fn log_path(dir: &Path, revision: u64) -> PathBuf {
    dir.join(format!("wal-{revision:020}"))
}

/// Files `prefix<revision>` of a directory in order.
fn numbered(dir: &Path, prefix: &str) -> Result<Vec<(u64, PathBuf)>, StoreError> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(io_error("read", dir))? {
        let entry = entry.map_err(io_error("read", dir))?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(prefix));
        if let Some(revision) = number.and_then(|number| number.parse().ok()) {
            files.push((revision, entry.path()));
        }
    }
    files.sort_unstable();
    Ok(files)
}

fn stored(record: Record, extract: &Extract) -> Arc<Stored> {
    let index = serde_json::from_slice(&record.body).map_or_else(
        |_| Index::default(),
        |value| extract(&record.key.resource, &value),
    );
    let Record {
        revision,
        create_revision,
        key,
        body,
        ..
    } = record;
    Arc::new(Stored {
        key,
        create_revision,
        revision,
        body,
        index,
    })
}

fn load_snapshot(state: &mut State, path: &Path, extract: &Extract) -> Result<(), StoreError> {
    let mut records = Records::open(path, SNAPSHOT_MAGIC)?;
    loop {
        let offset = records.offset();
        match records.next() {
            Ok(record) if record.key.resource.is_empty() => return Ok(()),
            Ok(record) => state.load(stored(record, extract)),
            Err(End::Clean) => return Err(damaged(path, offset, "its end record is missing")),
            Err(End::Torn(reason)) => return Err(damaged(path, offset, reason)),
        }
    }
}

fn damaged(path: &Path, offset: u64, reason: &'static str) -> StoreError {
    StoreError::Damaged {
        path: path.to_owned(),
        offset,
        reason,
    }
}

/// Applies a log; answers the offset after its last whole record.
fn replay(
    state: &mut State,
    path: &Path,
    extract: &Extract,
    last: bool,
) -> Result<u64, StoreError> {
    let mut records = match Records::open(path, LOG_MAGIC) {
        // A crash between creating the file and writing its magic leaves it empty.
        Err(StoreError::Damaged { .. }) if last && is_empty(path) => {
            Log::create(path.to_owned(), true)?;
            Records::open(path, LOG_MAGIC)?
        }
        other => other?,
    };
    loop {
        let offset = records.offset();
        match records.next() {
            Ok(record) if record.revision <= state.revision => {}
            Ok(record) => {
                let deleted = record.deleted;
                state.apply(stored(record, extract), deleted);
            }
            Err(End::Clean) => return Ok(offset),
            Err(End::Torn(reason)) if last => {
                tracing::warn!(path = %path.display(), offset, reason, "store: torn record cut off");
                return Ok(offset);
            }
            Err(End::Torn(reason)) => return Err(damaged(path, offset, reason)),
        }
    }
}

fn is_empty(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.len() < LOG_MAGIC.len() as u64)
}

/// The snapshot being written beside the commit thread, at most one.
#[derive(Default)]
pub(crate) struct Background(Option<JoinHandle<()>>);

impl Background {
    pub(crate) fn idle(&self) -> bool {
        self.0.as_ref().is_none_or(JoinHandle::is_finished)
    }

    pub(crate) fn wait(&mut self) {
        if let Some(thread) = self.0.take()
            && thread.join().is_err()
        {
            tracing::error!("store: the snapshot thread panicked");
        }
    }

    /// Begins a new log and writes a snapshot of what the old ones hold. On failure the old files
    /// stay, and with them everything.
    pub(crate) fn begin(&mut self, options: &Options, state: &Shared, log: &mut Log) {
        self.wait();
        let (revision, objects) = {
            let state = read(state);
            (state.revision, state.all())
        };
        let dir = options.dir.clone();
        if let Err(error) = log.rotate(log_path(&dir, revision)) {
            tracing::error!(%error, "store: no new log could be begun");
            return;
        }
        let work = move || {
            if let Err(error) = write_snapshot(&dir, revision, &objects) {
                tracing::error!(%error, "store: the snapshot was not written");
            }
        };
        match std::thread::Builder::new()
            .name("store-snapshot".into())
            .spawn(work)
        {
            Ok(thread) => self.0 = Some(thread),
            Err(error) => tracing::error!(%error, "store: no thread for the snapshot"),
        }
    }
}

fn write_snapshot(dir: &Path, revision: u64, objects: &[Arc<Stored>]) -> Result<(), StoreError> {
    let temporary = dir.join("snapshot.tmp");
    let file = File::create(&temporary).map_err(io_error("create", &temporary))?;
    let mut out = BufWriter::new(file);
    let end = Stored {
        key: Key::new(&Arc::from(""), "", ""),
        create_revision: 0,
        revision,
        body: bytes::Bytes::new(),
        index: Index::default(),
    };
    let mut write = || {
        out.write_all(SNAPSHOT_MAGIC)?;
        let mut buffer = Vec::new();
        for object in objects
            .iter()
            .map(AsRef::as_ref)
            .chain(std::iter::once(&end))
        {
            buffer.clear();
            encode(&mut buffer, false, object);
            out.write_all(&buffer)?;
        }
        out.flush()?;
        out.get_ref().sync_all()
    };
    write().map_err(io_error("write", &temporary))?;
    let path = dir.join(format!("snapshot-{revision:020}"));
    std::fs::rename(&temporary, &path).map_err(io_error("rename to", &path))?;
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(io_error("sync", dir))?;
    for (old, path) in numbered(dir, "snapshot-")?
        .into_iter()
        .chain(numbered(dir, "wal-")?)
    {
        if old < revision {
            std::fs::remove_file(&path).map_err(io_error("remove", &path))?;
        }
    }
    Ok(())
}
