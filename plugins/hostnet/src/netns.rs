//! Network namespaces: open, enter for a moment, run on a thread of their own, create, delete.

use std::fs::{self, File};
use std::marker::PhantomData;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use netstate::NetnsPath;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};

use crate::error::{Error, Result};

/// Where named namespaces are kept (`ip-netns(8)`).
pub const NETNS_DIR: &str = "/run/netns";
const OWN: &str = "/proc/thread-self/ns/net";

/// An open network namespace. It lives at least as long as this value.
#[derive(Debug)]
pub struct Netns {
    file: File,
    path: PathBuf,
}

// === impl Netns ===

impl Netns {
    /// Opens the namespace at `path`.
    ///
    /// # Errors
    /// When there is nothing, or something that is no namespace (a plain file is what remains of a
    /// namespace after its unmounting), in which case the error [is a "not found"](Error).
    pub fn open(path: &NetnsPath) -> Result<Self> {
        Self::open_path(path.as_path())
    }

    /// The calling thread's namespace.
    ///
    /// # Errors
    /// When `/proc` is not mounted.
    pub fn current() -> Result<Self> {
        Self::open_path(Path::new(OWN))
    }

    /// The namespace of process `pid`.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn of_process(pid: u32) -> Result<Self> {
        Self::open_path(Path::new(&format!("/proc/{pid}/ns/net")))
    }

    fn open_path(path: &Path) -> Result<Self> {
        let shown = path.display().to_string();
        let operation = "open network namespace";
        // A named pipe there, whatever put it there, must not be waited for.
        let mut options = File::options();
        let opened = options.read(true).custom_flags(libc::O_NONBLOCK).open(path);
        let file = opened.map_err(|e| Error::io(operation, &shown, &e))?;
        let kind = fstatfs(&file).map_err(|e| Error::errno(operation, &shown, e))?;
        if kind.filesystem_type() != NSFS_MAGIC {
            let mut error = Error::not_found(operation, shown);
            error.reason = "is not a network namespace".to_owned();
            return Err(error);
        }
        Ok(Self {
            file,
            path: path.to_owned(),
        })
    }

    /// The path it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Device and inode: equal exactly for one and the same namespace.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn identity(&self) -> Result<(u64, u64)> {
        let failed = |e| Error::io("identify network namespace", self.path.display(), &e);
        let metadata = self.file.metadata().map_err(failed)?;
        Ok((metadata.dev(), metadata.ino()))
    }

    /// Whether both are one and the same namespace.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn is_same(&self, other: &Self) -> Result<bool> {
        Ok(self.identity()? == other.identity()?)
    }

    /// Keeps other processes that lock this namespace out until the returned value is dropped.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn lock(&self) -> Result<Flock<File>> {
        let operation = "lock network namespace";
        let shown = self.path.display();
        let file = self
            .file
            .try_clone()
            .map_err(|e| Error::io(operation, shown, &e))?;
        Flock::lock(file, FlockArg::LockExclusive)
            .map_err(|(_, errno)| Error::errno(operation, self.path.display(), errno))
    }

    /// Moves the calling thread into this namespace until the guard is dropped.
    ///
    /// # Errors
    /// When the thread may not or cannot move.
    pub fn enter(&self) -> Result<Inside> {
        let back = Self::current()?;
        self.join()?;
        Ok(Inside {
            back,
            not_send: PhantomData,
        })
    }

    /// Runs `work` in this namespace on a thread of its own, and waits for it.
    ///
    /// # Errors
    /// When the namespace cannot be entered or the thread panics.
    pub fn run_in<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let operation = "run in network namespace";
        std::thread::scope(|scope| {
            let inside = || self.join().map(|()| work());
            let panicked = |_| Error::invalid(operation, self.path.display(), "the work panicked");
            scope.spawn(inside).join().map_err(panicked)?
        })
    }

    fn join(&self) -> Result<()> {
        setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET)
            .map_err(|e| Error::errno("enter network namespace", self.path.display(), e))
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// The calling thread is in another namespace. Dropping this takes it back.
#[derive(Debug)]
pub struct Inside {
    back: Netns,
    /// The namespace belongs to the thread, so the guard must not leave it.
    not_send: PhantomData<*const ()>,
}

