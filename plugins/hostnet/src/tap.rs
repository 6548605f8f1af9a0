//! Creating tap devices, by `/dev/net/tun` (`Documentation/networking/tuntap.rst`).

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::process::Command;

use libc::{c_char, c_int, c_short, c_ulong};
use netstate::Tap;
use nix::errno::Errno;

use crate::error::{Error, ErrorKind, Result};

const DEVICE: &str = "/dev/net/tun";
const OPERATION: &str = "create tap";
/// What the next program that this thread starts is labelled with.
const NEXT_LABEL: &str = "/proc/thread-self/attr/exec";

/// Creates `tap`, down, in the calling thread's network namespace.
///
/// # Errors
/// When an interface of that name is there, the kernel has no tap devices or refuses. Nothing is
/// left then.
pub fn create(tap: &Tap) -> Result<()> {
    match &tap.selinux_context {
        Some(context) => labelled(tap, context),
        None => plain(tap),
    }
}

fn plain(tap: &Tap) -> Result<()> {
    let refused = |errno| Error::errno(OPERATION, &tap.name, errno);
    if exists(tap) {
        // The kernel would open the one that is there.
        return Err(Error::errno(OPERATION, &tap.name, Errno::EEXIST));
    }
    let file: File = OpenOptions::new()
        .read(true)
        .write(true)
        .open(DEVICE)
        .map_err(|error| Error::io(OPERATION, format!("{} by {DEVICE}", tap.name), &error))?;
    let mut flags = libc::IFF_TAP | libc::IFF_NO_PI;
    if tap.multi_queue {
        flags |= libc::IFF_MULTI_QUEUE;
    }
    let request = request(tap, flags);
    // SAFETY: the descriptor is open for the call, which reads `request`; that outlives it.
    let made = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw const request) };
    Errno::result(made).map_err(refused)?;
    // Until it is made persistent, the device goes with the descriptor.
    for (number, value) in [
        (libc::TUNSETOWNER, tap.owner),
        (libc::TUNSETGROUP, tap.group),
        (libc::TUNSETPERSIST, Some(1)),
    ] {
        let Some(value) = value else { continue };
        // SAFETY: the descriptor is open for the call, which takes a number.
        let set = unsafe { libc::ioctl(file.as_raw_fd(), number, c_ulong::from(value)) };
        Errno::result(set).map_err(refused)?;
    }
    Ok(())
}

fn exists(tap: &Tap) -> bool {
    nix::net::if_::if_nametoindex(tap.name.as_str()).is_ok()
}

fn request(tap: &Tap, flags: c_int) -> libc::ifreq {
    let mut name: [c_char; libc::IFNAMSIZ] = [0; libc::IFNAMSIZ];
    // The last byte stays zero: a name has at most 15.
    for (to, from) in name.iter_mut().zip(tap.name.as_str().bytes()) {
        *to = from.cast_signed();
    }
    // SAFETY: all zeros is a valid value for every member of the union.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name = name;
    request.ifr_ifru.ifru_flags = c_short::try_from(flags).unwrap_or(c_short::MAX);
    request
}

/// The kernel labels a device by the process that creates it, and a process gets another label only
/// by executing a program, so `ip` has to do it.
fn labelled(tap: &Tap, context: &str) -> Result<()> {
    let object = format!("{} with SELinux context {context:?}", tap.name);
    let failed = |error| Error::io(OPERATION, &object, &error);
    let mut ip = Command::new("ip");
    ip.args(["tuntap", "add", "mode", "tap", "name", tap.name.as_str()]);
    if tap.multi_queue {
        ip.arg("multi_queue");
    }
    for (key, id) in [("user", tap.owner), ("group", tap.group)] {
        if let Some(id) = id {
            ip.args([key, &id.to_string()]);
        }
    }
    fs::write(NEXT_LABEL, context).map_err(failed)?;
    let output = ip.output();
    // An empty label is the default again; it is the thread's own, and ends with it.
    let unlabelled = fs::write(NEXT_LABEL, "");
    let output = output.map_err(failed)?;
    unlabelled.map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    let mut error = Error::invalid(
        OPERATION,
        &object,
        String::from_utf8_lossy(&output.stderr).trim(),
    );
    error.kind = ErrorKind::Other;
    Err(error)
}
