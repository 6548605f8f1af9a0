//! Loading the embedded object, pinning its maps, and attaching its programs.

use std::{
    collections::BTreeMap,
    fs, io,
    os::fd::AsFd,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfLoader,
    programs::{
        CgroupAttachMode, CgroupSockAddr, Program, ProgramFd, SchedClassifier, links::FdLink,
    },
};
use ebpf_shared::hook::{CGROUP_PROGRAMS, FROM_POD, TO_POD};
use netstate::names::IfName;
use tracing::{debug, info, warn};

use crate::{
    Error, Maps, bpf,
    layout::{LAYOUTS, layout, layout_hash},
    preflight::{cgroup_id, preflight},
    tc::{Chain, Socket},
};

static OBJECT: &[u8] = aya::include_bytes_aligned!("../object/towline.bpf.o");

/// How to load.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directory on a BPF file system under which everything is pinned (`/sys/fs/bpf/towline`).
    pub bpf_root: PathBuf,
    /// Capacities by map name that differ from the defaults. A map that is already pinned keeps its own.
    pub capacities: BTreeMap<String, u32>,
}

/// The loaded programs and their pinned maps.
///
/// Dropping it detaches nothing: filters, cgroup links and maps stay in force.
pub struct Datapath {
    ebpf: Ebpf,
    maps: Maps,
    links: PathBuf,
}

/// A device that has programs of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodAttachment {
    /// Device name.
    pub device: String,
    /// Its index in the caller's network namespace.
    pub ifindex: u32,
    /// Program id of the filter for what the pod sends, if attached.
    pub from_pod: Option<u32>,
    /// Program id of the filter for what the pod receives, if attached.
    pub to_pod: Option<u32>,
}

/// A pinned cgroup link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupAttachment {
    /// Program name.
    pub program: String,
    /// Program id that the link runs.
    pub id: u32,
    /// Inode number of the cgroup; 0 when the cgroup is gone.
    pub cgroup: u64,
}

impl std::fmt::Debug for Datapath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Datapath")
            .field("maps", &self.maps)
            .field("links", &self.links)
            .finish()
    }
}

impl Datapath {
    /// Loads the programs; takes over the maps that an earlier run pinned with the same layout.
    ///
    /// # Errors
    /// What [`preflight`] finds missing; [`Error::Capacity`]; what the kernel says about the object.
    pub fn load(options: &Options) -> Result<Self, Error> {
        preflight(&options.bpf_root)?;
        check_capacities(&options.capacities)?;
        let directory = Maps::directory(&options.bpf_root);
        let links = options.bpf_root.join(layout_hash()).join("links");
        for path in [&options.bpf_root, &directory, &links] {
            fs::create_dir_all(path).map_err(Error::io("creating", path))?;
        }
        let private = fs::Permissions::from_mode(0o700);
        fs::set_permissions(&options.bpf_root, private)
            .map_err(Error::io("setting the mode of", &options.bpf_root))?;

        let mut loader = EbpfLoader::new();
        for layout in &LAYOUTS {
            loader.map_pin_path(layout.name, directory.join(layout.name));
        }
        for (name, capacity) in &options.capacities {
            loader.map_max_entries(name, *capacity);
        }
        let mut ebpf = loader.load(OBJECT)?;
        let maps = Maps::open(&options.bpf_root)?;
        check_layouts(&maps, &options.capacities)?;
        for name in [FROM_POD, TO_POD].iter().chain(&CGROUP_PROGRAMS) {
            load_program(&mut ebpf, name)?;
        }
        info!(root = %options.bpf_root.display(), layout = layout_hash(), "eBPF programs loaded");
        Ok(Self { ebpf, maps, links })
    }

    /// The pinned maps.
    pub fn maps(&self) -> &Maps {
        &self.maps
    }

