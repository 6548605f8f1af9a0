//! What this node must hold, computed from a snapshot of the cluster.
//!
//! Pure: no clock, no randomness, no I/O. Equal snapshots give equal tables, on every run and
//! after every restart, because every identifier is a hash of content ([`stable_id`]).

#![forbid(unsafe_code)]

pub mod cluster;
pub mod explain;
pub mod family;
#[cfg(any(test, feature = "fixture"))]
pub mod fixture;
pub mod ip_block;
pub mod labels;
pub mod lease;
pub mod masquerade;
pub mod names;
pub mod policy;
pub mod routes;
pub mod services;
pub mod stable_id;
