//! Kernel parameters below `/proc/sys`, in the calling thread's network namespace.

use std::fs;
use std::path::PathBuf;

use crate::error::{Error, Result};

/// The value of `name` (with slashes, such as `net/ipv4/ip_forward`), without the final newline.
///
/// # Errors
/// When the kernel has no such parameter, it cannot be read, or the name leaves `/proc/sys`.
pub fn read(name: &str) -> Result<String> {
    let operation = "read sysctl";
    let text =
        fs::read_to_string(path(operation, name)?).map_err(|e| Error::io(operation, name, &e))?;
    Ok(text.trim_end().to_owned())
}

/// Sets `name` to `value`, unless it has it already (a read-only `/proc/sys` is then no obstacle).
///
/// # Errors
/// When the kernel has no such parameter, refuses the value, or the name leaves `/proc/sys`.
pub fn write(name: &str, value: &str) -> Result<()> {
    let operation = "write sysctl";
    let path = path(operation, name)?;
    if read(name).is_ok_and(|now| now == value) {
        return Ok(());
    }
    fs::write(path, value).map_err(|e| Error::io(operation, format!("{name}={value}"), &e))
}

fn path(operation: &'static str, name: &str) -> Result<PathBuf> {
    let sound = |part: &str| !part.is_empty() && part != "." && part != "..";
    if name.split('/').all(sound) && !name.contains('\0') {
        Ok(PathBuf::from("/proc/sys").join(name))
    } else {
        Err(Error::invalid(
            operation,
            name,
            "is not a name such as net/ipv4/ip_forward",
        ))
    }
}