impl Drop for Inside {
    fn drop(&mut self) {
        if let Err(error) = self.back.join() {
            // Going on in the wrong namespace would change somebody else's network.
            eprintln!("cannot return to the own network namespace: {error}");
            std::process::abort();
        }
    }
}

/// Creates a network namespace kept by a bind mount at `/run/netns/<name>`.
///
/// # Errors
/// When the name is no plain file name, exists, or the kernel refuses.
pub fn create_named(name: &str) -> Result<Netns> {
    let path = named(name)?;
    let failed = |e| Error::io("create network namespace", name, &e);
    fs::create_dir_all(NETNS_DIR).map_err(failed)?;
    create_at(&path)
}

/// Creates a network namespace kept by a bind mount at `path`, whose folder must exist.
///
/// # Errors
/// When the path exists or the kernel refuses; nothing is left then.
pub fn create_at(path: &Path) -> Result<Netns> {
    let operation = "create network namespace";
    File::create_new(path).map_err(|e| Error::io(operation, path.display(), &e))?;
    let made = std::thread::scope(|scope| {
        let thread = scope.spawn(|| -> nix::Result<()> {
            unshare(CloneFlags::CLONE_NEWNET)?;
            mount(
                Some(OWN),
                path,
                None::<&str>,
                MsFlags::MS_BIND,
                None::<&str>,
            )
        });
        thread.join().unwrap_or(Err(Errno::UnknownErrno))
    });
    match made.map_err(|e| Error::errno(operation, path.display(), e)) {
        Ok(()) => Netns::open_path(path),
        Err(error) => {
            // The file is ours and empty; that it cannot be removed would not be news.
            let _ = fs::remove_file(path);
            Err(error)
        }
    }
}

/// Removes the namespace kept at `/run/netns/<name>`; an absent one is no error.
///
/// # Errors
/// When the name is no plain file name or the kernel refuses.
pub fn delete_named(name: &str) -> Result<()> {
    delete_at(&named(name)?)
}

/// Removes the namespace kept at `path`; an absent one is no error.
///
/// # Errors
/// When the kernel refuses.
pub fn delete_at(path: &Path) -> Result<()> {
    let operation = "delete network namespace";
    match umount2(path, MntFlags::MNT_DETACH) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
        Err(errno) => return Err(Error::errno(operation, path.display(), errno)),
    }
    let removed = fs::remove_file(path).map_err(|e| Error::io(operation, path.display(), &e));
    crate::error::absent_is_fine(removed)
}

fn named(name: &str) -> Result<PathBuf> {
    let plain = !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0']);
    if plain {
        Ok(Path::new(NETNS_DIR).join(name))
    } else {
        Err(Error::invalid(
            "name network namespace",
            name,
            "is not a plain file name",
        ))
    }
}

/// The kernel's cookie of the calling thread's network namespace (`SO_NETNS_COOKIE`): a number that
/// no other namespace has until the next boot, and that eBPF programs see.
///
/// # Errors
/// When the kernel is older than 5.14 or gives no socket.
pub fn cookie() -> Result<u64> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    use std::os::fd::AsRawFd;
    let failed = |errno| Error::errno("read network namespace cookie", OWN, errno);
    let socket = socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .map_err(failed)?;
    let mut value = 0_u64;
    let mut length = libc::socklen_t::try_from(size_of_val(&value)).unwrap_or(8);
    // SAFETY: the descriptor is open for the call; value and length are valid for writing, and the
    // length says how many bytes `value` has.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            std::ptr::from_mut(&mut value).cast(),
            &raw mut length,
        )
    };
    Errno::result(result).map_err(failed)?;
    Ok(value)
}

/// `asm-generic/socket.h`; not in every libc.
const SO_NETNS_COOKIE: libc::c_int = 71;
