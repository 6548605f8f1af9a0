//! Towline's test control plane: a small but real Kubernetes API server with controllers and a
//! scheduler in one process.

pub mod allocate;
pub mod client;
pub mod config;
pub mod controllers;
mod conversion;
mod defaults;
pub mod discovery;
mod json;
pub mod openapi;
pub mod patch;
pub mod registry;
pub mod rest;
pub mod run;
pub mod scheduler;
pub mod selector;
pub mod serve;
pub mod status;
pub mod store;
pub mod table;
pub mod tls;
mod validation;
