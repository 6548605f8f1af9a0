//! Processes that end with the test: etcd, flanneld and towlined.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::place::{Place, until};

/// A process in a namespace. It is killed when this is dropped.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
    /// What the log had before.
    logged: usize,
}

// === impl Process ===

impl Process {
    /// Starts `command` in `place`; what it says comes after what is in `log` already.
    pub(crate) fn start(place: &Place, mut command: Command, log: PathBuf) -> Self {
        let file = |path: &Path| -> File {
            let mut options = OpenOptions::new();
            options.append(true).create(true).open(path).unwrap()
        };
        let logged = fs::read(&log).map_or(0, |text| text.len());
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null())
            .stdout(file(&log))
            .stderr(file(&log));
        let child = place.run(|| command.spawn()).unwrap();
        Self { child, log, logged }
    }

    /// What it has said.
    pub(crate) fn said(&self) -> String {
        let all = fs::read(&self.log).unwrap();
        String::from_utf8_lossy(&all[self.logged..]).into_owned()
    }

    /// Waits until it says a line of which this is true.
    #[track_caller]
    pub(crate) fn says(&mut self, what: impl Fn(&str) -> bool) {
        until(|| {
            self.alive();
            let said = self.said();
            match said.lines().any(&what) {
                true => Ok(()),
                false => Err(said),
            }
        });
    }

    #[track_caller]
    pub(crate) fn alive(&mut self) {
        let ended = self.child.try_wait().unwrap();
        assert!(ended.is_none(), "{ended:?}: {}", self.said());
    }

    /// Ends it by `signal`.
    pub(crate) fn end(&mut self, signal: Signal) -> ExitStatus {
        let pid = Pid::from_raw(self.child.id().try_into().unwrap());
        kill(pid, signal).unwrap();
        self.child.wait().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What towlined answers on its socket.
pub(crate) fn ask(socket: &Path, path: &str) -> Option<Value> {
    let mut stream = UnixStream::connect(socket).ok()?;
    let head = format!("GET {path} HTTP/1.1\r\nHost: towlined\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    serde_json::from_str(body).ok()
}
