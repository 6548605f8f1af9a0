//! The bpf(2) commands that aya has no typed access to, or only one entry at a time.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

const MAP_LOOKUP_ELEM: i64 = 1;
const MAP_UPDATE_ELEM: i64 = 2;
const MAP_DELETE_ELEM: i64 = 3;
const OBJ_GET: i64 = 7;
const OBJ_GET_INFO_BY_FD: i64 = 15;
const MAP_LOOKUP_BATCH: i64 = 24;
const LINK_UPDATE: i64 = 29;

fn bpf<T>(command: i64, attributes: &mut T) -> io::Result<i64> {
    // SAFETY: `attributes` is a zero-padded `union bpf_attr` prefix of the given size whose pointers
    // are valid for the sizes that the command uses; every caller below upholds that.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attributes),
            size_of::<T>(),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// For commands whose result is only success.
fn call<T>(command: i64, attributes: &mut T) -> io::Result<()> {
    bpf(command, attributes).map(drop)
}

#[repr(C)]
struct Element {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

fn element(fd: BorrowedFd<'_>, key: *const u8, value: *const u8) -> Element {
    Element {
        map_fd: fd.as_raw_fd() as u32,
        pad: 0,
        key: key as u64,
        value: value as u64,
        flags: 0,
    }
}

/// Reads the value under `key` into `value`, whose length must be the map's value size.
pub(crate) fn lookup(fd: BorrowedFd<'_>, key: &[u8], value: &mut [u8]) -> io::Result<()> {
    call(
        MAP_LOOKUP_ELEM,
        &mut element(fd, key.as_ptr(), value.as_mut_ptr()),
    )
}

/// Writes `value` under `key`; both must have the map's sizes.
pub(crate) fn update(fd: BorrowedFd<'_>, key: &[u8], value: &[u8]) -> io::Result<()> {
    call(
        MAP_UPDATE_ELEM,
        &mut element(fd, key.as_ptr(), value.as_ptr()),
    )
}

/// Removes `key`.
pub(crate) fn delete(fd: BorrowedFd<'_>, key: &[u8]) -> io::Result<()> {
    call(
        MAP_DELETE_ELEM,
        &mut element(fd, key.as_ptr(), std::ptr::null()),
    )
}

#[repr(C)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Calls `entry` with the bytes of every key and value.
///
/// Entries that change meanwhile may be seen in either state, entries that come or go may be missed;
/// an entry may be seen twice.
pub(crate) fn for_each(
    fd: BorrowedFd<'_>,
    key_size: usize,
    value_size: usize,
    mut entry: impl FnMut(&[u8], &[u8]),
) -> io::Result<()> {
    let mut capacity = 4096usize;
    let (mut keys, mut values) = (
        vec![0u8; capacity * key_size],
        vec![0u8; capacity * value_size],
    );
    // The cursor is opaque: a bucket number or a key.
    let (mut cursor, mut next) = (vec![0u8; key_size.max(8)], vec![0u8; key_size.max(8)]);
    let mut first = true;
    loop {
        let mut batch = Batch {
            in_batch: if first { 0 } else { cursor.as_ptr() as u64 },
            out_batch: next.as_mut_ptr() as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: capacity as u32,
            map_fd: fd.as_raw_fd() as u32,
            elem_flags: 0,
            flags: 0,
        };
        let result = bpf(MAP_LOOKUP_BATCH, &mut batch);
        let done = match result {
            Ok(_) => false,
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => true,
            Err(e) if e.raw_os_error() == Some(libc::ENOSPC) => {
                // One bucket holds more than the buffer: nothing was copied of it.
                capacity *= 2;
                keys.resize(capacity * key_size, 0);
                values.resize(capacity * value_size, 0);
                continue;
            }
            Err(e) => return Err(e),
        };
        let pairs = keys
            .chunks_exact(key_size)
            .zip(values.chunks_exact(value_size));
        for (key, value) in pairs.take(batch.count as usize) {
            entry(key, value);
        }
        if done {
            return Ok(());
        }
        first = false;
        std::mem::swap(&mut cursor, &mut next);
    }
}

#[repr(C)]
struct LinkUpdate {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32,
}

/// Replaces a link's program in place.
pub(crate) fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let (link_fd, new_prog_fd) = (link.as_raw_fd() as u32, program.as_raw_fd() as u32);
    call(
        LINK_UPDATE,
        &mut LinkUpdate {
            link_fd,
            new_prog_fd,
            flags: 0,
            old_prog_fd: 0,
        },
    )
}

/// What the kernel says about a cgroup link (`struct bpf_link_info`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CgroupLinkInfo {
    kind: u32,
    id: u32,
    /// Program that the link runs.
    pub(crate) program: u32,
    pad: u32,
    /// Inode number of the cgroup directory; 0 when the cgroup is gone.
    pub(crate) cgroup: u64,
    attach_type: u32,
    pad2: [u32; 9],
}

#[repr(C)]
struct Pin {
    path: u64,
    fd: u32,
    flags: u32,
}

/// Opens what is pinned at `path`.
pub(crate) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let fd = bpf(
        OBJ_GET,
        &mut Pin {
            path: path.as_ptr() as u64,
            fd: 0,
            flags: 0,
        },
    )?;
    // SAFETY: the descriptor was just opened and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

#[repr(C)]
struct ObjectInfo {
    fd: u32,
    len: u32,
    info: u64,
}

/// Reads a cgroup link's information.
pub(crate) fn cgroup_link(link: impl AsFd) -> io::Result<CgroupLinkInfo> {
    let mut info = CgroupLinkInfo::default();
    bpf(
        OBJ_GET_INFO_BY_FD,
        &mut ObjectInfo {
            fd: link.as_fd().as_raw_fd() as u32,
            len: size_of::<CgroupLinkInfo>() as u32,
            info: std::ptr::from_mut(&mut info) as u64,
        },
    )?;
    Ok(info)
}
