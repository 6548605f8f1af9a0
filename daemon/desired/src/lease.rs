//! Leases: which node has which pod subnet, in the form that flannel keeps them in etcd.
//!
//! A lease is a key (the subnets) and a value (how to reach their node). Pure: what to do next is
//! decided here from what the store holds; the store does it and asks again.

pub mod acquire;
pub mod attributes;
pub mod key;
pub mod obstacle;
pub mod pool;

pub use acquire::{Claim, Held, Step};
pub use attributes::Attributes;
pub use key::LeaseKey;
pub use obstacle::{Holder, Obstacle, Standing};
pub use pool::{Pool, PoolError, Pools};
