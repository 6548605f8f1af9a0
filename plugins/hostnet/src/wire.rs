//! Netlink messages as bytes: headers, attributes, and the kernel's numbers.

pub(crate) mod message;
pub(crate) mod nf;
pub(crate) mod rt;
