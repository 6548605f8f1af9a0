//! A whole lab cluster: made, opened by later commands, and removed without a trace.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::Signal;
use nix::unistd::Uid;

use crate::cgroup::Cgroup;
use crate::enter::Place;
use crate::layout::{Artefacts, ClusterName, Layout, NodeId, STATE_ROOT};
use crate::namespace::{none, tmpfs};
use crate::overlay::Overlay;
use crate::process::{self, Process};
use crate::state::State;
use crate::{node, wire};

/// How a cluster is to be made.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Name of the cluster.
    #[arg(long, default_value = "lab")]
    pub name: ClusterName,
    /// Number of nodes.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub nodes: u8,
    /// MTU of the underlay, in bytes.
    #[arg(long, default_value_t = 1500, value_parser = clap::value_parser!(u16).range(1280..=9000))]
    pub mtu: u16,
    /// The overlay network.
    #[command(flatten)]
    pub overlay: Overlay,
}

/// A running cluster.
#[derive(Debug, Clone)]
pub struct Cluster {
    layout: Layout,
    artefacts: Artefacts,
    state: State,
}

impl Cluster {
    /// Makes the namespaces, wires, file systems and cgroups of a cluster; starts nothing.
    ///
    /// # Errors
    /// When one of this name is already up, or anything cannot be made. What was made stays: call
    /// [`remove`].
    pub fn create(options: &Options) -> Result<Self> {
        need_root()?;
        let artefacts = Artefacts::find()?;
        let layout = Layout::new(&options.name);
        let root = Cgroup::v2_root()?.join(layout.cgroup_name());
        let cgroup = Cgroup::at(root);
        if layout.root().exists() || cgroup.path().exists() {
            let name = &options.name;
            bail!(
                "lab {name} is already up: `lab down --name {name}` first, or choose another --name"
            );
        }
        mount_state(&layout)?;
        cgroup.create()?;
        let nodes = (1..=options.nodes).map(NodeId).collect::<Vec<_>>();
        let state = State {
            nodes,
            mtu: options.mtu,
            overlay: options.overlay,
            cgroup: cgroup.path().to_owned(),
            out: artefacts.bin_dir(),
            processes: Default::default(),
        };
        state.save(&layout)?;
        let cluster = Self {
            layout,
            artefacts,
            state,
        };
        wire::create_underlay(&cluster.layout, options.mtu)?;
        for node in &cluster.state.nodes {
            wire::create_node(&cluster.layout, *node, options.mtu)?;
            let cgroup = cluster.node_cgroup(*node);
            node::create_view(&cluster.layout, &cluster.artefacts, *node, &cgroup)?;
        }
        Ok(cluster)
    }

    /// Opens a cluster that is up.
    ///
    /// # Errors
    /// When it is not up.
    pub fn open(name: &ClusterName) -> Result<Self> {
        need_root()?;
        let layout = Layout::new(name);
        let state = State::load(&layout)?;
        let out = state
            .out
            .parent()
            .context("the state names no built tree")?;
        Ok(Self {
            layout,
            artefacts: Artefacts::at(out)?,
            state,
        })
    }

    /// Where things are.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// What is recorded.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The nodes, in order.
    pub fn nodes(&self) -> &[NodeId] {
        &self.state.nodes
    }

    /// The node called `name`.
    ///
    /// # Errors
    /// When there is none; lists those there are.
    pub fn node(&self, name: &str) -> Result<NodeId> {
        match self.nodes().iter().find(|node| node.name() == name) {
            Some(node) => Ok(*node),
            None => {
                let names = self
                    .nodes()
                    .iter()
                    .map(|node| node.name())
                    .collect::<Vec<_>>();
                bail!("no node {name:?}: there are {}", names.join(", "))
            }
        }
    }

    /// The cgroup that holds everything of the cluster.
    pub fn cgroup(&self) -> Cgroup {
        Cgroup::at(&self.state.cgroup)
    }

    /// The cgroup of one node.
    pub fn node_cgroup(&self, node: NodeId) -> Cgroup {
        self.cgroup().child(&node.name())
    }

    /// Path of the node-agent executable in the machine's file system.
    pub fn agent(&self) -> std::path::PathBuf {
        self.artefacts.bin("node-agent")
    }

    /// A program of the built tree.
    pub fn program(&self, name: &str) -> std::path::PathBuf {
        self.artefacts.bin(name)
    }

