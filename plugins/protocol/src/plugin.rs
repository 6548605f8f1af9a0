//! What a plugin is to the run loop.

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::request::{self, Request};
use crate::result::AddResult;

/// A container's interface, as GC names the ones that are still wanted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Attachment {
    /// Container.
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// Interface in the container.
    pub ifname: String,
}

// === impl Attachment ===

impl Attachment {
    /// Whether both names are what a runtime may give; file names may be made of them then.
    ///
    /// # Errors
    /// Code 4 naming the one that is not.
    pub fn check(&self) -> Result<(), Error> {
        request::check_container_id(&self.container_id)?;
        request::check_ifname(&self.ifname)
    }
}

/// A CNI plugin. Every command gets a request that the run loop has checked.
pub trait Plugin: Sync {
    /// Its name, which is also its file name.
    fn name(&self) -> &'static str;

    /// Attaches a container. On failure nothing must be left behind.
    ///
    /// # Errors
    /// Whatever the runtime should be told.
    fn add(&self, request: &Request<'_>) -> Result<AddResult, Error>;

    /// Detaches a container, as far as anything is there; what is missing is no error.
    ///
    /// # Errors
    /// When something that is there cannot be removed.
    fn delete(&self, request: &Request<'_>) -> Result<(), Error>;

    /// Checks that everything is as ADD left it.
    ///
    /// # Errors
    /// When something of its own is missing or differs.
    fn check(&self, request: &Request<'_>) -> Result<(), Error>;

    /// Removes what belongs to no attachment in `valid`. `None` when the runtime did not say which
    /// are valid: nothing is removed then, but delegates are still told.
    ///
    /// # Errors
    /// The first failure, after everything else was tried.
    fn gc(&self, request: &Request<'_>, valid: Option<&[Attachment]>) -> Result<(), Error>;

    /// Whether an ADD could be served now.
    ///
    /// # Errors
    /// Code 50 or 51 when not.
    fn status(&self, request: &Request<'_>) -> Result<(), Error>;
}
