//! The loops that keep the kernel equal to what the snapshot asks for.

pub mod masquerade;
pub mod overlay;
mod overlay_device;
mod run;
#[cfg(test)]
mod tests;

pub use self::overlay_device::{AddressTarget, SysctlTarget, Vtep, VtepTarget};
pub use self::run::{Panicked, Pass, Reconciler, run};
