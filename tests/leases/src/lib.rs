//! A real etcd for tests, on addresses of the loopback network that nobody else uses.

pub mod etcd;

pub use etcd::{Etcd, Member};
