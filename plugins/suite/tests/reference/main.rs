//! Ours beside the reference plugins (Debian's containernetworking-plugins, CNI up to 1.0.0): every
//! case is run by both and what is seen compared with the record in `docs/plugins/reference.md`;
//! both in one chain; each taking over the other's pods.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]
#![allow(dead_code, reason = "not every helper is used by every set of cases")]

#[path = "../node/mod.rs"]
mod node;

mod cases;
mod chain;
mod chains;
mod interleave;
mod observe;
mod record;
mod scaffolding;
mod takeover;
mod traffic;
mod world;