    /// Attaches both programs to a pod's host-side device in the calling thread's network namespace,
    /// or replaces what an earlier run attached, without a gap.
    ///
    /// From then on the device fails closed until its pod is in the pod table. Returns the device index.
    ///
    /// # Errors
    /// [`Error::Device`] when there is no such device or the kernel refuses.
    pub fn attach_pod(&self, device: &IfName) -> Result<u32, Error> {
        let ifindex = ifindex(device.as_str())?;
        let (from, to) = (self.program_fd(FROM_POD)?, self.program_fd(TO_POD)?);
        let attach = || -> io::Result<()> {
            let socket = Socket::open()?;
            socket.add_clsact(ifindex)?;
            socket.put(ifindex, Chain::Egress, TO_POD, to.as_fd())?;
            socket.put(ifindex, Chain::Ingress, FROM_POD, from.as_fd())
        };
        attach().map_err(device_error("attaching eBPF programs to", device.as_str()))?;
        debug!(device = device.as_str(), ifindex, "attached");
        Ok(ifindex)
    }

    /// Attaches the socket programs to a cgroup, or replaces what an earlier run attached there.
    ///
    /// # Errors
    /// [`Error::NotCgroup2`]; otherwise what the kernel says.
    pub fn attach_cgroup(&mut self, cgroup: &Path) -> Result<(), Error> {
        let id = cgroup_id(cgroup)?;
        for name in CGROUP_PROGRAMS {
            let pin = self.links.join(name);
            if !self.take_over(name, &pin, id)? {
                self.attach_new(name, &pin, cgroup)?;
            }
        }
        Ok(())
    }

    /// Replaces the program of a pinned link; false when there is none for this cgroup.
    fn take_over(&self, name: &str, pin: &Path, cgroup: u64) -> Result<bool, Error> {
        if !pin.exists() {
            return Ok(false);
        }
        let link = crate::cgroup::open(pin)?;
        let current = bpf::cgroup_link(&link).map_err(Error::io("reading link", pin))?;
        if current.cgroup == cgroup {
            let program = self.program_fd(name)?;
            match bpf::link_update(link.as_fd(), program.as_fd()) {
                Ok(()) => return Ok(true),
                Err(e) => {
                    warn!(program = name, error = %e, "link cannot be updated: attaching anew");
                }
            }
        }
        fs::remove_file(pin).map_err(Error::io("removing link", pin))?;
        Ok(false)
    }

    fn attach_new(&mut self, name: &'static str, pin: &Path, cgroup: &Path) -> Result<(), Error> {
        let file = fs::File::open(cgroup).map_err(Error::io("opening cgroup", cgroup))?;
        let failed = |source| Error::Program {
            name: name.to_owned(),
            source,
        };
        let program = self
            .ebpf
            .program_mut(name)
            .ok_or_else(|| Error::NoProgram(name.to_owned()))?;
        let program: &mut CgroupSockAddr = program.try_into().map_err(failed)?;
        let id = program
            .attach(&file, CgroupAttachMode::Single)
            .map_err(failed)?;
        let link: FdLink = program.take_link(id).map_err(failed)?.try_into().map_err(
            |e: aya::programs::links::LinkError| {
                Error::io("attaching to", cgroup)(io::Error::other(e))
            },
        )?;
        link.pin(pin)
            .map_err(|e| Error::io("pinning link", pin)(io::Error::other(e)))?;
        Ok(())
    }

    /// Id of a loaded program: an attachment with another id runs an older one.
    ///
    /// # Errors
    /// [`Error::NoProgram`]; what the kernel says.
    pub fn program_id(&self, name: &str) -> Result<u32, Error> {
        let failed = |source| Error::Program {
            name: name.to_owned(),
            source,
        };
        let program = self
            .ebpf
            .program(name)
            .ok_or_else(|| Error::NoProgram(name.to_owned()))?;
        Ok(program.info().map_err(failed)?.id())
    }

    fn program_fd(&self, name: &str) -> Result<&ProgramFd, Error> {
        let failed = |source| Error::Program {
            name: name.to_owned(),
            source,
        };
        let program = self
            .ebpf
            .program(name)
            .ok_or_else(|| Error::NoProgram(name.to_owned()))?;
        program.fd().map_err(failed)
    }

    /// One of the two device programs, for running it on a packet (`aya::programs::TestRun`).
    ///
    /// Such a run reads and writes the real maps.
    ///
    /// # Errors
    /// [`Error::NoProgram`].
    pub fn classifier(&self, name: &str) -> Result<&SchedClassifier, Error> {
        match self.ebpf.program(name) {
            Some(Program::SchedClassifier(program)) => Ok(program),
            _ => Err(Error::NoProgram(name.to_owned())),
        }
    }
}

