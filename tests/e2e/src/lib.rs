//! What the end-to-end tests need around the lab: a runner with one shared cluster, a look at what
//! the machine holds before and after, and the documentation's examples.

pub mod examples;
pub mod leaving;
pub mod runner;
pub mod snapshot;
