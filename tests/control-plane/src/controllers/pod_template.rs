//! Pods made from a template.

use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::{Metadata, Resource};

use super::object::{controller_reference, name_of};

/// Longest base of a generated name: names end with 5 characters more.
const LONGEST_BASE: usize = 58;

/// A new pod of `owner`, named by the server.
pub(crate) fn pod_of<O>(owner: &O, template: &PodTemplateSpec) -> Pod
where
    O: Resource + Metadata<Ty = ObjectMeta>,
{
    let metadata = owner.metadata();
    let shape = template.metadata.clone().unwrap_or_default();
    let mut base = name_of(metadata).to_owned();
    base.truncate(LONGEST_BASE - 1);
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{base}-")),
            namespace: metadata.namespace.clone(),
            labels: shape.labels,
            annotations: shape.annotations,
            finalizers: shape.finalizers,
            owner_references: Some(vec![controller_reference(owner)]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}
