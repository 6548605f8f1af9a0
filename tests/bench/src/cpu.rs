//! CPU time of this thread and its place.
//!
//! Client and server share one CPU, so that the work of veth and softirq runs inline in the sender
//! and is accounted to it. CPU time per operation repeats to a few per cent where wall time on a
//! shared machine scatters by a factor.

use anyhow::Context;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

/// Binds this thread to the first CPU.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn pin() -> anyhow::Result<()> {
    let mut first = CpuSet::new();
    first.set(0)?;
    sched_setaffinity(Pid::from_raw(0), &first).context("binding to CPU 0")
}

/// This thread's CPU time so far, in nanoseconds (first field of `schedstat`).
///
/// # Errors
/// When the kernel does not keep scheduler statistics.
pub(crate) fn own_time() -> anyhow::Result<u64> {
    let path = "/proc/thread-self/schedstat";
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    let first = text
        .split_whitespace()
        .next()
        .context("schedstat is empty")?;
    first
        .parse()
        .with_context(|| format!("schedstat says {first:?}, not nanoseconds"))
}
