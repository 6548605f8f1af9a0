//! Everything of this machine that a lab could leave behind.
//!
//! Labs of other names may run beside the tests: what belongs to them is not looked at.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use lab::cgroup::Cgroup;
use lab::layout::STATE_ROOT;
use lab::wait::until;

/// Names of the clusters that the tests make begin so.
pub const PREFIX: &str = "e2e";

/// What was found, as lines that say what and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot(BTreeSet<String>);

impl Snapshot {
    /// Looks at links, mounts, cgroups, processes, eBPF programs, and the folders where temporary files
    /// and CNI state go.
    ///
    /// # Errors
    /// When something cannot be looked at.
    pub fn take() -> Result<Self> {
        let mut found = BTreeSet::new();
        for link in names("/sys/class/net")? {
            found.insert(format!("link {link}"));
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").context("read mountinfo")?;
        let mounts = mounts.lines().filter_map(mount_point);
        found.extend(
            mounts
                .filter(|mount| ours(mount))
                .map(|mount| format!("mount {mount}")),
        );
        processes(&mut found)?;
        let root = Cgroup::v2_root()?;
        let cgroups = names(&root.display().to_string())?;
        found.extend(
            cgroups
                .iter()
                .filter(|name| ours_by_name(name))
                .map(|c| format!("cgroup {c}")),
        );
        // A program does not tell whose it is: with another lab running there is no saying.
        if !cgroups
            .iter()
            .any(|name| name.starts_with("towline-") && !ours_by_name(name))
        {
            programs(&mut found);
        }
        for dir in [
            "/run",
            STATE_ROOT,
            "/var/lib",
            "/var/lib/cni",
            "/etc",
            "/etc/cni",
            "/opt",
        ] {
            let names = names(dir)?.into_iter().map(|name| format!("{dir}/{name}"));
            found.extend(
                names
                    .filter(|path| ours(path))
                    .map(|path| format!("file {path}")),
            );
        }
        let temporary = names("/tmp")?
            .into_iter()
            .filter(|name| name.starts_with("towline-"));
        found.extend(temporary.map(|name| format!("file /tmp/{name}")));
        Ok(Self(found))
    }

    /// Waits until the machine holds nothing that it did not hold at this snapshot, and no process is in
    /// one of `namespaces`. The kernel frees programs a moment after their last user.
    ///
    /// # Errors
    /// Names what is left after ten seconds.
    pub fn expect_nothing_new(&self, namespaces: &BTreeSet<String>) -> Result<()> {
        until("nothing is left behind", Duration::from_secs(10), || {
            let now = Self::take()?;
            let mut left = now.0.difference(&self.0).cloned().collect::<Vec<_>>();
            left.extend(
                network_namespaces(|_| true)?
                    .intersection(namespaces)
                    .cloned(),
            );
            Ok(if left.is_empty() {
                Ok(())
            } else {
                Err(left.join(", "))
            })
        })
    }
}

/// Network namespaces of the processes in a cluster's cgroup, as `net:[inode]`.
///
/// # Errors
/// When processes cannot be listed.
pub fn namespaces_of(cluster: &str) -> Result<BTreeSet<String>> {
    let marker = format!("/towline-{cluster}/");
    let mut found = network_namespaces(|cgroups| cgroups.contains(&marker))?;
    // The control plane lives in the machine's own.
    let own = fs::read_link("/proc/self/ns/net").context("read the own namespace")?;
    found.remove(&own.display().to_string());
    Ok(found)
}

fn network_namespaces(chosen: impl Fn(&str) -> bool) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for pid in pids()? {
        // A process may end while it is looked at.
        let Ok(cgroups) = fs::read_to_string(format!("/proc/{pid}/cgroup")) else {
            continue;
        };
        let Ok(netns) = fs::read_link(format!("/proc/{pid}/ns/net")) else {
            continue;
        };
        if chosen(&cgroups) {
            found.insert(netns.display().to_string());
        }
    }
    Ok(found)
}

/// Whether a path is no other lab's.
fn ours(path: &str) -> bool {
    match path.strip_prefix(STATE_ROOT) {
        Some("") => false,
        Some(rest) => rest.trim_start_matches('/').starts_with(PREFIX),
        None => true,
    }
}

fn ours_by_name(cgroup: &str) -> bool {
    cgroup
        .strip_prefix("towline-")
        .is_some_and(|name| name.starts_with(PREFIX))
}

fn pids() -> Result<Vec<String>> {
    Ok(names("/proc")?
        .into_iter()
        .filter(|name| name.parse::<u32>().is_ok())
        .collect())
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

/// Processes in a cgroup of ours, or started as part of a node and in none.
fn processes(found: &mut BTreeSet<String>) -> Result<()> {
    for pid in pids()? {
        let Ok(cgroups) = fs::read_to_string(format!("/proc/{pid}/cgroup")) else {
            continue;
        };
        let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        let in_ours = cgroups.contains(&format!("/towline-{PREFIX}"));
        let astray = exe.starts_with("/opt/towline") && !cgroups.contains("/towline-");
        if in_ours || astray {
            found.insert(format!("process {pid} {}", exe.display()));
        }
    }
    Ok(())
}

fn programs(found: &mut BTreeSet<String>) {
    for program in aya::programs::loaded_programs().flatten() {
        // Names are cut to 15 characters by the kernel; other programs of the machine come and go.
        let name = program.name_as_str().unwrap_or_default();
        if name.starts_with("towline") {
            found.insert(format!("eBPF program {} {name}", program.id()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_to_other_labs_is_not_looked_at() {
        assert!(ours("/run/towline-lab/e2e-victim/netns/node1 nsfs"));
        assert!(!ours("/run/towline-lab/lab/netns/node1 nsfs"));
        assert!(!ours("/run/towline-lab"));
        assert!(ours("/run/netns"));
        assert!(ours_by_name("towline-e2e") && !ours_by_name("towline-lab"));
    }

    #[test]
    fn mounts_are_told_by_point_and_type() {
        let line = "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue";
        assert_eq!(mount_point(line).as_deref(), Some("/mnt2 ext3"));
    }
}
