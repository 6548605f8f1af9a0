//! The lab: a Kubernetes cluster out of network namespaces on one machine, its node agent, the demo and
//! the connectivity checks. Test code: nothing of the product depends on it.

pub mod agent;
pub mod applet;
pub mod cgroup;
pub mod cluster;
pub mod command;
pub mod diagnose;
pub mod enter;
pub mod layout;
pub mod namespace;
pub mod node;
pub mod process;
pub mod state;
pub mod wait;
pub mod wire;
