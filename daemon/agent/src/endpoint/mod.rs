//! Pod interfaces on this node: what the CNI plugin registers, and when its policy is in force.

mod api;
mod in_force;
mod registration;
mod registry;

#[cfg(test)]
mod tests;

pub use self::api::{Endpoints, router};
pub use self::in_force::{InForce, Waiting};
pub use self::registration::{BadRegistration, Registration};
pub use self::registry::Registry;
