//! The overlay loop against a real kernel, in network namespaces of the test's own. Needs root.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod backends;
mod drift;
mod former;
mod host;
mod nudge;
mod order;
mod partial;
mod uplink;
mod vxlan;
