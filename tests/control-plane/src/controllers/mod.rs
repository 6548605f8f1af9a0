//! Controllers: event-driven loops over the in-process client.

mod action;
mod cache;
mod controller;
mod endpoint_slice;
mod identities;
mod labels;
mod node_ipam;
mod object;
mod ownership;
mod pod_state;
mod pod_template;
mod replica_set;
mod snapshot;
#[cfg(test)]
mod testing;
mod workqueue;
