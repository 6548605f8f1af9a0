//! `node-agent enter`: join namespaces and a cgroup, then become the given program.
//!
//! Doing this in a small process of its own needs no code between fork and exec, and gives every process
//! of the lab its cgroup from its first instruction.

use std::ffi::OsString;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use nix::sched::CloneFlags;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::setsid;
use serde::{Deserialize, Serialize};

use crate::cgroup::Cgroup;
use crate::namespace::Namespace;

/// Where the program is to run. Absent namespaces are inherited.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, clap::Args)]
pub struct Place {
    /// Network namespace.
    #[arg(long)]
    pub net: Option<PathBuf>,
    /// Mount namespace.
    #[arg(long)]
    pub mnt: Option<PathBuf>,
    /// IPC namespace.
    #[arg(long)]
    pub ipc: Option<PathBuf>,
    /// UTS namespace.
    #[arg(long)]
    pub uts: Option<PathBuf>,
    /// Pid namespace; the program then runs as a child whose exit code is passed on.
    #[arg(long)]
    pub pid: Option<PathBuf>,
    /// Cgroup v2 folder.
    #[arg(long)]
    pub cgroup: Option<PathBuf>,
    /// Start a session of its own, so that the terminal's signals do not reach it.
    #[arg(long)]
    pub setsid: bool,
    /// End when the parent ends.
    #[arg(long)]
    pub die_with_parent: bool,
}

impl Place {
    /// The namespaces of a running process.
    pub fn of_process(pid: i32) -> Self {
        let ns = |kind: &str| Some(PathBuf::from(format!("/proc/{pid}/ns/{kind}")));
        Self {
            net: ns("net"),
            mnt: ns("mnt"),
            ipc: ns("ipc"),
            uts: ns("uts"),
            pid: ns("pid"),
            ..Self::default()
        }
    }

    /// Command line of `agent` (the node-agent executable) that runs a program here; append the program
    /// and its arguments.
    pub fn command(&self, agent: &Path) -> Command {
        let mut command = Command::new(agent);
        command.arg("enter");
        let paths = [
            ("--net", &self.net),
            ("--mnt", &self.mnt),
            ("--ipc", &self.ipc),
            ("--uts", &self.uts),
            ("--pid", &self.pid),
            ("--cgroup", &self.cgroup),
        ];
        for (flag, path) in paths {
            if let Some(path) = path {
                command.arg(flag).arg(path);
            }
        }
        for (flag, set) in [
            ("--setsid", self.setsid),
            ("--die-with-parent", self.die_with_parent),
        ] {
            if set {
                command.arg(flag);
            }
        }
        command.arg("--");
        command
    }

    /// Joins everything and becomes `program`; with a pid namespace, runs it and gives its exit code.
    ///
    /// # Errors
    /// When something cannot be joined or the program cannot be started.
    pub fn run(&self, program: &[OsString]) -> Result<i32> {
        let (name, args) = program
            .split_first()
            .context("no program given after `--`")?;
        self.join()?;
        let mut command = Command::new(name);
        command.args(args);
        if self.pid.is_none() {
            return Err(command.exec()).with_context(|| format!("run {}", name.display()));
        }
        let status = command
            .status()
            .with_context(|| format!("run {}", name.display()))?;
        Ok(status
            .code()
            .unwrap_or_else(|| 128 + status.signal().unwrap_or(0)))
    }

    /// Moves the calling process there (a pid namespace receives only its children).
    ///
    /// # Errors
    /// When something cannot be joined.
    pub fn join(&self) -> Result<()> {
        if self.die_with_parent {
            prctl::set_pdeathsig(Signal::SIGKILL).context("tie the process to its parent")?;
        }
        if self.setsid {
            setsid().context("start a session")?;
        }
        if let Some(cgroup) = &self.cgroup {
            Cgroup::at(cgroup).join()?;
        }
        let wanted = [
            (&self.ipc, CloneFlags::CLONE_NEWIPC),
            (&self.uts, CloneFlags::CLONE_NEWUTS),
            (&self.pid, CloneFlags::CLONE_NEWPID),
            (&self.net, CloneFlags::CLONE_NEWNET),
            (&self.mnt, CloneFlags::CLONE_NEWNS),
        ];
        // All are opened first: paths mean something else once the mount namespace has changed.
        let mut opened = Vec::new();
        for (path, kind) in wanted {
            if let Some(path) = path {
                opened.push(Namespace::open(path, kind)?);
            }
        }
        for namespace in &opened {
            namespace.enter()?;
        }
        Ok(())
    }
}
