//! Processes the lab starts: identified by pid and start time, so that a reused pid is never touched.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::wait;

/// A process that can be recognised later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Process id in the machine's pid namespace.
    pub pid: i32,
    /// Clock ticks after boot at which it started (field 22 of `/proc/PID/stat`).
    pub start_ticks: u64,
}

impl Process {
    /// Identifies a running process.
    ///
    /// # Errors
    /// When there is none with this pid.
    pub fn of(pid: i32) -> Result<Self> {
        let start_ticks =
            start_ticks(pid).with_context(|| format!("process {pid} is not running"))?;
        Ok(Self { pid, start_ticks })
    }

    /// Whether this very process still runs (a zombie does not).
    pub fn is_running(&self) -> bool {
        start_ticks(self.pid) == Some(self.start_ticks)
    }

    /// Sends a signal if this very process still runs; says whether it did.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn signal(&self, signal: Signal) -> Result<bool> {
        if !self.is_running() {
            return Ok(false);
        }
        match kill(Pid::from_raw(self.pid), signal) {
            Ok(()) => Ok(true),
            Err(nix::errno::Errno::ESRCH) => Ok(false),
            Err(error) => Err(error).with_context(|| format!("signal process {}", self.pid)),
        }
    }

    /// Sends a signal and waits until the process is gone.
    ///
    /// # Errors
    /// When it still runs after `limit`.
    pub fn end(&self, signal: Signal, limit: Duration) -> Result<()> {
        self.signal(signal)?;
        wait::until(&format!("process {} ends", self.pid), limit, || {
            Ok(if self.is_running() {
                Err("still running".to_owned())
            } else {
                Ok(())
            })
        })
    }
}

/// Start time of a living process; none for a zombie.
fn start_ticks(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    parse_stat(&stat)
}

fn parse_stat(stat: &str) -> Option<u64> {
    // The command name may hold spaces and parentheses: fields are counted after the last one.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Starts a long-lived process with its output appended to `log`. The child's end is noticed and
/// reaped by a waiting thread, so it never stays a zombie.
///
/// # Errors
/// When the log cannot be opened or the program cannot be started.
pub fn spawn_logged(command: &mut Command, log: &Path) -> Result<Process> {
    if let Some(dir) = log.parent() {
        fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    }
    let out = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(log)
        .with_context(|| format!("open {}", log.display()))?;
    let err = out.try_clone().context("duplicate the log file")?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .spawn()
        .with_context(|| format!("start {}", command.get_program().display()))?;
    let pid = i32::try_from(child.id()).context("pid out of range")?;
    let process = Process::of(pid).with_context(|| format!("see {}", log.display()));
    std::thread::spawn(move || child.wait());
    process
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_fields_are_counted_after_the_command_name() {
        let tail = (0..30).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
        assert_eq!(parse_stat(&format!("7 (a) b) S {tail}")), Some(18));
        assert_eq!(parse_stat(&format!("7 (a) Z {tail}")), None);
    }

    #[test]
    fn a_process_is_recognised_until_it_ends() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let process = Process::of(i32::try_from(child.id()).unwrap()).unwrap();
        assert!(process.is_running());
        process.signal(Signal::SIGKILL).unwrap();
        child.wait().unwrap();
        assert!(!process.is_running());
        assert!(!process.signal(Signal::SIGKILL).unwrap());
    }
}
