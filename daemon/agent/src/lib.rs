//! `towlined`, Towline's node daemon: watches the cluster, computes what this node must hold, and
//! keeps the kernel equal to it.
//!
//! The way of a change, each step in its own module: [`watch`] → [`translate`] → [`store`] →
//! [`reconcile`], whose loops call the pure functions of `desired` and write through `hostnet` and
//! `loader`. Beside it: [`endpoint`] takes registrations from the CNI plugin, [`lease`] publishes
//! this node's subnet and overlay address, [`admin`] shows all of it.

#![forbid(unsafe_code)]

pub mod admin;
pub mod api_server;
pub mod board;
pub mod config;
pub mod daemon;
pub mod datapath;
pub mod endpoint;
pub mod findings;
pub mod health;
pub mod host;
#[cfg(test)]
mod http_client;
pub mod install;
pub mod lease;
pub mod logging;
pub mod metrics;
pub mod notify;
pub mod preflight;
pub mod reconcile;
pub mod server;
pub mod store;
pub mod subnet_file;
pub mod translate;
pub mod uplink;
pub mod watch;
