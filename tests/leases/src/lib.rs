//! A real etcd for tests, on addresses of the loopback network that nobody else uses.

pub mod certificates;
pub mod crowd;
pub mod etcd;
pub mod flanneld;
pub mod proxy;
pub mod requests;
pub mod wire;

pub use certificates::Authority;
pub use etcd::{Etcd, Member, Settings};
pub use flanneld::Flanneld;
pub use proxy::Proxy;
pub use wire::Wire;
