//! Towline's test control plane: a small but real Kubernetes API server with controllers and a
//! scheduler in one process.

pub mod store;
