//! One run of one container: started through a shim, found again after a restart, ended.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use tokio::process::{Child, Command};

use super::checkpoint::{read_json, write_json};
use super::shim::{ContainerSpec, EXIT_FILE, Exit, PID_FILE, SPEC_FILE};
use crate::cgroup::Cgroup;
use crate::process::Process;
use crate::wait::eventually;

/// A run that was started.
#[derive(Debug, Clone)]
pub struct Run {
    /// The container's id.
    pub id: String,
    /// The run's number, which is the container's restart count.
    pub number: i32,
    /// When it was started.
    pub started_at: Timestamp,
    /// Folder of its records.
    pub dir: PathBuf,
    /// The container's cgroup.
    pub cgroup: Cgroup,
    shim: Process,
}

#[derive(Debug, Serialize, Deserialize)]
struct ShimRecord {
    shim: Process,
    started_at: Timestamp,
}

const SHIM_FILE: &str = "shim.json";

/// Starts a run in `dir`; the child is the shim.
///
/// # Errors
/// When its records cannot be written or the shim cannot be started.
pub fn start(agent: &Path, dir: &Path, number: i32, spec: &ContainerSpec) -> Result<(Run, Child)> {
    std::fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    let cgroup = cgroup_of(spec)?;
    cgroup.create()?;
    write_json(&dir.join(SPEC_FILE), spec)?;
    let child = Command::new(agent)
        .arg("shim")
        .arg(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .process_group(0)
        .spawn()
        .context("start the container's shim")?;
    let pid = child.id().context("the shim has no pid")?;
    let shim = Process::of(i32::try_from(pid).context("pid out of range")?)?;
    let record = ShimRecord {
        shim,
        started_at: Timestamp::now(),
    };
    write_json(&dir.join(SHIM_FILE), &record)?;
    Ok((run_of(spec, dir, number, record)?, child))
}

/// Finds a run that was started by an earlier node agent.
///
/// # Errors
/// When its records are damaged.
pub fn adopt(dir: &Path, number: i32) -> Result<Option<Run>> {
    let Some(spec) = read_json::<ContainerSpec>(&dir.join(SPEC_FILE))? else {
        return Ok(None);
    };
    let Some(record) = read_json::<ShimRecord>(&dir.join(SHIM_FILE))? else {
        return Ok(None);
    };
    run_of(&spec, dir, number, record).map(Some)
}

fn run_of(spec: &ContainerSpec, dir: &Path, number: i32, record: ShimRecord) -> Result<Run> {
    Ok(Run {
        id: spec.id.clone(),
        number,
        started_at: record.started_at,
        dir: dir.to_owned(),
        cgroup: cgroup_of(spec)?,
        shim: record.shim,
    })
}

fn cgroup_of(spec: &ContainerSpec) -> Result<Cgroup> {
    spec.place
        .cgroup
        .clone()
        .map(Cgroup::at)
        .context("the container has no cgroup")
}

impl Run {
    /// How the run ended, if it has.
    ///
    /// # Errors
    /// When the record is damaged.
    pub fn exit(&self) -> Result<Option<Exit>> {
        read_json(&self.dir.join(EXIT_FILE))
    }

    /// Pid 1 of the container, once it runs.
    ///
    /// # Errors
    /// When the record is damaged.
    pub fn process(&self) -> Result<Option<Process>> {
        read_json(&self.dir.join(PID_FILE))
    }

    /// Waits until the run has ended; `child` is the shim if this process started it. Whatever the
    /// container left running is ended too.
    ///
    /// # Errors
    /// When the records are damaged or something does not end.
    pub async fn ended(&self, child: Option<Child>) -> Result<Exit> {
        match child {
            Some(mut child) => {
                child.wait().await.context("wait for the shim")?;
            }
            None => {
                let shim = &self.shim;
                let forever = Duration::from_secs(u64::from(u32::MAX));
                eventually("the shim ends", forever, || async move {
                    Ok(if shim.is_running() {
                        Err(String::new())
                    } else {
                        Ok(())
                    })
                })
                .await?;
            }
        }
        self.destroy_cgroup().await?;
        // A shim that was killed leaves no exit code.
        let lost = Exit {
            code: 137,
            signal: Some(9),
            finished_at: Timestamp::now(),
        };
        Ok(self.exit()?.unwrap_or(lost))
    }

    /// Ends the run: SIGTERM, after `grace` SIGKILL to all of it.
    ///
    /// # Errors
    /// When it cannot be ended.
    pub async fn stop(&self, grace: Duration) -> Result<()> {
        if let Some(process) = self.process()?
            && process.signal(Signal::SIGTERM)?
        {
            let process = &process;
            let ended = eventually("the container ends", grace, || async move {
                Ok(if process.is_running() {
                    Err("still running".to_owned())
                } else {
                    Ok(())
                })
            })
            .await;
            if let Err(error) = ended {
                tracing::info!(container = %self.id, "killed after its grace period: {error:#}");
            }
        }
        self.destroy_cgroup().await
    }

    async fn destroy_cgroup(&self) -> Result<()> {
        let cgroup = self.cgroup.clone();
        tokio::task::spawn_blocking(move || cgroup.destroy())
            .await
            .context("wait for the cgroup")?
    }
}

#[cfg(test)]
pub(super) fn test_run(number: i32) -> Run {
    Run {
        id: "ab".to_owned(),
        number,
        started_at: Timestamp::UNIX_EPOCH,
        dir: PathBuf::new(),
        cgroup: Cgroup::at("/nonexistent"),
        shim: Process {
            pid: 0,
            start_ticks: 0,
        },
    }
}
