//! What the machine must offer, asked before anything is changed.

use std::{
    ffi::CString,
    io, mem,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use crate::Error;

const BPF_FS_MAGIC: i64 = 0xcafe_4a11;
const CGROUP2_MAGIC: i64 = 0x6367_7270;
const SO_NETNS_COOKIE: i32 = 71;

/// Says by name what is missing for the data path: privileges, BTF, or a BPF file system under `bpf_root`.
///
/// # Errors
/// [`Error::NotPermitted`], [`Error::NoBtf`], [`Error::NoBpffs`].
pub fn preflight(bpf_root: &Path) -> Result<(), Error> {
    // SAFETY: a system call without arguments.
    if unsafe { libc::geteuid() } != 0 {
        return Err(Error::NotPermitted);
    }
    if aya::features().btf().is_none() {
        return Err(Error::NoBtf);
    }
    let existing = bpf_root
        .ancestors()
        .find(|path| path.exists())
        .unwrap_or(Path::new("/"));
    if file_system(existing)? != BPF_FS_MAGIC {
        return Err(Error::NoBpffs {
            path: mount_point(bpf_root),
        });
    }
    Ok(())
}

/// Where a BPF file system would have to be mounted: the conventional place if it contains the path.
fn mount_point(bpf_root: &Path) -> PathBuf {
    let conventional = Path::new("/sys/fs/bpf");
    let inside = bpf_root.starts_with(conventional);
    if inside {
        conventional.to_owned()
    } else {
        bpf_root.to_owned()
    }
}

/// Inode number of a cgroup v2 directory, which is the cgroup's id.
pub(crate) fn cgroup_id(path: &Path) -> Result<u64, Error> {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(path).map_err(Error::io("opening cgroup", path))?;
    if !metadata.is_dir() || file_system(path)? != CGROUP2_MAGIC {
        return Err(Error::NotCgroup2 {
            path: path.to_owned(),
        });
    }
    Ok(metadata.ino())
}

fn file_system(path: &Path) -> Result<i64, Error> {
    let failed = Error::io("looking at the file system of", path);
    let name = match CString::new(path.as_os_str().as_bytes()) {
        Ok(name) => name,
        Err(e) => return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, e))),
    };
    // SAFETY: all-zero bytes are a valid `statfs`.
    let mut stat: libc::statfs = unsafe { mem::zeroed() };
    // SAFETY: the name ends with a zero byte and the buffer is a `statfs`.
    if unsafe { libc::statfs(name.as_ptr(), &raw mut stat) } != 0 {
        return Err(failed(io::Error::last_os_error()));
    }
    Ok(stat.f_type)
}

/// `SO_NETNS_COOKIE` of the calling thread's network namespace: [`ebpf_shared::maps::Config::node_netns`].
///
/// # Errors
/// When no socket can be made or the kernel is older than 5.14.
pub fn netns_cookie() -> io::Result<u64> {
    let socket = std::net::UdpSocket::bind((std::net::Ipv4Addr::UNSPECIFIED, 0))?;
    let mut cookie = 0u64;
    let mut len = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the option is a u64 and `len` says so.
    let result = unsafe {
        libc::getsockopt(
            std::os::fd::AsRawFd::as_raw_fd(&socket),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut len,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(cookie)
    }
}

/// Nanoseconds of the monotonic clock: the clock of every timestamp in the maps.
pub fn monotonic_ns() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the buffer is a `timespec`; this clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
