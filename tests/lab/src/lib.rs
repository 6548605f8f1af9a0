//! The lab: a Kubernetes cluster out of network namespaces on one machine, its node agent, the demo and
//! the connectivity checks. Test code: nothing of the product depends on it.

pub mod agent;
pub mod applet;
pub mod capture;
pub mod cgroup;
pub mod client;
pub mod cluster;
pub mod command;
pub mod daemons;
pub mod demo;
pub mod diagnose;
pub mod enter;
pub mod etcd;
pub mod layout;
pub mod matrix;
pub mod namespace;
pub mod node;
pub mod overlay;
mod place;
pub mod process;
pub mod state;
pub mod wait;
pub mod wire;