/// Removes both filters from a device in the calling thread's network namespace; idempotent, also for
/// a device that is gone. Needs no loaded programs.
///
/// # Errors
/// [`Error::Device`] when the kernel refuses.
pub fn detach_pod(device: &IfName) -> Result<(), Error> {
    let Ok(ifindex) = ifindex(device.as_str()) else {
        return Ok(());
    };
    let detach = || -> io::Result<()> {
        let socket = Socket::open()?;
        socket.remove(ifindex, Chain::Ingress)?;
        socket.remove(ifindex, Chain::Egress)
    };
    match detach() {
        Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Ok(()),
        result => result.map_err(device_error(
            "detaching eBPF programs from",
            device.as_str(),
        )),
    }
}

/// Every device of the calling thread's network namespace that has a filter of ours, by index.
///
/// # Errors
/// [`Error::Device`] when the kernel refuses.
pub fn pod_attachments() -> Result<Vec<PodAttachment>, Error> {
    let devices =
        nix::net::if_::if_nameindex().map_err(|e| device_error("listing", "devices")(e.into()))?;
    let socket = Socket::open().map_err(device_error("listing", "devices"))?;
    let mut attachments = Vec::new();
    for device in &devices {
        let (ifindex, name) = (device.index(), device.name().to_string_lossy());
        let find = |chain| match socket.find(ifindex, chain) {
            Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(e) => Err(device_error("listing the filters of", &name)(e)),
            Ok(filter) => Ok(filter.map(|f| f.program)),
        };
        let (from_pod, to_pod) = (find(Chain::Ingress)?, find(Chain::Egress)?);
        if from_pod.is_some() || to_pod.is_some() {
            attachments.push(PodAttachment {
                device: name.into_owned(),
                ifindex,
                from_pod,
                to_pod,
            });
        }
    }
    Ok(attachments)
}

fn ifindex(device: &str) -> Result<u32, Error> {
    nix::net::if_::if_nametoindex(device)
        .map_err(|e| device_error("finding device", device)(e.into()))
}

fn device_error(operation: &'static str, device: &str) -> impl FnOnce(io::Error) -> Error {
    let device = device.to_owned();
    move |source| Error::Device {
        operation,
        device,
        source,
    }
}

/// Refuses capacities for maps that do not exist or cannot have them.
fn check_capacities(capacities: &BTreeMap<String, u32>) -> Result<(), Error> {
    for (name, capacity) in capacities {
        let (name, capacity) = (name.clone(), *capacity);
        let why = match layout(&name) {
            None => "there is no such map",
            Some(layout) if !layout.resizable => "its size is fixed",
            Some(_) if capacity == 0 => "must be at least 1",
            Some(l)
                if l.kind == crate::Kind::RingBuf
                    && (!capacity.is_power_of_two() || capacity < 4096) =>
            {
                "must be a power of two, at least 4096"
            }
            Some(_) => continue,
        };
        return Err(Error::Capacity {
            name,
            capacity,
            why,
        });
    }
    Ok(())
}

/// Opens every map, which checks its layout, and tells where an adopted map has another capacity.
fn check_layouts(maps: &Maps, capacities: &BTreeMap<String, u32>) -> Result<(), Error> {
    for layout in &LAYOUTS {
        let wanted = capacities
            .get(layout.name)
            .copied()
            .unwrap_or(layout.capacity);
        let found = maps.open_layout(layout)?.capacity;
        if found != wanted {
            warn!(
                map = layout.name,
                capacity = found,
                wanted,
                "a pinned map keeps its capacity"
            );
        }
    }
    Ok(())
}

fn load_program(ebpf: &mut Ebpf, name: &str) -> Result<(), Error> {
    let failed = |source| Error::Program {
        name: name.to_owned(),
        source,
    };
    match ebpf.program_mut(name) {
        Some(Program::SchedClassifier(program)) => program.load().map_err(failed),
        Some(Program::CgroupSockAddr(program)) => program.load().map_err(failed),
        _ => Err(Error::NoProgram(name.to_owned())),
    }
}
