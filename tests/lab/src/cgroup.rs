//! The lab's cgroup v2 subtree: everything the lab runs lives in it, so it can be ended and removed as one.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::wait;

/// Longest that killed processes may take to end.
const LIMIT: Duration = Duration::from_secs(10);

/// A cgroup v2 folder.
#[derive(Debug, Clone)]
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// Mount point of cgroup v2: the unified one of a hybrid host, else the only one.
    ///
    /// # Errors
    /// When no cgroup v2 is mounted.
    pub fn v2_root() -> Result<PathBuf> {
        let mounts = fs::read_to_string("/proc/self/mounts").context("read /proc/self/mounts")?;
        match root_in(&mounts) {
            Some(root) => Ok(root),
            None => bail!(
                "no cgroup v2 is mounted: mount one (`mount -t cgroup2 none /sys/fs/cgroup`) or boot with systemd.unified_cgroup_hierarchy=1"
            ),
        }
    }

    /// The cgroup at `path`, which need not exist.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A child, which need not exist. `name` must be one path component.
    pub fn child(&self, name: &str) -> Self {
        Self(self.0.join(name))
    }

    /// Creates it, with its parents.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn create(&self) -> Result<()> {
        fs::create_dir_all(&self.0).with_context(|| format!("create cgroup {}", self.0.display()))
    }

    /// Moves the calling process in.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn join(&self) -> Result<()> {
        fs::write(self.0.join("cgroup.procs"), "0")
            .with_context(|| format!("join cgroup {}", self.0.display()))
    }

    /// Process ids in it and below. A missing cgroup has none.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn processes(&self) -> Result<Vec<i32>> {
        let mut pids = Vec::new();
        for dir in self.subtree()? {
            match fs::read_to_string(dir.join("cgroup.procs")) {
                Ok(text) => pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok())),
                Err(error) if gone(&error) => {}
                Err(error) => return Err(error).with_context(|| format!("read {}", dir.display())),
            }
        }
        Ok(pids)
    }

    /// Ends every process in the subtree and removes it. A missing cgroup is fine.
    ///
    /// # Errors
    /// When something does not end within ten seconds.
    pub fn destroy(&self) -> Result<()> {
        wait::until("the cgroup can be removed", LIMIT, || {
            self.kill()?;
            for dir in self.subtree()? {
                match fs::remove_dir(&dir) {
                    // A process that was on its way in when the others were ended.
                    Err(error) if error.kind() == ErrorKind::ResourceBusy => {
                        return Ok(Err(format!("{} is in use", dir.display())));
                    }
                    Err(error) if !gone(&error) => {
                        return Err(error)
                            .with_context(|| format!("remove cgroup {}", dir.display()));
                    }
                    _ => {}
                }
            }
            Ok(Ok(()))
        })
    }

    /// Ends every process in the subtree with SIGKILL and waits until none is left.
    ///
    /// # Errors
    /// When something does not end within ten seconds.
    pub fn kill(&self) -> Result<()> {
        if !self.0.is_dir() {
            return Ok(());
        }
        wait::until("the lab's processes end", LIMIT, || {
            // Each time, for those that joined after the last one.
            match fs::write(self.0.join("cgroup.kill"), "1") {
                Err(error) if !gone(&error) => {
                    return Err(error).with_context(|| format!("kill cgroup {}", self.0.display()));
                }
                _ => {}
            }
            let left = self.processes()?;
            Ok(if left.is_empty() {
                Ok(())
            } else {
                Err(format!("still running: {left:?}"))
            })
        })
    }

    /// This folder and those below, children first.
    fn subtree(&self) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        collect(&self.0, &mut found)
            .with_context(|| format!("list cgroup {}", self.0.display()))?;
        Ok(found)
    }
}

fn collect(dir: &Path, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if gone(&error) => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), found)?;
        }
    }
    found.push(dir.to_owned());
    Ok(())
}

fn gone(error: &std::io::Error) -> bool {
    error.kind() == ErrorKind::NotFound
        || error.raw_os_error() == Some(nix::errno::Errno::ENODEV as i32)
}

fn root_in(mounts: &str) -> Option<PathBuf> {
    let mut roots = mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ');
            let (_, target, kind) = (fields.next()?, fields.next()?, fields.next()?);
            (kind == "cgroup2" && target.starts_with("/sys/fs/cgroup"))
                .then(|| PathBuf::from(target))
        })
        .collect::<Vec<_>>();
    roots.sort();
    roots.into_iter().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_unified_mount_of_hybrid_and_pure_hosts() {
        let hybrid = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(root_in(hybrid), Some("/sys/fs/cgroup/unified".into()));
        let pure = "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n";
        assert_eq!(root_in(pure), Some("/sys/fs/cgroup".into()));
        assert_eq!(root_in("cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n"), None);
    }
}
