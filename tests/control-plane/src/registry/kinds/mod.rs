//! The table of kinds.

mod apps;
mod core;
mod network;

use std::sync::Arc;

use k8s_openapi::api::{
    authentication::v1 as authentication, authorization::v1 as authorization,
    coordination::v1 as coordination, policy::v1 as policy, rbac::v1 as rbac,
    scheduling::v1 as scheduling, storage::v1 as storage,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::fields;
use super::resource::{NameRule, Resource, Rules, Subresource, Verbs};
use crate::{defaults, table, validation};

/// Reads a value as `K` and writes it again: what is lost on the way is unknown to the kind.
fn decode<K: DeserializeOwned + Serialize>(object: Value) -> serde_json::Result<Value> {
    serde_json::to_value(serde_json::from_value::<K>(object)?)
}

const RULES: Rules = Rules {
    name: NameRule::Subdomain,
    create: defaults::nothing,
    update: defaults::unchanged,
    default: defaults::nothing,
    validate: validation::anything,
    validate_update: validation::any_change,
};

const fn verbs(
    name: &'static str,
    kind: &'static str,
    verbs: &'static [&'static str],
) -> Subresource {
    Subresource {
        name,
        group: "",
        version: "v1",
        kind,
        verbs,
    }
}

const BINDING: Subresource = verbs("binding", "Binding", &["create"]);
const FINALIZE: Subresource = verbs("finalize", "Namespace", &["update"]);
const EVICTION: Subresource = Subresource {
    group: "policy",
    ..verbs("eviction", "Eviction", &["create"])
};
const SCALE: Subresource = Subresource {
    group: "autoscaling",
    ..verbs("scale", "Scale", &["get", "patch", "update"])
};

/// A namespaced kind without rules, fields or columns of its own.
fn kind<K>(plural: &'static str, singular: &'static str) -> Resource
where
    K: k8s_openapi::Resource + DeserializeOwned + Serialize,
{
    let storage = match K::GROUP {
        "" => plural.to_owned(),
        group => format!("{group}/{plural}"),
    };
    Resource {
        group: K::GROUP,
        version: K::VERSION,
        kind: K::KIND,
        plural,
        singular,
        short_names: &[],
        categories: &[],
        namespaced: true,
        verbs: Verbs::All,
        status: false,
        generation: false,
        graceful: false,
        returns_deleted: false,
        subresources: &[],
        storage: Arc::from(storage),
        conversion: None,
        fields: fields::none,
        decode: decode::<K>,
        rules: RULES,
        columns: table::DEFAULT,
    }
}

/// A kind with status and generation.
fn workload<K>(plural: &'static str, singular: &'static str) -> Resource
where
    K: k8s_openapi::Resource + DeserializeOwned + Serialize,
{
    Resource {
        status: true,
        generation: true,
        rules: Rules {
            create: defaults::drop_status,
            ..RULES
        },
        ..kind::<K>(plural, singular)
    }
}

pub(super) fn table() -> Vec<Resource> {
    let mut table = core::table();
    table.extend(apps::table());
    table.extend(network::table());
    table.extend(plain_kinds());
    table.extend(reviews());
    table
}

/// Kinds that are stored and served, and mean nothing to this control plane.
fn plain_kinds() -> Vec<Resource> {
    let segment = Rules {
        name: NameRule::Segment,
        ..RULES
    };
    vec![
        Resource {
            columns: table::LEASE,
            ..kind::<coordination::Lease>("leases", "lease")
        },
        Resource {
            short_names: &["pdb"],
            ..workload::<policy::PodDisruptionBudget>("poddisruptionbudgets", "poddisruptionbudget")
        },
        Resource {
            rules: segment,
            ..kind::<rbac::Role>("roles", "role")
        },
        Resource {
            rules: segment,
            ..kind::<rbac::RoleBinding>("rolebindings", "rolebinding")
        },
        Resource {
            rules: segment,
            namespaced: false,
            ..kind::<rbac::ClusterRole>("clusterroles", "clusterrole")
        },
        Resource {
            rules: segment,
            namespaced: false,
            ..kind::<rbac::ClusterRoleBinding>("clusterrolebindings", "clusterrolebinding")
        },
        Resource {
            short_names: &["pc"],
            namespaced: false,
            ..kind::<scheduling::PriorityClass>("priorityclasses", "priorityclass")
        },
        Resource {
            short_names: &["sc"],
            namespaced: false,
            ..kind::<storage::StorageClass>("storageclasses", "storageclass")
        },
    ]
}

/// Questions, which are answered and not kept.
fn reviews() -> Vec<Resource> {
    let question = |resource: Resource| Resource {
        verbs: Verbs::Create,
        ..resource
    };
    let cluster = |resource: Resource| Resource {
        namespaced: false,
        ..question(resource)
    };
    vec![
        cluster(kind::<authentication::SelfSubjectReview>(
            "selfsubjectreviews",
            "selfsubjectreview",
        )),
        cluster(kind::<authorization::SelfSubjectAccessReview>(
            "selfsubjectaccessreviews",
            "selfsubjectaccessreview",
        )),
        cluster(kind::<authorization::SelfSubjectRulesReview>(
            "selfsubjectrulesreviews",
            "selfsubjectrulesreview",
        )),
        cluster(kind::<authorization::SubjectAccessReview>(
            "subjectaccessreviews",
            "subjectaccessreview",
        )),
        question(kind::<authorization::LocalSubjectAccessReview>(
            "localsubjectaccessreviews",
            "localsubjectaccessreview",
        )),
    ]
}
