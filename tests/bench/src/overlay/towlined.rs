//! The daemon as it is installed, on a node of the benchmark.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use hostnet::Netns;
use serde_json::Value;

/// The kernel's unit of CPU time in `/proc` (`USER_HZ`), which is 100 on every architecture but Alpha.
const TICK: Duration = Duration::from_millis(10);

/// A running daemon; ended when this is dropped.
#[derive(Debug)]
pub(crate) struct Towlined {
    process: Child,
    folder: PathBuf,
}

/// What a process takes of memory, KiB.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Memory {
    /// Most at any time.
    pub(crate) peak: u64,
    /// Now.
    pub(crate) now: u64,
}

// === impl Towlined ===

impl Towlined {
    /// Starts `program` as node `name` in `netns`, with its files in `folder`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn start(
        program: &Path,
        netns: &Netns,
        name: &str,
        folder: &Path,
        etcd: &str,
    ) -> anyhow::Result<Self> {
        let log = File::create(folder.join("log"))?;
        let mut command = Command::new(program);
        command
            .env_clear()
            .args(["--kube-subnet-mgr=false", "--datapath=none", "--iface=eth0"])
            .args(["--node-name", name, "--etcd-endpoints", etcd])
            .arg("--state-dir")
            .arg(folder)
            .arg("--subnet-file")
            .arg(folder.join("subnet.env"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let spawned = netns.run_in(|| command.spawn())?;
        Ok(Self {
            process: spawned.with_context(|| format!("start {}", program.display()))?,
            folder: folder.to_owned(),
        })
    }

    /// Whether it has written its subnet file.
    pub(crate) fn has_subnet(&self) -> bool {
        self.folder.join("subnet.env").exists()
    }

    /// Whether it runs.
    ///
    /// # Errors
    /// When it does not, with what it said last.
    pub(crate) fn runs(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.process.try_wait()? {
            bail!("towlined ended ({status}): {}", self.said());
        }
        Ok(())
    }

    /// The end of its log.
    pub(crate) fn said(&self) -> String {
        let text = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }

    /// Its memory.
    ///
    /// # Errors
    /// When it has ended.
    pub(crate) fn memory(&self) -> anyhow::Result<Memory> {
        memory_in(&self.proc("status")?).context("no VmHWM and VmRSS in /proc")
    }

    /// The CPU time of all its threads, also of those that have ended.
    ///
    /// # Errors
    /// When it has ended.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        cpu_in(&self.proc("stat")?).context("no times in /proc")
    }

    /// How many entries of the overlay it has put right so far.
    ///
    /// # Errors
    /// When it does not answer.
    pub(crate) fn repaired(&self) -> anyhow::Result<u64> {
        let status = self.ask("/v1/status")?;
        let count = status["loops"]["overlay"]["driftRepaired"].as_u64();
        count.with_context(|| format!("no driftRepaired in {status}"))
    }

    fn ask(&self, path: &str) -> anyhow::Result<Value> {
        let socket = self.folder.join("towlined.sock");
        let mut stream = UnixStream::connect(&socket).context("connect to towlined")?;
        let head = format!("GET {path} HTTP/1.1\r\nHost: towlined\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
        ensure!(head.starts_with("HTTP/1.1 200"), "{path}: {head}");
        Ok(serde_json::from_str(body)?)
    }

    fn proc(&self, file: &str) -> anyhow::Result<String> {
        let path = format!("/proc/{}/{file}", self.process.id());
        std::fs::read_to_string(&path).with_context(|| format!("read {path}"))
    }
}

impl Drop for Towlined {
    /// At once: nothing that it has made goes with it.
    fn drop(&mut self) {
        if let Err(error) = self.process.kill().and_then(|()| self.process.wait()) {
            eprintln!("bench: end towlined: {error}");
        }
    }
}

/// The memory that a `/proc/PID/status` tells of.
fn memory_in(status: &str) -> Option<Memory> {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse().ok()
    };
    Some(Memory {
        peak: field("VmHWM:")?,
        now: field("VmRSS:")?,
    })
}

/// User and system time that a `/proc/PID/stat` tells of. The second field, the program's name in
/// parentheses, may hold anything.
fn cpu_in(stat: &str) -> Option<Duration> {
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<u32>().ok();
    Some(TICK * ticks(11)? + TICK * ticks(12)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_cpu_time_are_read_from_proc() {
        let status = "Name:\ttowlined\nVmPeak:\t  9000 kB\nVmHWM:\t   5120 kB\nVmRSS:\t 4096 kB\n";
        let memory = Memory {
            peak: 5120,
            now: 4096,
        };
        assert_eq!(memory_in(status), Some(memory));
        assert_eq!(memory_in("Name:\tkthreadd\n"), None);
        let stat = "77 (a ) b) S 1 77 77 0 -1 4194560 500 0 0 0 12 30 0 0 20 0 5 0 100 1 2 3";
        assert_eq!(cpu_in(stat), Some(Duration::from_millis(420)));
        assert_eq!(cpu_in("77 (a) S 1"), None);
    }
}
