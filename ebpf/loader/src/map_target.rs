//! Any typed map as a [`Target`].

use std::{
    collections::BTreeMap,
    io,
    marker::PhantomData,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
    sync::Arc,
};

use aya::{Pod, maps::MapData};
use netstate::target::Target;

use crate::{Error, bpf, layout::Layout};

/// A map with its layout, opened from its pin.
#[derive(Clone, Debug)]
pub(crate) struct RawMap {
    pub(crate) layout: &'static Layout,
    /// Entries that the map was made for.
    pub(crate) capacity: u32,
    data: Arc<MapData>,
}

impl RawMap {
    /// Opens a pin and checks what is behind it.
    pub(crate) fn open(path: &Path, layout: &'static Layout) -> Result<Self, Error> {
        let failed = |source| Error::Map {
            name: layout.name.to_owned(),
            source,
        };
        let data = MapData::from_pin(path).map_err(failed)?;
        let info = data.info().map_err(failed)?;
        let check = |what, found: u32, expected: u32| {
            let name = layout.name.to_owned();
            let fits = found == expected;
            if fits {
                Ok(())
            } else {
                Err(Error::Layout {
                    name,
                    what,
                    found,
                    expected,
                })
            }
        };
        let kind = info.map_type().map_err(failed)? as u32;
        check("type", kind, layout.kind as u32)?;
        check("key size", info.key_size(), layout.key_size)?;
        check("value size", info.value_size(), layout.value_size)?;
        let capacity = info.max_entries();
        Ok(Self {
            layout,
            capacity,
            data: Arc::new(data),
        })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.data.fd().as_fd()
    }

    /// Calls `entry` with every key and value.
    pub(crate) fn for_each(&self, entry: impl FnMut(&[u8], &[u8])) -> Result<(), Error> {
        let (key, value) = (
            self.layout.key_size as usize,
            self.layout.value_size as usize,
        );
        bpf::for_each(self.fd(), key, value, entry)
            .map_err(Error::call("listing", self.layout.name))
    }
}

/// The bytes of a key or value.
fn bytes<T: Pod>(value: &T) -> &[u8] {
    // SAFETY: `Pod` types are plain bytes without padding that could be uninitialised.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast(), size_of::<T>()) }
}

/// Reads a key or value out of bytes; `None` when there are too few.
pub(crate) fn decode<T: Pod>(bytes: &[u8]) -> Option<T> {
    // SAFETY: the length is checked, `Pod` types are valid for every bit pattern, and the read does
    // not ask for alignment.
    (bytes.len() >= size_of::<T>()).then(|| unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

/// A map of keys `K` and values `V`; cheap to clone.
///
/// As a [`Target`] it observes all entries, puts by overwriting, and deletes idempotently.
#[derive(Clone, Debug)]
pub struct MapTarget<K, V> {
    map: RawMap,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K: Pod, V: Pod> MapTarget<K, V> {
    pub(crate) fn new(map: RawMap) -> Self {
        debug_assert_eq!(map.layout.key_size as usize, size_of::<K>());
        debug_assert_eq!(map.layout.value_size as usize, size_of::<V>());
        Self {
            map,
            types: PhantomData,
        }
    }

    /// Map name.
    pub fn name(&self) -> &'static str {
        self.map.layout.name
    }

    /// Entries that fit.
    pub fn capacity(&self) -> u32 {
        self.map.capacity
    }

    /// The value under `key`.
    ///
    /// # Errors
    /// When the system call fails.
    pub fn get(&self, key: &K) -> Result<Option<V>, Error> {
        let mut value = vec![0u8; size_of::<V>()];
        match bpf::lookup(self.map.fd(), bytes(key), &mut value) {
            Ok(()) => Ok(decode(&value)),
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(e) => Err(Error::call("reading", self.name())(e)),
        }
    }

    /// Writes `value` under `key`, whether or not the key is there.
    ///
    /// # Errors
    /// [`Error::Full`] when there is no room; otherwise what the system call says.
    pub fn set(&self, key: &K, value: &V) -> Result<(), Error> {
        bpf::update(self.map.fd(), bytes(key), bytes(value)).map_err(|e| self.refused(e))
    }

    /// Removes `key`; an absent key is no error.
    ///
    /// # Errors
    /// When the system call fails.
    pub fn remove(&self, key: &K) -> Result<(), Error> {
        match bpf::delete(self.map.fd(), bytes(key)) {
            Err(e) if e.raw_os_error() != Some(libc::ENOENT) => {
                Err(Error::call("deleting from", self.name())(e))
            }
            _ => Ok(()),
        }
    }

    /// Calls `entry` with every entry.
    ///
    /// # Errors
    /// When the map cannot be listed.
    pub fn for_each(&self, mut entry: impl FnMut(K, V)) -> Result<(), Error> {
        self.map.for_each(|key, value| {
            if let (Some(key), Some(value)) = (decode(key), decode(value)) {
                entry(key, value);
            }
        })
    }

    fn refused(&self, error: io::Error) -> Error {
        match error.raw_os_error() {
            Some(libc::E2BIG | libc::ENOSPC) => Error::Full {
                name: self.name().to_owned(),
                capacity: self.capacity(),
            },
            _ => Error::call("writing to", self.name())(error),
        }
    }
}

impl<K: Pod + Ord, V: Pod + Eq> Target for MapTarget<K, V> {
    type Key = K;
    type Value = V;
    type Error = Error;

    fn observe(&mut self) -> Result<BTreeMap<K, V>, Error> {
        let mut table = BTreeMap::new();
        self.for_each(|key, value| {
            table.insert(key, value);
        })?;
        Ok(table)
    }

    fn put(&mut self, key: &K, value: &V) -> Result<(), Error> {
        self.set(key, value)
    }

    fn delete(&mut self, key: &K) -> Result<(), Error> {
        self.remove(key)
    }
}
