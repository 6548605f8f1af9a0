//! Every map of the data path. Names and meanings: `ebpf_shared::maps::name`.
//!
//! Tables that user space fills are not preallocated, so a generous capacity costs nothing; what the
//! programs write themselves is.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf},
    macros::btf_map,
};
use ebpf_shared::{
    V4, V6,
    conntrack::{CtKey, CtValue},
    event::{Counter, Event},
    maps::{Config, FragmentKey, FragmentValue, capacity},
    policy::{
        ClassKey, ClassValue, LocalKey, LocalValue, PodKey, PodNetnsKey, PodNetnsValue, PodValue,
        VerdictKey, VerdictValue,
    },
    service::{
        AffinityKey, AffinityValue, BackendKey, BackendValue, FrontendKey, FrontendValue, SlotKey,
        SlotValue, SockKey, SockValue,
    },
};

const LAZY: usize = BPF_F_NO_PREALLOC as usize;

/// A table that user space fills.
type Table<K, V, const N: usize> = HashMap<K, V, N, LAZY>;

macro_rules! maps {
    ($($name:ident: $t:ty;)+) => {
        $(
            #[btf_map]
            #[expect(non_upper_case_globals, reason = "the symbol is the map's public name")]
            pub static $name: $t = <$t>::new();
        )+
    };
}

maps! {
    towline_frontend_v4: Table<FrontendKey<V4>, FrontendValue, { capacity::FRONTEND }>;
    towline_frontend_v6: Table<FrontendKey<V6>, FrontendValue, { capacity::FRONTEND }>;
    towline_slot_v4: Table<SlotKey, SlotValue, { capacity::SLOT }>;
    towline_slot_v6: Table<SlotKey, SlotValue, { capacity::SLOT }>;
    towline_backend_v4: Table<BackendKey, BackendValue<V4>, { capacity::BACKEND }>;
    towline_backend_v6: Table<BackendKey, BackendValue<V6>, { capacity::BACKEND }>;
    towline_sock_v4: LruHashMap<SockKey<V4>, SockValue<V4>, { capacity::SOCK }>;
    towline_sock_v6: LruHashMap<SockKey<V6>, SockValue<V6>, { capacity::SOCK }>;
    towline_affinity_v4: LruHashMap<AffinityKey<V4>, AffinityValue, { capacity::AFFINITY }>;
    towline_affinity_v6: LruHashMap<AffinityKey<V6>, AffinityValue, { capacity::AFFINITY }>;
    towline_pod: Table<PodKey, PodValue, { capacity::POD }>;
    towline_local_v4: Table<LocalKey<V4>, LocalValue, { capacity::POD }>;
    towline_local_v6: Table<LocalKey<V6>, LocalValue, { capacity::POD }>;
    towline_pod_netns: Table<PodNetnsKey, PodNetnsValue, { capacity::POD }>;
    towline_class_v4: Table<ClassKey<V4>, ClassValue, { capacity::CLASS }>;
    towline_class_v6: Table<ClassKey<V6>, ClassValue, { capacity::CLASS }>;
    towline_cidr_class_v4: LpmTrie<V4, ClassValue, { capacity::CIDR_CLASS }>;
    towline_cidr_class_v6: LpmTrie<V6, ClassValue, { capacity::CIDR_CLASS }>;
    towline_verdict: Table<VerdictKey, VerdictValue, { capacity::VERDICT }>;
    towline_ct_new_v4: LruHashMap<CtKey<V4>, CtValue<V4>, { capacity::CT_NEW }>;
    towline_ct_new_v6: LruHashMap<CtKey<V6>, CtValue<V6>, { capacity::CT_NEW }>;
    towline_ct_est_v4: HashMap<CtKey<V4>, CtValue<V4>, { capacity::CT_EST }>;
    towline_ct_est_v6: HashMap<CtKey<V6>, CtValue<V6>, { capacity::CT_EST }>;
    towline_fragment_v4: LruHashMap<FragmentKey<V4>, FragmentValue, { capacity::FRAGMENT }>;
    towline_fragment_v6: LruHashMap<FragmentKey<V6>, FragmentValue, { capacity::FRAGMENT }>;
    towline_counters: PerCpuArray<Counter, { capacity::COUNTERS }>;
    towline_events: RingBuf<Event, { capacity::EVENT_BYTES }>;
    towline_config: Array<Config, 1>;
}

/// The configuration entry; `None` before user space wrote it is impossible (arrays are zeroed).
#[inline(always)]
pub fn config() -> Option<&'static Config> {
    towline_config.get(0)
}
