//! The overlay loop against a real kernel, in network namespaces of the test's own. Needs root.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod backends;
mod drift;
mod host;
mod nudge;
mod uplink;
mod vxlan;
