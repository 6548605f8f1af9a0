//! What the machine must offer, said at once and by name.

use std::path::Path;

use nix::sys::statfs::{FsType, statfs};
use nix::sys::utsname::uname;

use crate::config::{Config, Datapath};

/// `BPF_FS_MAGIC` of linux/magic.h.
const BPF_FS: FsType = FsType(0xcafe_4a11);
/// `CGROUP2_SUPER_MAGIC` of linux/magic.h.
const CGROUP2: FsType = FsType(0x6367_7270);
/// The oldest kernel whose verifier and helpers the programs are written for.
const OLDEST_KERNEL: (u32, u32) = (5, 10);

/// Why the daemon cannot run here: every finding, not only the first.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("this machine cannot run towlined: {}", .0.join("; "))]
pub struct Unfit(pub Vec<String>);

/// Checks for everything `config` needs.
///
/// # Errors
/// All findings, each with its remedy.
pub fn check(config: &Config) -> Result<(), Unfit> {
    let mut findings = Vec::new();
    if !nix::unistd::geteuid().is_root() {
        findings.push(
            "not root: run it as root (in Kubernetes: securityContext.privileged)".to_owned(),
        );
    }
    if config.datapath == Datapath::Ebpf {
        findings.extend(ebpf_findings(config));
    }
    if findings.is_empty() {
        Ok(())
    } else {
        Err(Unfit(findings))
    }
}

fn ebpf_findings(config: &Config) -> Vec<String> {
    let mut findings = Vec::new();
    if let Some(finding) = old_kernel() {
        findings.push(finding);
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        findings.push(
            "no kernel BTF (/sys/kernel/btf/vmlinux): use a kernel built with CONFIG_DEBUG_INFO_BTF, or --datapath=none"
                .to_owned(),
        );
    }
    if !lies_on(&config.bpf_root, BPF_FS) {
        findings.push(format!(
            "bpf-root {} is on no bpffs: mount -t bpf bpf /sys/fs/bpf, or name another with --bpf-root",
            config.bpf_root.display()
        ));
    }
    match &config.cgroup_root {
        None => findings.push(
            "no cgroup2 file system is mounted: mount -t cgroup2 none DIR and name it with --cgroup-root".to_owned(),
        ),
        Some(root) if !lies_on(root, CGROUP2) || !root.is_dir() => findings.push(format!(
            "cgroup-root {} is no cgroup v2 folder: name one with --cgroup-root",
            root.display()
        )),
        Some(_) => {}
    }
    findings
}

fn old_kernel() -> Option<String> {
    let name = uname().ok()?;
    let release = name.release().to_str()?.to_owned();
    let version = kernel_version(&release)?;
    (version < OLDEST_KERNEL).then(|| {
        format!(
            "kernel {release} is older than {}.{}: update it, or --datapath=none",
            OLDEST_KERNEL.0, OLDEST_KERNEL.1
        )
    })
}

fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Whether `path`, or its nearest ancestor that exists, is on a file system of type `kind`.
fn lies_on(path: &Path, kind: FsType) -> bool {
    path.ancestors()
        .find(|ancestor| ancestor.exists())
        .and_then(|ancestor| statfs(ancestor).ok())
        .is_some_and(|found| found.filesystem_type() == kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_release_names() {
        assert_eq!(kernel_version("6.18.44"), Some((6, 18)));
        assert_eq!(kernel_version("5.10.0-28-amd64"), Some((5, 10)));
        assert_eq!(kernel_version("linux"), None);
        assert!((5, 4) < OLDEST_KERNEL && (5, 10) >= OLDEST_KERNEL);
    }

    #[test]
    fn proc_is_no_bpffs() {
        assert!(!lies_on(Path::new("/proc/self/none"), BPF_FS));
    }
}
