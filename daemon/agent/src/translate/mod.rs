//! Kubernetes objects to the domain's values: bad input stops here.
//!
//! A part that cannot be understood is left out in the direction that is safe (a policy rule
//! allows less, a node is not reached, an endpoint gets no traffic) and reported; everything else
//! of the object counts. An object is refused whole only when nothing of it can be used.

mod endpoint_slice;
mod fields;
mod namespace;
mod network_policy;
mod node;
mod pod;
mod service;

use thiserror::Error;

pub use endpoint_slice::endpoint_slice;
pub use namespace::namespace;
pub use network_policy::network_policy;
pub use node::{AnnotationKeys, PrefixError, node};
pub use pod::pod;
pub use service::service;

/// A field of a Kubernetes object that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{object}: {field} {value:?}: {remedy}")]
pub struct TranslateError {
    /// Kind and name of the object, for example `Pod default/web`.
    pub object: String,
    /// The field's path, for example `spec.ingress[0].ports[1].port`.
    pub field: String,
    /// What the field holds.
    pub value: String,
    /// What is wrong with it and what would be right.
    pub remedy: String,
}

/// An object's value and whatever had to be left out of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Translated<T> {
    /// The domain's value.
    pub value: T,
    /// The fields left out.
    pub problems: Vec<TranslateError>,
}
