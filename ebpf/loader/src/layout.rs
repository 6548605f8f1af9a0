//! Every map's layout, and the hash under which maps and links are pinned.
//!
//! aya reuses a pinned map without comparing its layout. So the layouts are part of the pin path, and
//! every map is checked after it was opened.

use ebpf_shared::{
    V4, V6,
    conntrack::{CtKey, CtValue},
    event::Counter,
    maps::{Config, FragmentKey, FragmentValue, LAYOUT_VERSION, capacity, name},
    policy::*,
    service::*,
};

/// Kind of a map, by the kernel's number (`enum bpf_map_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// Hash table.
    Hash = 1,
    /// Array.
    Array = 2,
    /// Array with one slot per CPU.
    PerCpuArray = 6,
    /// Hash table that evicts the least recently used entry.
    LruHash = 9,
    /// Longest prefix match.
    LpmTrie = 11,
    /// Ring buffer; its capacity is in bytes.
    RingBuf = 27,
}

impl Kind {
    /// Name for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hash => "hash",
            Self::Array => "array",
            Self::PerCpuArray => "per-cpu-array",
            Self::LruHash => "lru-hash",
            Self::LpmTrie => "lpm-trie",
            Self::RingBuf => "ring-buffer",
        }
    }
}

/// What a map must look like.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Map name.
    pub name: &'static str,
    /// Kind.
    pub kind: Kind,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// Entries (bytes for a ring buffer) unless configured otherwise.
    pub capacity: u32,
    /// Whether user space fills it and may choose its capacity.
    pub resizable: bool,
}

const fn map<K, V>(name: &'static str, kind: Kind, capacity: usize) -> Layout {
    let resizable = !matches!(kind, Kind::Array | Kind::PerCpuArray);
    let (key_size, value_size) = (size_of::<K>() as u32, size_of::<V>() as u32);
    Layout {
        name,
        kind,
        key_size,
        value_size,
        capacity: capacity as u32,
        resizable,
    }
}

/// All maps.
pub const LAYOUTS: [Layout; 28] = [
    map::<FrontendKey<V4>, FrontendValue>(name::FRONTEND_V4, Kind::Hash, capacity::FRONTEND),
    map::<FrontendKey<V6>, FrontendValue>(name::FRONTEND_V6, Kind::Hash, capacity::FRONTEND),
    map::<SlotKey, SlotValue>(name::SLOT_V4, Kind::Hash, capacity::SLOT),
    map::<SlotKey, SlotValue>(name::SLOT_V6, Kind::Hash, capacity::SLOT),
    map::<BackendKey, BackendValue<V4>>(name::BACKEND_V4, Kind::Hash, capacity::BACKEND),
    map::<BackendKey, BackendValue<V6>>(name::BACKEND_V6, Kind::Hash, capacity::BACKEND),
    map::<SockKey<V4>, SockValue<V4>>(name::SOCK_V4, Kind::LruHash, capacity::SOCK),
    map::<SockKey<V6>, SockValue<V6>>(name::SOCK_V6, Kind::LruHash, capacity::SOCK),
    map::<AffinityKey<V4>, AffinityValue>(name::AFFINITY_V4, Kind::LruHash, capacity::AFFINITY),
    map::<AffinityKey<V6>, AffinityValue>(name::AFFINITY_V6, Kind::LruHash, capacity::AFFINITY),
    map::<PodKey, PodValue>(name::POD, Kind::Hash, capacity::POD),
    map::<LocalKey<V4>, LocalValue>(name::LOCAL_V4, Kind::Hash, capacity::POD),
    map::<LocalKey<V6>, LocalValue>(name::LOCAL_V6, Kind::Hash, capacity::POD),
    map::<PodNetnsKey, PodNetnsValue>(name::POD_NETNS, Kind::Hash, capacity::POD),
    map::<ClassKey<V4>, ClassValue>(name::CLASS_V4, Kind::Hash, capacity::CLASS),
    map::<ClassKey<V6>, ClassValue>(name::CLASS_V6, Kind::Hash, capacity::CLASS),
    map::<CidrKey<V4>, ClassValue>(name::CIDR_CLASS_V4, Kind::LpmTrie, capacity::CIDR_CLASS),
    map::<CidrKey<V6>, ClassValue>(name::CIDR_CLASS_V6, Kind::LpmTrie, capacity::CIDR_CLASS),
    map::<VerdictKey, VerdictValue>(name::VERDICT, Kind::Hash, capacity::VERDICT),
    map::<CtKey<V4>, CtValue<V4>>(name::CT_NEW_V4, Kind::LruHash, capacity::CT_NEW),
    map::<CtKey<V6>, CtValue<V6>>(name::CT_NEW_V6, Kind::LruHash, capacity::CT_NEW),
    map::<CtKey<V4>, CtValue<V4>>(name::CT_EST_V4, Kind::Hash, capacity::CT_EST),
    map::<CtKey<V6>, CtValue<V6>>(name::CT_EST_V6, Kind::Hash, capacity::CT_EST),
    map::<FragmentKey<V4>, FragmentValue>(name::FRAGMENT_V4, Kind::LruHash, capacity::FRAGMENT),
    map::<FragmentKey<V6>, FragmentValue>(name::FRAGMENT_V6, Kind::LruHash, capacity::FRAGMENT),
    map::<u32, Counter>(name::COUNTERS, Kind::PerCpuArray, capacity::COUNTERS),
    map::<(), ()>(name::EVENTS, Kind::RingBuf, capacity::EVENT_BYTES),
    map::<u32, Config>(name::CONFIG, Kind::Array, 1),
];

/// The layout of the map with this name.
pub fn layout(name: &str) -> Option<&'static Layout> {
    LAYOUTS.iter().find(|layout| layout.name == name)
}

/// Hash of all layouts (FNV-1a, 64 bits), as 16 hexadecimal digits: the name of the pin directory.
///
/// Capacities are not part of it: a map that is there keeps the capacity it was made with.
pub fn layout_hash() -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    let mut add = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    add(&LAYOUT_VERSION.to_le_bytes());
    for layout in &LAYOUTS {
        add(layout.name.as_bytes());
        for number in [layout.kind as u32, layout.key_size, layout.value_size] {
            add(&number.to_le_bytes());
        }
    }
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_fit_into_the_kernels_pin_names() {
        let names: std::collections::BTreeSet<_> = LAYOUTS.iter().map(|l| l.name).collect();
        assert_eq!(names.len(), LAYOUTS.len());
        assert!(names.iter().all(|n| n.starts_with("towline_")));
    }

    #[test]
    fn the_hash_is_a_plain_directory_name_and_repeats() {
        assert_eq!(layout_hash(), layout_hash());
        assert!(layout_hash().len() == 16 && layout_hash().bytes().all(|b| b.is_ascii_hexdigit()));
    }
}
