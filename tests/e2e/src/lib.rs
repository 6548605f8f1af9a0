//! What the end-to-end tests need around the lab: a runner with one shared cluster, and a look at what
//! the machine holds before and after.

pub mod runner;
pub mod snapshot;
