//! The loops that keep the kernel equal to what the snapshot asks for.

mod gate;
mod map;
pub mod masquerade;
mod nudge;
pub mod overlay;
mod overlay_device;
pub mod policy;
mod run;
pub mod services;
pub mod succession;
#[cfg(test)]
mod tables_tests;
#[cfg(test)]
mod tests;

pub use self::gate::{Gate, Gated};
pub use self::map::Map;
pub use self::nudge::nudges;
pub use self::overlay_device::{
    AddressTarget, ChecksumTarget, MARK, SysctlTarget, Vtep, VtepTarget,
};
pub use self::run::{Panicked, Pass, Reconciler, run};
