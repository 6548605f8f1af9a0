//! Everything of this machine that a lab could leave behind.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use lab::wait::until;

/// What was found, as lines that say what and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot(BTreeSet<String>);

impl Snapshot {
    /// Looks at links, mounts, network namespaces, cgroups, eBPF programs, processes of the built tree
    /// at `out`, and the folders where temporary files and CNI state go.
    ///
    /// # Errors
    /// When something cannot be looked at.
    pub fn take(out: &Path) -> Result<Self> {
        let mut found = BTreeSet::new();
        for link in names("/sys/class/net")? {
            found.insert(format!("link {link}"));
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").context("read mountinfo")?;
        found.extend(
            mounts
                .lines()
                .filter_map(mount_point)
                .map(|mount| format!("mount {mount}")),
        );
        processes(out, &mut found)?;
        cgroups(&lab::cgroup::Cgroup::v2_root()?, &mut found)?;
        for program in aya::programs::loaded_programs().flatten() {
            let name = program.name_as_str().unwrap_or_default();
            // Names are cut to 15 characters by the kernel; other programs of the machine come and go.
            if name.starts_with("towline") {
                found.insert(format!("eBPF program {} {name}", program.id()));
            }
        }
        for dir in [
            "/run",
            "/run/netns",
            "/run/towline-lab",
            "/var/lib/cni",
            "/etc/cni",
            "/opt",
        ] {
            found.extend(
                names(dir)?
                    .into_iter()
                    .map(|name| format!("file {dir}/{name}")),
            );
        }
        let temporary = names("/tmp")?
            .into_iter()
            .filter(|name| name.contains("towline"));
        found.extend(temporary.map(|name| format!("file /tmp/{name}")));
        Ok(Self(found))
    }

    /// Waits until the machine holds nothing that it did not hold at this snapshot. The kernel frees
    /// namespaces and eBPF programs a moment after their last user.
    ///
    /// # Errors
    /// Names what is left after ten seconds.
    pub fn expect_nothing_new(&self, out: &Path) -> Result<()> {
        until("nothing is left behind", Duration::from_secs(10), || {
            let now = Self::take(out)?;
            let left = now.0.difference(&self.0).cloned().collect::<Vec<_>>();
            Ok(if left.is_empty() {
                Ok(())
            } else {
                Err(left.join(", "))
            })
        })
    }
}

/// Names in a folder; an absent folder has none.
fn names(dir: &str) -> Result<Vec<String>> {
    match fs::read_dir(dir) {
        Ok(entries) => Ok(entries
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("list {dir}")),
    }
}

/// Fields 5 and 9 of a line of mountinfo: where, and the file system's type.
fn mount_point(line: &str) -> Option<String> {
    let point = line.split(' ').nth(4)?;
    let kind = line.split(" - ").nth(1)?.split(' ').next()?;
    Some(format!("{point} {kind}"))
}

/// Processes of the built tree, and network namespaces other than ours that hold any process.
fn processes(out: &Path, found: &mut BTreeSet<String>) -> Result<()> {
    for pid in names("/proc")?
        .into_iter()
        .filter(|name| name.parse::<u32>().is_ok())
    {
        if pid == std::process::id().to_string() {
            continue;
        }
        if let Ok(exe) = fs::read_link(format!("/proc/{pid}/exe"))
            && (exe.starts_with(out) || exe.starts_with("/opt/towline"))
        {
            found.insert(format!("process {pid} {}", exe.display()));
        }
        if let Ok(netns) = fs::read_link(format!("/proc/{pid}/ns/net")) {
            found.insert(format!("netns {}", netns.display()));
        }
    }
    Ok(())
}

fn cgroups(root: &Path, found: &mut BTreeSet<String>) -> Result<()> {
    for entry in fs::read_dir(root)
        .with_context(|| format!("list {}", root.display()))?
        .flatten()
    {
        if entry.path().is_dir() {
            found.insert(format!("cgroup {}", entry.path().display()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_told_by_point_and_type() {
        let line = "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue";
        assert_eq!(mount_point(line).as_deref(), Some("/mnt2 ext3"));
    }
}
