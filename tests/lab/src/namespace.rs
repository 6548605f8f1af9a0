//! Network and mount namespaces held by bind mounts, and running code inside them.
//!
//! A namespace is entered only on a thread made for it: the thread ends with its work, so no other code
//! ever runs in the wrong place. Children spawned there inherit the namespaces.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

/// An opened namespace and its kind.
#[derive(Debug)]
pub struct Namespace {
    file: File,
    kind: CloneFlags,
}

impl Namespace {
    /// Opens a network namespace by path.
    ///
    /// # Errors
    /// When the path cannot be opened.
    pub fn net(path: &Path) -> Result<Self> {
        Self::open(path, CloneFlags::CLONE_NEWNET)
    }

    /// Opens a mount namespace by path.
    ///
    /// # Errors
    /// When the path cannot be opened.
    pub fn mnt(path: &Path) -> Result<Self> {
        Self::open(path, CloneFlags::CLONE_NEWNS)
    }

    /// Opens a namespace of `kind` by path.
    ///
    /// # Errors
    /// When the path cannot be opened.
    pub fn open(path: &Path, kind: CloneFlags) -> Result<Self> {
        let file =
            File::open(path).with_context(|| format!("open namespace {}", path.display()))?;
        Ok(Self { file, kind })
    }

    /// Moves the calling thread in. A mount namespace needs the thread's own file system state first.
    ///
    /// # Errors
    /// When the kernel refuses, most often for lack of privilege.
    pub fn enter(&self) -> Result<()> {
        if self.kind == CloneFlags::CLONE_NEWNS {
            unshare(CloneFlags::CLONE_FS).context("unshare the thread's file system state")?;
        }
        setns(&self.file, self.kind).with_context(|| format!("setns {:?}", self.kind))
    }
}

/// Runs `work` on a fresh thread inside the given namespaces.
///
/// # Errors
/// When a namespace cannot be entered, `work` fails, or it panics.
pub fn run_in<T: Send>(
    namespaces: &[&Namespace],
    work: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    on_thread(|| {
        for namespace in namespaces {
            namespace.enter()?;
        }
        work()
    })
}

/// Runs `work` on a fresh thread, whose namespaces it may change.
///
/// # Errors
/// When `work` fails or panics.
pub fn on_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        scope
            .spawn(work)
            .join()
            .unwrap_or_else(|_| Err(anyhow!("a namespace thread panicked")))
    })
}

/// Makes a new network namespace and binds it to `path`, which is created.
///
/// # Errors
/// When the file cannot be created or the kernel refuses.
pub fn create_netns(path: &Path) -> Result<()> {
    File::create_new(path).with_context(|| format!("create {}", path.display()))?;
    on_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET).context("create a network namespace (root needed)")?;
        bind(Path::new("/proc/thread-self/ns/net"), path)
    })
}

/// Makes a new mount namespace inside the network namespace `net`, runs `build` in it and binds it to
/// `path` as seen from the caller's mount namespace.
///
/// # Errors
/// When `build` fails or the kernel refuses; the namespace is then gone.
pub fn create_mntns(
    path: &Path,
    net: &Namespace,
    build: impl FnOnce() -> Result<()> + Send,
) -> Result<()> {
    File::create_new(path).with_context(|| format!("create {}", path.display()))?;
    on_thread(|| {
        let here = Namespace::mnt(Path::new("/proc/thread-self/ns/mnt"))?;
        net.enter()?;
        unshare(CloneFlags::CLONE_NEWNS).context("create a mount namespace (root needed)")?;
        mount(
            none(),
            "/",
            none(),
            MsFlags::MS_REC | MsFlags::MS_PRIVATE,
            none(),
        )
        .context("make the mounts private")?;
        let made =
            File::open("/proc/thread-self/ns/mnt").context("open the new mount namespace")?;
        build()?;
        here.enter()?;
        bind(&fd_path(&made), path)
    })
}

/// `/proc` path of an open file, for bind mounts of what a later mount hides.
pub(crate) fn fd_path(file: &impl std::os::fd::AsRawFd) -> std::path::PathBuf {
    format!("/proc/thread-self/fd/{}", file.as_raw_fd()).into()
}

/// Binds `source` to `target`, without what is mounted below `source` (or over it).
pub(crate) fn bind(source: &Path, target: &Path) -> Result<()> {
    mount(Some(source), target, none(), MsFlags::MS_BIND, none())
        .with_context(|| format!("bind {} to {}", source.display(), target.display()))
}

/// Mounts a fresh tmpfs; `mode` is octal text.
pub(crate) fn tmpfs(target: &Path, mode: &str) -> Result<()> {
    let data = format!("mode={mode}");
    mount(
        Some("tmpfs"),
        target,
        Some("tmpfs"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        Some(data.as_str()),
    )
    .with_context(|| format!("mount a tmpfs on {}", target.display()))
}

/// No argument, of the type that `mount` wants.
pub(crate) const fn none() -> Option<&'static str> {
    None
}
