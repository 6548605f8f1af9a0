//! A lab node's view of the file system: the machine's own, with private /run, /tmp, /etc/cni, /var/lib,
//! /opt, sysfs, bpffs and cgroup folder on top. Nothing is written to the machine.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::cgroup::Cgroup;
use crate::layout::{Artefacts, Layout, NodeId};
use crate::namespace::{self, Namespace, bind, fd_path, none, tmpfs};

/// Folder of Towline's programs as a node sees it.
pub const BIN_DIR: &str = "/opt/towline/bin";
/// Folder of the CNI plugins as a node sees it.
pub const CNI_BIN_DIR: &str = "/opt/cni/bin";
/// Folder of the CNI configuration as a node sees it.
pub const CNI_CONF_DIR: &str = "/etc/cni/net.d";
/// Kubeconfig as a node sees it.
pub const KUBECONFIG: &str = "/etc/kubernetes/kubeconfig";
/// flannel's network configuration as a node sees it.
pub const NET_CONF: &str = "/etc/kube-flannel/net-conf.json";
/// The node's own cgroup as a node sees it.
pub const CGROUP: &str = "/sys/fs/cgroup";

/// Creates the node's mount namespace (its network namespace must exist) and its cgroup.
///
/// # Errors
/// When a mount is refused; names it.
pub fn create_view(
    layout: &Layout,
    artefacts: &Artefacts,
    node: NodeId,
    cgroup: &Cgroup,
) -> Result<()> {
    cgroup.create()?;
    let netns = Namespace::net(&layout.netns(&node.name()))?;
    namespace::create_mntns(&layout.mntns(&node.name()), &netns, || {
        build(layout, artefacts, cgroup).with_context(|| format!("file system of {}", node.name()))
    })
}

/// Runs `work` in the node's namespaces.
///
/// # Errors
/// When they cannot be entered or `work` fails.
pub fn run_in<T: Send>(
    layout: &Layout,
    node: NodeId,
    work: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    let net = Namespace::net(&layout.netns(&node.name()))?;
    let mnt = Namespace::mnt(&layout.mntns(&node.name()))?;
    namespace::run_in(&[&net, &mnt], work)
}

fn build(layout: &Layout, artefacts: &Artefacts, cgroup: &Cgroup) -> Result<()> {
    let open = |path: &Path| File::open(path).with_context(|| format!("open {}", path.display()));
    let bin = open(&artefacts.bin_dir())?;
    let cni = open(&artefacts.cni_dir())?;
    let cgroup = open(cgroup.path())?;
    // A copy of the state folder here would keep the other nodes' namespaces alive.
    umount2(layout.root(), MntFlags::MNT_DETACH).context("let go of the lab's state folder")?;

    tmpfs(Path::new("/run"), "0755")?;
    tmpfs(Path::new("/tmp"), "1777")?;
    mount_kind("sysfs", "/sys")?;
    mount_kind("bpf", "/sys/fs/bpf")?;
    bind(&fd_path(&cgroup), Path::new(CGROUP))?;

    overlay_dir(
        Path::new("/etc"),
        &["cni", "kubernetes", "kube-flannel", "towline"],
    )?;
    overlay_dir(Path::new("/var/lib"), &["cni", "node-agent"])?;
    overlay_dir(Path::new("/opt"), &["cni", "towline"])?;
    for dir in [
        BIN_DIR,
        CNI_BIN_DIR,
        CNI_CONF_DIR,
        "/var/lib/cni/networks",
        "/run/netns",
    ] {
        fs::create_dir_all(dir).with_context(|| format!("create {dir}"))?;
    }
    bind(&fd_path(&bin), Path::new(BIN_DIR))?;
    bind(&fd_path(&cni), Path::new(CNI_BIN_DIR))
}

fn mount_kind(kind: &str, target: &str) -> Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some(kind), target, Some(kind), flags, none())
        .with_context(|| format!("mount {kind} on {target} (does the kernel have it?)"))
}

/// Puts a private folder over `dir` that shows what was there, save `own`, which start out empty.
///
/// It is a tmpfs of symbolic links into the covered folder, so the machine needs no overlayfs and no
/// mount points are left in its own file system.
fn overlay_dir(dir: &Path, own: &[&str]) -> Result<()> {
    let covered = File::open(dir).with_context(|| format!("open {}", dir.display()))?;
    tmpfs(dir, "0755")?;
    let host = dir.join(".host");
    fs::create_dir(&host).with_context(|| format!("create {}", host.display()))?;
    bind(&fd_path(&covered), &host)?;
    for entry in fs::read_dir(&host).with_context(|| format!("list {}", host.display()))? {
        let entry = entry.with_context(|| format!("list {}", host.display()))?;
        let name = entry.file_name();
        if own.iter().any(|own| name == *own) {
            continue;
        }
        // A relative link keeps its meaning only from where it stood.
        let target = match fs::read_link(entry.path()) {
            Ok(target) => target,
            Err(_) => Path::new(".host").join(&name),
        };
        symlink(&target, dir.join(&name))
            .with_context(|| format!("link {} in {}", name.display(), dir.display()))?;
    }
    for name in own {
        fs::create_dir(dir.join(name))
            .with_context(|| format!("create {name} in {}", dir.display()))?;
    }
    Ok(())
}
