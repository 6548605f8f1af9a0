//! Tap devices.

use serde::{Deserialize, Serialize};

use crate::names::IfName;

/// A tap device that stays when nobody has it open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tap {
    /// Its name.
    pub name: IfName,
    /// Whether several processes, or threads, may each have a queue of it.
    pub multi_queue: bool,
    /// The user that may open it besides root.
    pub owner: Option<u32>,
    /// The group that may open it besides root.
    pub group: Option<u32>,
    /// The SELinux context that it is created in.
    pub selinux_context: Option<String>,
}
