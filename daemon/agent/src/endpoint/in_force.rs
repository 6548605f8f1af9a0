//! Which endpoints' policy is in force, as the policy loop says after each pass.

use std::collections::BTreeMap;
use std::sync::Arc;

use desired::cluster::{EndpointId, LocalEndpoint};

/// What the policy loop last achieved, per endpoint that it knew of.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct InForce {
    /// Endpoints whose programs are attached and whose tables are in the kernel, with the
    /// revision of those tables. The endpoint is the one the pass saw: a later registration
    /// under the same id is not in force by this.
    pub ready: BTreeMap<EndpointId, (Arc<LocalEndpoint>, u32)>,
    /// The other endpoints, with what they wait for.
    pub waiting: BTreeMap<EndpointId, Waiting>,
}

/// Why an endpoint is still closed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Waiting {
    /// The API server has not told of the pod (or told of another pod of this name).
    #[error("the pod's object has not been seen from the API server")]
    Pod,
    /// The kernel refused something; the pass's first error.
    #[error("the tables could not be applied: {0}")]
    Tables(String),
}

// === impl InForce ===

impl InForce {
    /// The revision in force for exactly `endpoint`.
    #[must_use]
    pub fn revision(&self, endpoint: &LocalEndpoint) -> Option<u32> {
        let (ready, revision) = self.ready.get(&endpoint.id)?;
        (**ready == *endpoint).then_some(*revision)
    }
}
