//! What a benchmark ran on.

use crate::command::run;

/// The machine in one sentence: CPUs and kernel.
///
/// # Errors
/// When the system does not tell.
pub(crate) fn shown() -> anyhow::Result<String> {
    let cpu = std::fs::read_to_string("/proc/cpuinfo")?
        .lines()
        .find_map(|line| {
            line.strip_prefix("model name")
                .map(|rest| rest.replace(['\t', ':'], ""))
        })
        .unwrap_or_else(|| "unknown CPU".to_owned());
    Ok(format!(
        "Machine: {} CPUs ({}), Linux {}.",
        std::thread::available_parallelism()?,
        cpu.trim(),
        run("uname -r")?.trim(),
    ))
}
