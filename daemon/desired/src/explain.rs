//! Why a packet would or would not arrive, from wanted state and without sending any.

mod query;
#[cfg(test)]
mod tests;
mod view;

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use query::{Destination, Place, QueryError};

use crate::cluster::Cluster;
use crate::explain::view::View;
use crate::names::{NodeName, PodName, PortNumber, Protocol};
use crate::policy::evaluate::Decision;
use crate::services::{Endpoint, ServicePortName};

/// A question that cannot be answered.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ExplainError {
    /// There is no such object.
    #[error("{what} {name}: no such {kinds} in the cluster: check namespace and name")]
    Unknown {
        /// `source` or `destination`.
        what: &'static str,
        /// The name as asked.
        name: String,
        /// What was looked for.
        kinds: &'static str,
    },
    /// An object without an address (of the other end's family).
    #[error("{what} {name}: it has no address {family}: it may not run yet, or be headless")]
    NoAddress {
        /// `source` or `destination`.
        what: &'static str,
        /// The name as asked.
        name: String,
        /// `yet`, or `of the other end's family`.
        family: &'static str,
    },
}

/// One end of a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct End {
    /// Its address.
    pub address: IpAddr,
    /// The pod that has the address.
    pub pod: Option<PodName>,
    /// The node that the pod runs on, or that has the address itself.
    pub node: Option<NodeName>,
    /// For pods of this node: whether their policy is in force. Until then nothing passes.
    pub in_force: Option<bool>,
}

/// The service that a destination is a frontend of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Frontend {
    /// The service port.
    pub service: ServicePortName,
    /// Whether only endpoints on the client's node are used.
    pub local_only: bool,
    /// For how many seconds a client sticks to its endpoint.
    pub affinity_seconds: Option<u32>,
    /// All endpoints, used or not.
    pub endpoints: Vec<Endpoint>,
}

/// One way that a flow can take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Path {
    /// Where it ends, after service translation.
    pub destination: End,
    /// The port there; `None` for ICMP.
    pub port: Option<u16>,
    /// What the source's policies say; `None` when the source is no pod.
    pub egress: Option<Decision>,
    /// What the destination's policies say; `None` when it is no pod.
    pub ingress: Option<Decision>,
    /// Whether the pod reaches itself, which no policy prevents.
    pub hairpin: bool,
    /// Whether a flow may take it.
    pub open: bool,
}

/// What becomes of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// Every path is open.
    Allowed,
    /// Some paths are open: it depends on the endpoint that is chosen.
    Partly,
    /// No path is open: packets are dropped.
    Denied,
    /// The service has no endpoints: connections are refused.
    Refused,
    /// A service of a protocol that is not balanced (SCTP): packets are lost.
    Unsupported,
    /// The service has endpoints, but not on the client's node, and uses only those: packets are
    /// dropped.
    NoLocalEndpoint,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// Who opens the flow.
    pub source: End,
    /// What the source dials.
    pub dialled: End,
    /// The dialled port and protocol; `None` for ICMP.
    pub port: Option<(PortNumber, Protocol)>,
    /// The service, when what is dialled is a frontend.
    pub frontend: Option<Frontend>,
    /// Every path: one, or one per endpoint in use.
    pub paths: Vec<Path>,
    /// What becomes of the flow.
    pub verdict: Verdict,
}

/// Explains what happens to a flow from a pod or address to a pod, service or address.
///
/// A name as destination is a service's if a port of it is asked for and there is one, else a
/// pod's. Services are judged as this node sees them if the source is not a pod.
///
/// # Errors
/// When a name is not in the cluster or has no address.
pub fn why(
    cluster: &Cluster,
    source: &Place,
    destination: &Destination,
) -> Result<Explanation, ExplainError> {
    let view = View::new(cluster);
    let targets = view.destination_addresses(destination, source)?;
    let sources = view.source_addresses(source)?;
    let pair = targets.iter().find_map(|&target| {
        let source = sources
            .iter()
            .find(|source| source.is_ipv4() == target.is_ipv4())?;
        Some((*source, target))
    });
    let Some((source, dialled)) = pair else {
        let name = display(&destination.place);
        let family = "of the other end's family";
        return Err(ExplainError::NoAddress {
            what: "destination",
            name,
            family,
        });
    };
    Ok(view.explain(source, dialled, destination.port))
}

fn unknown(what: &'static str, place: &Place, kinds: &'static str) -> ExplainError {
    ExplainError::Unknown {
        what,
        name: display(place),
        kinds,
    }
}

fn display(place: &Place) -> String {
    match place {
        Place::Address(address) => address.to_string(),
        Place::Named(namespace, name) => format!("{namespace}/{name}"),
    }
}
