//! Two small processes around a container. `shim` outlives the node agent, keeps the log and the exit
//! code; `init` is pid 1 of the container until it becomes the container's program.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use jiff::Timestamp;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde::{Deserialize, Serialize};

use super::checkpoint::{read_json, write_json};
use crate::enter::Place;
use crate::namespace::{bind, none, on_thread, tmpfs};
use crate::process::Process;

/// Everything needed to run a container, in `spec.json` of the run's folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// The container's id, 64 hexadecimal digits.
    pub id: String,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: BTreeMap<String, String>,
    /// Working folder.
    pub cwd: PathBuf,
    /// Namespaces of the sandbox and the container's cgroup.
    pub place: Place,
    /// What /etc/hosts and /etc/resolv.conf are inside, by target.
    pub files: BTreeMap<PathBuf, PathBuf>,
}

/// How a run ended, in `exit.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Exit code; 128 + signal when a signal ended it.
    pub code: i32,
    /// The signal, if one ended it.
    pub signal: Option<i32>,
    /// When.
    pub finished_at: Timestamp,
}

/// File of the container's [`Process`] in the run's folder.
pub const PID_FILE: &str = "pid.json";
/// File of the [`Exit`] in the run's folder.
pub const EXIT_FILE: &str = "exit.json";
/// File of the [`ContainerSpec`] in the run's folder.
pub const SPEC_FILE: &str = "spec.json";
/// The container's output in CRI log format.
pub const LOG_FILE: &str = "log";

/// Runs the container described in `dir` and records its end there.
///
/// # Errors
/// When it cannot be started; the log says so too.
pub fn shim(dir: &Path) -> Result<i32> {
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(dir.join(LOG_FILE))
        .context("open the container's log")?;
    let log = Arc::new(Mutex::new(log));
    let agent = std::env::current_exe().context("find the running executable")?;
    // The child and all of its children live in a pid namespace of their own; a thread that has left its
    // own one for that cannot start threads any more.
    let mut child = on_thread(|| {
        unshare(CloneFlags::CLONE_NEWPID).context("create a pid namespace")?;
        Command::new(&agent)
            .arg("init")
            .arg(dir.join(SPEC_FILE))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("start the container")
    })?;
    let pid = i32::try_from(child.id()).context("pid out of range")?;
    // A program that ends at once is no failure of ours; only its exit code counts then.
    if let Ok(process) = Process::of(pid) {
        write_json(&dir.join(PID_FILE), &process)?;
    }
    let copiers = [
        child
            .stdout
            .take()
            .map(|pipe| copier(pipe, "stdout", log.clone())),
        child
            .stderr
            .take()
            .map(|pipe| copier(pipe, "stderr", log.clone())),
    ];
    let status = child.wait().context("wait for the container")?;
    for copier in copiers.into_iter().flatten() {
        let _ = copier.join();
    }
    let signal = status.signal();
    let exit = Exit {
        code: status.code().unwrap_or_else(|| 128 + signal.unwrap_or(0)),
        signal,
        finished_at: Timestamp::now(),
    };
    write_json(&dir.join(EXIT_FILE), &exit)?;
    Ok(0)
}

fn copier(
    pipe: impl Read + Send + 'static,
    stream: &'static str,
    log: Arc<Mutex<File>>,
) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n') {
            let Ok(line) = line else { return };
            let mut entry = format!("{} {stream} F ", Timestamp::now()).into_bytes();
            entry.extend(line);
            entry.push(b'\n');
            // A full disk must not end the container.
            let _ = log
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .write_all(&entry);
        }
    })
}

/// Becomes the container's program: joins the sandbox, makes the container's view of the file system.
///
/// # Errors
/// When a namespace or mount is refused or the program cannot be run.
pub fn init(spec: &Path) -> Result<i32> {
    let spec: ContainerSpec = read_json(spec)?.context("the container's spec is missing")?;
    spec.place.join()?;
    file_system(&spec).context("file system of the container")?;
    let (program, args) = spec
        .argv
        .split_first()
        .context("the container has no program")?;
    let mut command = Command::new(program);
    command
        .args(args)
        .env_clear()
        .envs(&spec.env)
        .current_dir(&spec.cwd);
    Err(command.exec()).with_context(|| format!("run {program}"))
}

/// The node's file system read-only, with fresh /proc, /sys, /tmp and /run.
fn file_system(spec: &ContainerSpec) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("create a mount namespace")?;
    mount(
        none(),
        "/",
        none(),
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        none(),
    )
    .context("make the mounts private")?;
    for (target, source) in &spec.files {
        if fs::exists(target).unwrap_or(false) {
            bind(source, target)?;
        }
    }
    let read_only = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(none(), "/", none(), read_only, none()).context("make / read-only")?;
    tmpfs(Path::new("/tmp"), "1777")?;
    tmpfs(Path::new("/run"), "0755")?;
    // The node agent's records are no business of a pod.
    tmpfs(Path::new("/var/lib/node-agent"), "0000")?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), flags, none()).context("mount /proc")?;
    mount(
        Some("sysfs"),
        "/sys",
        Some("sysfs"),
        flags | MsFlags::MS_RDONLY,
        none(),
    )
    .context("mount /sys")
}
