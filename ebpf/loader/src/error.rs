//! Why the data path could not be loaded, attached, read or changed.

use std::{io, path::PathBuf};

/// Errors of this crate. Each names what is missing or which object is concerned.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The process may not use eBPF.
    #[error("eBPF needs root (CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON): run as root")]
    NotPermitted,
    /// The kernel has no BTF support.
    #[error("the kernel has no BTF support (CONFIG_DEBUG_INFO_BTF): use another datapath")]
    NoBtf,
    /// The pin directory is not on a BPF file system.
    #[error("{path} is not on a BPF file system: mount -t bpf bpf {path}")]
    NoBpffs {
        /// Where pins were to be made.
        path: PathBuf,
    },
    /// The given directory is not a cgroup of the unified hierarchy.
    #[error("{path} is not a cgroup v2 directory: mount -t cgroup2 none DIR, or choose another")]
    NotCgroup2 {
        /// The directory.
        path: PathBuf,
    },
    /// No pinned maps are there: the data path was never loaded with this layout.
    #[error("no data path of this layout under {path}: is the daemon running?")]
    NotLoaded {
        /// Where they were looked for.
        path: PathBuf,
    },
    /// The embedded object could not be loaded.
    #[error("loading the eBPF object: {0}")]
    Load(#[from] aya::EbpfError),
    /// A program could not be loaded or attached; the text has the verifier's log if there is one.
    #[error("eBPF program {name}: {source}")]
    Program {
        /// Program name.
        name: String,
        /// What aya says.
        source: aya::programs::ProgramError,
    },
    /// The object has no such program: the object and this crate do not fit.
    #[error("the eBPF object has no program {0}: rebuild it (make ebpf)")]
    NoProgram(String),
    /// A map could not be opened.
    #[error("eBPF map {name}: {source}")]
    Map {
        /// Map name.
        name: String,
        /// What aya says.
        source: aya::maps::MapError,
    },
    /// A map does not have the layout that this crate was built for.
    #[error(
        "eBPF map {name} has {what} {found}, expected {expected}: rebuild the object (make ebpf)"
    )]
    Layout {
        /// Map name.
        name: String,
        /// Which property.
        what: &'static str,
        /// What the map has.
        found: u32,
        /// What it should have.
        expected: u32,
    },
    /// A capacity was asked for a map that does not exist or cannot have it.
    #[error("capacity {capacity} of eBPF map {name}: {why}")]
    Capacity {
        /// Map name.
        name: String,
        /// The capacity asked for.
        capacity: u32,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The map has no room for another entry.
    #[error("eBPF map {name} is full ({capacity} entries): raise its capacity")]
    Full {
        /// Map name.
        name: String,
        /// Its capacity.
        capacity: u32,
    },
    /// A system call on a map failed.
    #[error("{operation} eBPF map {name}: {source}")]
    MapCall {
        /// What was tried.
        operation: &'static str,
        /// Map name.
        name: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A network device could not be used.
    #[error("{operation} {device}: {source}")]
    Device {
        /// What was tried.
        operation: &'static str,
        /// Device name.
        device: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A file, pin or socket operation failed.
    #[error("{operation} {path}: {source}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl Error {
    /// For `map_err` on file operations.
    pub(crate) fn io(
        operation: &'static str,
        path: &std::path::Path,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            operation,
            path,
            source,
        }
    }

    /// For `map_err` on map system calls.
    pub(crate) fn call(operation: &'static str, name: &str) -> impl FnOnce(io::Error) -> Self {
        let name = name.to_owned();
        move |source| Self::MapCall {
            operation,
            name,
            source,
        }
    }
}
