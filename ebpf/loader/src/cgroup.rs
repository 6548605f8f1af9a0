//! Pinned cgroup links: list, remove; and directories of older layouts.

use std::{fs, io, os::fd::OwnedFd, path::Path};

use ebpf_shared::hook::CGROUP_PROGRAMS;

use crate::{CgroupAttachment, Error, bpf, layout::layout_hash};

/// Opens a pinned link without taking its pin away.
pub(crate) fn open(pin: &Path) -> Result<OwnedFd, Error> {
    bpf::open_pin(pin).map_err(Error::io("opening link", pin))
}

/// The cgroup links pinned under `bpf_root`.
///
/// # Errors
/// When a link cannot be opened or read.
pub fn cgroup_attachments(bpf_root: &Path) -> Result<Vec<CgroupAttachment>, Error> {
    let links = bpf_root.join(layout_hash()).join("links");
    let mut attachments = Vec::new();
    for program in CGROUP_PROGRAMS {
        let pin = links.join(program);
        if !pin.exists() {
            continue;
        }
        let info = bpf::cgroup_link(open(&pin)?).map_err(Error::io("reading link", &pin))?;
        let (id, cgroup) = (info.program, info.cgroup);
        attachments.push(CgroupAttachment {
            program: program.to_owned(),
            id,
            cgroup,
        });
    }
    Ok(attachments)
}

/// Detaches the socket programs; idempotent.
///
/// # Errors
/// When a pin cannot be removed.
pub fn detach_cgroup(bpf_root: &Path) -> Result<(), Error> {
    for program in CGROUP_PROGRAMS {
        let pin = bpf_root.join(layout_hash()).join("links").join(program);
        match fs::remove_file(&pin) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io("removing link", &pin)(e));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Removes the pins of other layouts: after an upgrade, once this layout's programs are attached.
///
/// Returns the names of the directories removed.
///
/// # Errors
/// When a directory cannot be listed or removed.
pub fn retire_other_layouts(bpf_root: &Path) -> Result<Vec<String>, Error> {
    let current = layout_hash();
    let mut retired = Vec::new();
    let entries = fs::read_dir(bpf_root).map_err(Error::io("listing", bpf_root))?;
    for entry in entries {
        let entry = entry.map_err(Error::io("listing", bpf_root))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let ours = name.len() == current.len() && name.bytes().all(|b| b.is_ascii_hexdigit());
        if ours && name != current {
            fs::remove_dir_all(entry.path()).map_err(Error::io("removing", &entry.path()))?;
            retired.push(name);
        }
    }
    Ok(retired)
}

/// Removes every pin under `bpf_root`: maps, links, all layouts. For uninstalling and tests.
///
/// # Errors
/// When something cannot be removed.
pub fn remove_pins(bpf_root: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(bpf_root) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("removing", bpf_root)(e)),
        _ => Ok(()),
    }
}
