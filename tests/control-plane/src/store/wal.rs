//! The write-ahead log: its records and its file.
//!
//! File: 8 bytes of magic, then records `length u32 | CRC-32 u32 | payload`, integers little-endian.
//! Payload: `revision u64 | operation u8 | create revision u64`, then resource, namespace, name and
//! body, each as `length u32 | bytes`.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use bytes::Bytes;

use super::{Key, StoreError, Stored};

pub(crate) const LOG_MAGIC: &[u8; 8] = b"TOWLWAL1";

/// Largest payload read back; above it the length field is damage.
const MAX_PAYLOAD: usize = 64 << 20;

/// One committed write.
#[derive(Debug)]
pub(crate) struct Operation {
    pub(crate) deleted: bool,
    pub(crate) object: Arc<Stored>,
}

/// The log being appended to.
#[derive(Debug)]
pub(crate) struct Log {
    file: File,
    path: PathBuf,
    size: u64,
    sync: bool,
    /// Held so that no second process opens the directory.
    lock: Option<File>,
}

impl Log {
    /// Starts an empty log file.
    pub(crate) fn create(path: PathBuf, sync: bool) -> Result<Self, StoreError> {
        let fail = |action, cause| StoreError::Io {
            action,
            path: path.clone(),
            cause,
        };
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .map_err(|cause| fail("create", cause))?;
        file.write_all(LOG_MAGIC)
            .map_err(|cause| fail("write", cause))?;
        file.sync_all().map_err(|cause| fail("sync", cause))?;
        Ok(Self {
            file,
            path,
            size: LOG_MAGIC.len() as u64,
            sync,
            lock: None,
        })
    }

    /// Continues a log file after its last whole record at `size`, cutting off what follows.
    pub(crate) fn resume(path: PathBuf, size: u64, sync: bool) -> Result<Self, StoreError> {
        use std::io::Seek;
        let fail = |action, cause| StoreError::Io {
            action,
            path: path.clone(),
            cause,
        };
        let mut file = OpenOptions::new()
            .write(true)
            .open(&path)
            .map_err(|cause| fail("open", cause))?;
        file.set_len(size).map_err(|cause| fail("cut", cause))?;
        file.seek(io::SeekFrom::End(0))
            .map_err(|cause| fail("seek in", cause))?;
        file.sync_all().map_err(|cause| fail("sync", cause))?;
        Ok(Self {
            file,
            path,
            size,
            sync,
            lock: None,
        })
    }

    /// Continues in a new, empty file.
    pub(crate) fn rotate(&mut self, path: PathBuf) -> Result<(), StoreError> {
        let next = Self::create(path, self.sync)?;
        *self = Self {
            lock: self.lock.take(),
            ..next
        };
        Ok(())
    }

    /// Takes the directory's lock into custody for as long as this log lives.
    pub(crate) fn hold(mut self, lock: File) -> Self {
        self.lock = Some(lock);
        self
    }

    /// Bytes in the file.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Appends a batch and makes it durable.
    pub(crate) fn append(&mut self, operations: &[Operation]) -> Result<(), StoreError> {
        if operations.is_empty() {
            return Ok(());
        }
        let mut buffer = Vec::new();
        for operation in operations {
            encode(&mut buffer, operation.deleted, &operation.object);
        }
        let mut write = || {
            self.file.write_all(&buffer)?;
            if self.sync {
                self.file.sync_data()
            } else {
                Ok(())
            }
        };
        write().map_err(|cause| StoreError::Io {
            action: "append to",
            path: self.path.clone(),
            cause,
        })?;
        self.size += buffer.len() as u64;
        Ok(())
    }
}

/// Appends one record to `buffer`.
pub(crate) fn encode(buffer: &mut Vec<u8>, deleted: bool, object: &Stored) {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; 8]);
    buffer.extend_from_slice(&object.revision.to_le_bytes());
    buffer.push(u8::from(deleted));
    buffer.extend_from_slice(&object.create_revision.to_le_bytes());
    let name = &object.key.object;
    for part in [
        object.key.resource.as_bytes(),
        name.namespace.as_bytes(),
        name.name.as_bytes(),
        &object.body,
    ] {
        buffer.extend_from_slice(&length(part.len()).to_le_bytes());
        buffer.extend_from_slice(part);
    }
    let payload = start + 8;
    let size = length(buffer.len() - payload).to_le_bytes();
    let sum = crc32(&buffer[payload..]).to_le_bytes();
    buffer[start..start + 4].copy_from_slice(&size);
    buffer[start + 4..payload].copy_from_slice(&sum);
}

