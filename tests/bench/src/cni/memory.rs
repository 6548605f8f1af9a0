//! Peak memory of one ADD of each plugin, and the size of the programs.

use std::fmt::Write as _;
use std::fs;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, ensure};
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::Value;

use crate::cni::Bins;
use crate::cni::measure::fill;
use crate::cni::node::{Host, Pod, feed};
use crate::cni::rows::Plugin;

/// Most memory that a plugin may take, KiB.
const MOST_MEMORY: u64 = 4 * 1024;
/// Largest program, bytes.
const LARGEST: u64 = 3 * 1024 * 1024;

/// The chains whose plugins are measured. Each plugin counts by its largest call.
const CHAINS: &[&[Plugin]] = &[
    &[
        Plugin::Bridge {
            masquerade: true,
            v6: true,
        },
        Plugin::Portmap,
        Plugin::Firewall,
        Plugin::Bandwidth,
    ],
    &[Plugin::Ptp],
];

/// A table of memory and size, and the bars that are missed.
///
/// # Errors
/// When a plugin fails or its memory cannot be read.
pub(crate) fn table(bins: &Bins) -> anyhow::Result<(String, Vec<String>)> {
    let mut text = String::from(
        "| plugin | Towline, peak memory of an ADD, KiB | reference, KiB | bar |\n|---|---|---|---|\n",
    );
    let mut missed = Vec::new();
    let ours = peaks("Towline", &bins.ours)?;
    let reference = peaks("reference", &bins.reference)?;
    for ((name, peak), (_, other)) in ours.iter().zip(&reference) {
        let met = judge(
            *peak <= MOST_MEMORY,
            &format!("memory of {name}"),
            &mut missed,
        );
        let _ = writeln!(
            text,
            "| {name} | {peak} | {other} | ≤ {MOST_MEMORY} KiB: {met} |"
        );
    }
    let size = fs::metadata(bins.ours.join("bridge"))?.len();
    let met = judge(size <= LARGEST, "size of the program", &mut missed);
    let names: Vec<&str> = ours.iter().map(|(name, _)| name.as_str()).collect();
    let mut theirs = 0;
    for name in names.iter().filter(|name| !name.contains(' ')) {
        theirs += fs::metadata(bins.reference.join(name))?.len();
    }
    let _ = writeln!(
        text,
        "\nThe program, all plugins in one file with several names: {size} bytes (≤ {LARGEST}: {met}); \
         the reference's\n{} programs of the same names: {theirs} bytes.",
        names.iter().filter(|name| !name.contains(' ')).count()
    );
    Ok((text, missed))
}

fn judge(met: bool, what: &str, missed: &mut Vec<String>) -> &'static str {
    if met {
        return "met";
    }
    missed.push(what.to_owned());
    "**missed**"
}

/// Peak memory of each plugin's ADD in KiB.
fn peaks(name: &str, bin: &Path) -> anyhow::Result<Vec<(String, u64)>> {
    let mut peaks = Vec::new();
    for chain in CHAINS {
        let host = Host::new(name, bin)?;
        let pod = host.pod("pod")?;
        let _inside = host.enter()?;
        let mut result = Value::Null;
        for plugin in *chain {
            let config = plugin.config(host.state.path(), 0, &result);
            let (peak, document) = traced(&host, &config, &pod)?;
            peaks.push((plugin.name().to_owned(), peak));
            result = document;
        }
    }
    for filled in [false, true] {
        let host = Host::new(name, bin)?;
        let pod = host.pod("pod")?;
        if filled {
            fill(host.state.path())?;
        }
        let config = Plugin::HostLocal.config(host.state.path(), 0, &Value::Null);
        let (peak, _) = traced(&host, &config, &pod)?;
        let at = if filled {
            " at 10,000 reservations"
        } else {
            ""
        };
        peaks.push((format!("{}{at}", Plugin::HostLocal.name()), peak));
    }
    Ok(peaks)
}

/// Stops a plugin at the end of its ADD and reads what its memory came to at most. What `wait4`
/// tells counts the memory of the process before it became the plugin, too.
fn traced(host: &Host, config: &Value, pod: &Pod) -> anyhow::Result<(u64, Value)> {
    let mut child = host.start("ADD", config, pod)?;
    let pid = Pid::from_raw(i32::try_from(child.id())?);
    // It waits for its configuration until then.
    ptrace::seize(pid, Options::PTRACE_O_TRACEEXIT)?;
    feed(&mut child, &config.to_string())?;
    let (mut peak, mut code) = (None, None);
    while code.is_none() {
        match waitpid(pid, None)? {
            WaitStatus::PtraceEvent(..) => {
                peak = Some(peak_of(pid)?);
                ptrace::cont(pid, None)?;
            }
            WaitStatus::Stopped(_, signal) if signal != Signal::SIGTRAP => {
                ptrace::cont(pid, signal)?;
            }
            WaitStatus::Exited(_, status) => code = Some(status),
            WaitStatus::Signaled(_, signal, _) => anyhow::bail!("a plugin ended by {signal}"),
            _ => ptrace::cont(pid, None)?,
        }
    }
    let mut text = String::new();
    if let Some(mut stdout) = child.stdout.take() {
        stdout.read_to_string(&mut text)?;
    }
    ensure!(code == Some(0), "ADD by {} failed: {text}", config["type"]);
    let peak = peak.context("the plugin was not seen to end")?;
    Ok((peak, serde_json::from_str(&text)?))
}

fn peak_of(pid: Pid) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.context("no VmHWM in the process' status")?.parse()?)
}