    /// The place of a node's host processes.
    pub fn node_place(&self, node: NodeId) -> Place {
        Place {
            net: Some(self.layout.netns(&node.name())),
            mnt: Some(self.layout.mntns(&node.name())),
            cgroup: Some(self.node_cgroup(node).child("system").path().to_owned()),
            ..Place::default()
        }
    }

    /// The place of a process on the outside host.
    pub fn outside_place(&self) -> Place {
        Place {
            net: Some(self.layout.netns(wire::OUTSIDE)),
            cgroup: Some(self.cgroup().child(wire::OUTSIDE).path().to_owned()),
            ..Place::default()
        }
    }

    /// A command line that runs what is appended to it at `place`.
    ///
    /// # Errors
    /// When the place's cgroup cannot be made.
    pub fn command(&self, place: &Place) -> Result<Command> {
        if let Some(cgroup) = &place.cgroup {
            Cgroup::at(cgroup).create()?;
        }
        Ok(place.command(&self.agent()))
    }

    /// Starts a daemon called `owner/name` at `place` and records it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(
        &mut self,
        owner: &str,
        name: &str,
        place: &Place,
        argv: &[&OsStr],
    ) -> Result<Process> {
        let place = Place {
            setsid: true,
            ..place.clone()
        };
        let mut command = self.command(&place)?;
        command.args(argv);
        let process = process::spawn_logged(&mut command, &self.layout.log(owner, name))?;
        self.state
            .processes
            .insert(format!("{owner}/{name}"), process.clone());
        self.state.save(&self.layout)?;
        Ok(process)
    }

    /// A recorded daemon.
    ///
    /// # Errors
    /// When none of this name was started.
    pub fn process(&self, owner: &str, name: &str) -> Result<&Process> {
        let key = format!("{owner}/{name}");
        self.state
            .processes
            .get(&key)
            .with_context(|| format!("{key} was never started"))
    }
}

/// Removes a cluster and all it left, whether it is up, half made, or its maker was killed.
/// Says whether there was anything.
///
/// # Errors
/// When something resists; names it.
pub fn remove(name: &ClusterName) -> Result<bool> {
    need_root()?;
    let layout = Layout::new(name);
    let cgroup = Cgroup::at(Cgroup::v2_root()?.join(layout.cgroup_name()));
    let found = layout.root().exists() || cgroup.path().exists();
    cgroup.kill()?;
    // Everything runs in the cgroup; a recorded process that was moved out of it is ended by name.
    if let Ok(state) = State::load(&layout) {
        for process in state.processes.values() {
            process.end(Signal::SIGKILL, Duration::from_secs(5))?;
        }
    }
    // Unmounting lets go of the namespaces, and with them of links, tmpfs and bpffs pins.
    unmount_state(&layout)?;
    cgroup.destroy()?;
    Ok(found)
}

fn need_root() -> Result<()> {
    if !Uid::effective().is_root() {
        bail!("the lab makes network namespaces: run it as root");
    }
    Ok(())
}

fn mount_state(layout: &Layout) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(layout.root())
        .with_context(|| format!("create {}", layout.root().display()))?;
    tmpfs(layout.root(), "0700")?;
    // Namespaces can only be bound where mounts do not propagate.
    mount(none(), layout.root(), none(), MsFlags::MS_PRIVATE, none())
        .context("make the state folder private")?;
    for dir in ["netns", "mntns", "logs"] {
        let dir = layout.root().join(dir);
        fs::create_dir(&dir).with_context(|| format!("create {}", dir.display()))?;
    }
    Ok(())
}

fn unmount_state(layout: &Layout) -> Result<()> {
    if !layout.root().exists() {
        return Ok(());
    }
    loop {
        match umount2(layout.root(), MntFlags::MNT_DETACH) {
            Ok(()) => {}
            Err(Errno::EINVAL) => break,
            Err(error) => {
                return Err(error).with_context(|| format!("unmount {}", layout.root().display()));
            }
        }
    }
    fs::remove_dir(layout.root()).with_context(|| format!("remove {}", layout.root().display()))?;
    // The parent goes with the last cluster; another one's presence is no error.
    match fs::remove_dir(Path::new(STATE_ROOT)) {
        Err(error) if error.kind() != std::io::ErrorKind::DirectoryNotEmpty => {
            Err(error).with_context(|| format!("remove {STATE_ROOT}"))
        }
        _ => Ok(()),
    }
}