/// Request bodies are limited to a few MiB, so no length is near this bound.
fn length(size: usize) -> u32 {
    u32::try_from(size).unwrap_or(u32::MAX)
}

/// A record read back.
pub(crate) struct Record {
    pub(crate) revision: u64,
    pub(crate) deleted: bool,
    pub(crate) create_revision: u64,
    pub(crate) key: Key,
    pub(crate) body: Bytes,
}

/// Reads the records of a file that begins with `magic`.
pub(crate) struct Records {
    bytes: Bytes,
    offset: usize,
}

/// How reading a file ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Exactly after a record.
    Clean,
    /// In the middle of a record, or at one whose checksum is wrong.
    Torn(&'static str),
}

impl Records {
    pub(crate) fn open(path: &Path, magic: &[u8; 8]) -> Result<Self, StoreError> {
        let bytes = std::fs::read(path).map_err(|cause| StoreError::Io {
            action: "read",
            path: path.to_owned(),
            cause,
        })?;
        if !bytes.starts_with(magic) {
            return Err(StoreError::Damaged {
                path: path.to_owned(),
                offset: 0,
                reason: "it does not begin with the magic bytes",
            });
        }
        Ok(Self {
            bytes: bytes.into(),
            offset: magic.len(),
        })
    }

    /// Offset of the next record.
    pub(crate) fn offset(&self) -> u64 {
        self.offset as u64
    }

    /// The next record, or how the file ends.
    pub(crate) fn next(&mut self) -> Result<Record, End> {
        let rest = &self.bytes[self.offset..];
        if rest.is_empty() {
            return Err(End::Clean);
        }
        let (Some(size), Some(sum)) = (u32_at(rest, 0), u32_at(rest, 4)) else {
            return Err(End::Torn("the record's head is cut"));
        };
        let size = size as usize;
        if size > MAX_PAYLOAD || rest.len() - 8 < size {
            return Err(End::Torn("the record is cut"));
        }
        let start = self.offset + 8;
        let payload = self.bytes.slice(start..start + size);
        if crc32(&payload) != sum {
            return Err(End::Torn("the record's checksum is wrong"));
        }
        let record = decode(&payload).ok_or(End::Torn("the record's fields do not fit"))?;
        self.offset = start + size;
        Ok(record)
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

fn decode(payload: &Bytes) -> Option<Record> {
    let revision = u64_at(payload, 0)?;
    let deleted = *payload.get(8)? != 0;
    let create_revision = u64_at(payload, 9)?;
    let mut at = 17;
    let mut part = || {
        let size = u32_at(payload, at)? as usize;
        let start = at + 4;
        at = start.checked_add(size)?;
        (at <= payload.len()).then(|| payload.slice(start..at))
    };
    let (resource, namespace, name, body) = (part()?, part()?, part()?, part()?);
    let resource: Arc<str> = std::str::from_utf8(&resource).ok()?.into();
    let namespace = std::str::from_utf8(&namespace).ok()?;
    let name = std::str::from_utf8(&name).ok()?;
    let key = Key::new(&resource, namespace, name);
    Some(Record {
        revision,
        deleted,
        create_revision,
        key,
        body,
    })
}

/// CRC-32 (IEEE 802.3, reflected).
fn crc32(bytes: &[u8]) -> u32 {
    static TABLE: LazyLock<[u32; 256]> = LazyLock::new(|| {
        std::array::from_fn(|index| {
            let index = u32::try_from(index).unwrap_or_default();
            (0..8).fold(index, |sum, _| {
                if sum & 1 == 1 {
                    (sum >> 1) ^ 0xEDB8_8320
                } else {
                    sum >> 1
                }
            })
        })
    });
    !bytes.iter().fold(!0, |sum: u32, byte| {
        (sum >> 8) ^ TABLE[((sum ^ u32::from(*byte)) & 0xFF) as usize]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_of_the_check_string() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }
}
