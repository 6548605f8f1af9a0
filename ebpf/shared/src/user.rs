//! `aya::Pod` for every key and value that user space reads or writes as bytes.

use aya::Pod;

use crate::{conntrack::*, event::*, maps::*, policy::*, service::*};

macro_rules! pods {
    ($($t:ty),+ $(,)?) => {
        $(
            // SAFETY: `#[repr(C)]`, `Copy`, only integers and byte arrays, padding explicit.
            unsafe impl Pod for $t {}
        )+
    };
}

macro_rules! pods_with_address {
    ($($t:ident),+ $(,)?) => {
        $(
            // SAFETY: `#[repr(C)]`, `Copy`, only integers and byte arrays, padding explicit.
            unsafe impl<A: Pod> Pod for $t<A> {}
        )+
    };
}

pods!(
    FrontendValue,
    SlotKey,
    SlotValue,
    BackendKey,
    AffinityValue,
    PodKey,
    PodValue,
    LocalValue,
    PodNetnsKey,
    PodNetnsValue,
    ClassValue,
    VerdictKey,
    Interval,
    VerdictValue,
    Event,
    Counter,
    Config,
    FragmentValue,
);
pods_with_address!(
    FrontendKey,
    BackendValue,
    AffinityKey,
    SockKey,
    SockValue,
    LocalKey,
    ClassKey,
    CidrKey,
    CtKey,
    CtValue,
    FragmentKey,
);
