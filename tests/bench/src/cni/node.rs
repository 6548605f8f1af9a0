//! Two hosts side by side, one for each set of plugins, and the pods on them: network namespaces
//! kept by mounts that only this process sees, so that nothing is left however it ends.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use hostnet::{Netlink, Netns, netns};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::Value;

/// Where the private file systems are mounted.
const RUN: &str = "/run";

/// Gives this process mounts of its own with an empty `/run`: the namespaces are kept there, and
/// the lock of xtables is nobody else's.
///
/// # Errors
/// When the kernel refuses (root is needed), or the process has other threads already.
pub(crate) fn go_private() -> anyhow::Result<()> {
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET)
        .context("making namespaces of our own; the benchmark needs root")?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mount(Some("tmpfs"), RUN, Some("tmpfs"), MsFlags::empty(), none)?;
    Ok(())
}

/// One host with one set of plugins.
#[derive(Debug)]
pub(crate) struct Host {
    name: String,
    bin: PathBuf,
    netns: Netns,
    /// Where its plugins keep their state.
    pub(crate) state: tempfile::TempDir,
}

/// A container: its ID and the path of its network namespace.
#[derive(Debug, Clone)]
pub(crate) struct Pod {
    pub(crate) id: String,
    pub(crate) netns: PathBuf,
}

/// A call that a plugin answered.
#[derive(Debug)]
pub(crate) struct Answer {
    /// From before it was started until it was waited for.
    pub(crate) took: Duration,
    /// What it printed; null when nothing.
    pub(crate) document: Value,
}

// === impl Host ===

impl Host {
    /// An empty host called `name`, whose plugins are in `bin`.
    pub(crate) fn new(name: &str, bin: &Path) -> anyhow::Result<Self> {
        let netns = fresh(name)?;
        Netlink::open_in(&netns)?.set_up(&"lo".parse()?)?;
        Ok(Self {
            name: name.to_owned(),
            bin: bin.to_owned(),
            netns,
            state: tempfile::tempdir().context("making a folder for the plugins' state")?,
        })
    }

    /// A container on this host, without interfaces.
    pub(crate) fn pod(&self, id: &str) -> anyhow::Result<Pod> {
        let netns = fresh(&format!("{}-{id}", self.name))?;
        let (id, netns) = (id.to_owned(), netns.path().to_owned());
        Ok(Pod { id, netns })
    }

    /// The calling thread is on this host until the guard is dropped.
    pub(crate) fn enter(&self) -> anyhow::Result<netns::Inside> {
        Ok(self.netns.enter()?)
    }

    /// Whether it has `plugin`.
    pub(crate) fn has(&self, plugin: &str) -> bool {
        self.bin.join(plugin).is_file()
    }

    /// Has the plugin named by `config` do `command`, from the calling thread, which must be on
    /// this host.
    pub(crate) fn call(&self, command: &str, config: &Value, pod: &Pod) -> anyhow::Result<Answer> {
        let stdin = config.to_string();
        let start = Instant::now();
        let mut child = self.start(command, config, pod)?;
        feed(&mut child, &stdin)?;
        let output = child.wait_with_output()?;
        let took = start.elapsed();
        let stdout = String::from_utf8_lossy(&output.stdout);
        let plugin = &config["type"];
        ensure!(
            output.status.success(),
            "{command} by the {} {plugin} failed: {}",
            self.name,
            stdout.trim()
        );
        let document = match stdout.trim() {
            "" => Value::Null,
            text => serde_json::from_str(text)?,
        };
        Ok(Answer { took, document })
    }

    /// Starts the plugin named by `config`; it waits for its configuration.
    pub(crate) fn start(&self, command: &str, config: &Value, pod: &Pod) -> anyhow::Result<Child> {
        let Some(plugin) = config["type"].as_str() else {
            bail!("a configuration without type");
        };
        let file = self.bin.join(plugin);
        Command::new(&file)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", &pod.id)
            .env("CNI_NETNS", &pod.netns)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", &self.bin)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("starting {}", file.display()))
    }
}

/// Gives a started plugin its configuration. One that ended without reading it is no error.
pub(crate) fn feed(child: &mut Child, config: &str) -> anyhow::Result<()> {
    let Some(mut stdin) = child.stdin.take() else {
        return Ok(());
    };
    match stdin.write_all(config.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// A new namespace in place of one that an earlier row left under this name.
fn fresh(name: &str) -> anyhow::Result<Netns> {
    let folder = Path::new(RUN).join("netns");
    fs::create_dir_all(&folder)?;
    let path = folder.join(name);
    if path.exists() {
        netns::delete_at(&path)?;
    }
    Ok(netns::create_at(&path)?)
}
