//! All controllers and the scheduler together, against the API in-process.
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets the unexpected ends there"
)]

mod cluster;
mod removal;
mod workloads;
