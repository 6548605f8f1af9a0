//! The pinned maps: tables to fill, counters, events, conntrack and usage. Works without the daemon.

use std::path::{Path, PathBuf};

use ebpf_shared::{
    V4, V6,
    maps::{Config, name},
    policy::*,
    service::*,
};

use crate::{
    Conntrack, Counters, Error, Events, Kind, MapTarget, PodTarget,
    layout::{LAYOUTS, Layout, layout, layout_hash},
    map_target::RawMap,
};

/// The maps pinned under one root, opened by their names.
#[derive(Clone, Debug)]
pub struct Maps {
    directory: PathBuf,
}

/// Everything that user space computes and writes, one [`netstate::target::Target`] per map.
///
/// Order of puts that never shows a reference to something missing: backends, slots, frontends;
/// classes and cidr classes, verdicts, pod netns, pods.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "each field is named after its map")]
pub struct Tables {
    pub backends4: MapTarget<BackendKey, BackendValue<V4>>,
    pub slots4: MapTarget<SlotKey, SlotValue>,
    pub frontends4: MapTarget<FrontendKey<V4>, FrontendValue>,
    pub backends6: MapTarget<BackendKey, BackendValue<V6>>,
    pub slots6: MapTarget<SlotKey, SlotValue>,
    pub frontends6: MapTarget<FrontendKey<V6>, FrontendValue>,
    pub classes4: MapTarget<ClassKey<V4>, ClassValue>,
    pub cidr_classes4: MapTarget<CidrKey<V4>, ClassValue>,
    pub classes6: MapTarget<ClassKey<V6>, ClassValue>,
    pub cidr_classes6: MapTarget<CidrKey<V6>, ClassValue>,
    pub verdicts: MapTarget<VerdictKey, VerdictValue>,
    pub pod_netns: MapTarget<PodNetnsKey, PodNetnsValue>,
    pub pods: PodTarget,
}

/// How full a map is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapUsage {
    /// Map name.
    pub name: &'static str,
    /// Kind.
    pub kind: Kind,
    /// Entries that fit; bytes for a ring buffer.
    pub capacity: u32,
    /// Entries in use; `None` where entries cannot be counted.
    pub entries: Option<u32>,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
}

impl Maps {
    /// Opens the maps that a daemon of this build pinned under `bpf_root`.
    ///
    /// # Errors
    /// [`Error::NotLoaded`] when there are none.
    pub fn open(bpf_root: &Path) -> Result<Self, Error> {
        let directory = Self::directory(bpf_root);
        if !directory.join(name::CONFIG).exists() {
            return Err(Error::NotLoaded {
                path: bpf_root.to_owned(),
            });
        }
        Ok(Self { directory })
    }

    pub(crate) fn directory(bpf_root: &Path) -> PathBuf {
        bpf_root.join(layout_hash()).join("maps")
    }

    pub(crate) fn raw(&self, name: &'static str) -> Result<RawMap, Error> {
        let layout = layout(name).ok_or(Error::NotLoaded {
            path: self.directory.clone(),
        })?;
        self.open_layout(layout)
    }

    pub(crate) fn open_layout(&self, layout: &'static Layout) -> Result<RawMap, Error> {
        RawMap::open(&self.directory.join(layout.name), layout)
    }

    fn target<K: aya::Pod, V: aya::Pod>(
        &self,
        name: &'static str,
    ) -> Result<MapTarget<K, V>, Error> {
        Ok(MapTarget::new(self.raw(name)?))
    }

    /// The tables that user space writes.
    ///
    /// # Errors
    /// When a map cannot be opened.
    pub fn tables(&self) -> Result<Tables, Error> {
        Ok(Tables {
            backends4: self.target(name::BACKEND_V4)?,
            slots4: self.target(name::SLOT_V4)?,
            frontends4: self.target(name::FRONTEND_V4)?,
            backends6: self.target(name::BACKEND_V6)?,
            slots6: self.target(name::SLOT_V6)?,
            frontends6: self.target(name::FRONTEND_V6)?,
            classes4: self.target(name::CLASS_V4)?,
            cidr_classes4: self.target(name::CIDR_CLASS_V4)?,
            classes6: self.target(name::CLASS_V6)?,
            cidr_classes6: self.target(name::CIDR_CLASS_V6)?,
            verdicts: self.target(name::VERDICT)?,
            pod_netns: self.target(name::POD_NETNS)?,
            pods: PodTarget {
                pods: self.target(name::POD)?,
                local4: self.target(name::LOCAL_V4)?,
                local6: self.target(name::LOCAL_V6)?,
            },
        })
    }

    /// The configuration in force.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn config(&self) -> Result<Config, Error> {
        Ok(self
            .target::<u32, Config>(name::CONFIG)?
            .get(&0)?
            .unwrap_or_default())
    }

    /// Replaces the configuration.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn set_config(&self, config: &Config) -> Result<(), Error> {
        self.target::<u32, Config>(name::CONFIG)?.set(&0, config)
    }

    /// The flow tables.
    ///
    /// # Errors
    /// When a map cannot be opened.
    pub fn conntrack(&self) -> Result<Conntrack, Error> {
        Ok(Conntrack {
            new4: self.target(name::CT_NEW_V4)?,
            established4: self.target(name::CT_EST_V4)?,
            pods: self.target(name::POD)?,
        })
    }

    /// The counters.
    ///
    /// # Errors
    /// When the map cannot be opened.
    pub fn counters(&self) -> Result<Counters, Error> {
        Counters::open(&self.directory.join(name::COUNTERS))
    }

    /// The event ring. The kernel serves one reader: the daemon.
    ///
    /// # Errors
    /// When the map cannot be opened or mapped.
    pub fn events(&self) -> Result<Events, Error> {
        Events::open(&self.directory.join(name::EVENTS))
    }

    /// How full every map is. Lists whole maps: not for every second.
    ///
    /// # Errors
    /// When a map cannot be opened or listed.
    pub fn usage(&self) -> Result<Vec<MapUsage>, Error> {
        LAYOUTS.iter().map(|layout| self.usage_of(layout)).collect()
    }

    fn usage_of(&self, layout: &'static Layout) -> Result<MapUsage, Error> {
        let map = self.open_layout(layout)?;
        let entries = match layout.kind {
            Kind::Hash | Kind::LruHash | Kind::LpmTrie => {
                let mut count = 0;
                map.for_each(|_, _| count += 1)?;
                Some(count)
            }
            Kind::Array | Kind::PerCpuArray | Kind::RingBuf => None,
        };
        let Layout {
            name,
            kind,
            key_size,
            value_size,
            ..
        } = *layout;
        Ok(MapUsage {
            name,
            kind,
            capacity: map.capacity,
            entries,
            key_size,
            value_size,
        })
    }
}
