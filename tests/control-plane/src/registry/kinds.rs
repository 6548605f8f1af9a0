//! The table of kinds.

use std::sync::Arc;

use k8s_openapi::api::{
    apps::v1 as apps, authentication::v1 as authentication, authorization::v1 as authorization,
    batch::v1 as batch, coordination::v1 as coordination, core::v1 as core,
    discovery::v1 as discovery, events::v1 as events, networking::v1 as networking,
    policy::v1 as policy, rbac::v1 as rbac, scheduling::v1 as scheduling, storage::v1 as storage,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::fields;
use super::resource::{Conversion, NameRule, Resource, Rules, Subresource, Verbs};
use crate::{conversion, defaults, table, validation};

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
    let mut table = core_kinds();
    table.extend(app_kinds());
    table.extend(network_kinds());
    table.extend(plain_kinds());
    table.extend(reviews());
    table
}

fn core_kinds() -> Vec<Resource> {
    vec![
        Resource {
            namespaced: false,
            short_names: &["ns"],
            status: true,
            subresources: &[FINALIZE],
            fields: fields::namespace,
            rules: Rules {
                name: NameRule::Label,
                create: defaults::namespace::create,
                default: defaults::namespace::fill,
                ..RULES
            },
            columns: table::NAMESPACE,
            ..kind::<core::Namespace>("namespaces", "namespace")
        },
        Resource {
            namespaced: false,
            short_names: &["no"],
            status: true,
            fields: fields::node,
            rules: Rules {
                validate_update: validation::node_change,
                ..RULES
            },
            columns: table::NODE,
            ..kind::<core::Node>("nodes", "node")
        },
        Resource {
            short_names: &["po"],
            categories: &["all"],
            graceful: true,
            returns_deleted: true,
            subresources: &[BINDING, EVICTION],
            fields: fields::pod,
            rules: Rules {
                create: defaults::pod::create,
                default: defaults::pod::fill,
                validate: validation::pod::check,
                validate_update: validation::pod::check_change,
                ..RULES
            },
            columns: table::POD,
            ..workload::<core::Pod>("pods", "pod")
        },
        Resource {
            short_names: &["svc"],
            categories: &["all"],
            status: true,
            returns_deleted: true,
            fields: fields::service,
            rules: Rules {
                name: NameRule::Label1035,
                create: defaults::service::create,
                update: defaults::service::update,
                default: defaults::service::fill,
                validate: validation::service::check,
                validate_update: validation::service::check_change,
            },
            columns: table::SERVICE,
            ..kind::<core::Service>("services", "service")
        },
        Resource {
            short_names: &["ep"],
            rules: Rules {
                default: defaults::endpoints,
                ..RULES
            },
            columns: table::ENDPOINTS,
            ..kind::<core::Endpoints>("endpoints", "endpoints")
        },
        Resource {
            short_names: &["cm"],
            rules: Rules {
                validate: validation::config::check,
                validate_update: validation::config::check_change,
                ..RULES
            },
            columns: table::CONFIG_MAP,
            ..kind::<core::ConfigMap>("configmaps", "configmap")
        },
        Resource {
            fields: fields::secret,
            rules: Rules {
                default: defaults::secret,
                validate: validation::config::check,
                validate_update: validation::config::check_change,
                ..RULES
            },
            columns: table::SECRET,
            ..kind::<core::Secret>("secrets", "secret")
        },
        Resource {
            short_names: &["sa"],
            returns_deleted: true,
            columns: table::SERVICE_ACCOUNT,
            ..kind::<core::ServiceAccount>("serviceaccounts", "serviceaccount")
        },
        Resource {
            short_names: &["ev"],
            fields: fields::event,
            columns: table::EVENT,
            ..kind::<core::Event>("events", "event")
        },
        Resource {
            short_names: &["ev"],
            storage: Arc::from("events"),
            conversion: Some(Conversion {
                store: conversion::event_to_core,
                serve: conversion::event_from_core,
            }),
            fields: fields::event,
            columns: table::EVENT,
            ..kind::<events::Event>("events", "event")
        },
    ]
}

fn app_kinds() -> Vec<Resource> {
    vec![
        Resource {
            short_names: &["deploy"],
            categories: &["all"],
            subresources: &[SCALE],
            rules: Rules {
                create: defaults::drop_status,
                default: defaults::apps::deployment,
                validate: validation::apps::check,
                validate_update: validation::apps::check_change,
                ..RULES
            },
            columns: table::DEPLOYMENT,
            ..workload::<apps::Deployment>("deployments", "deployment")
        },
        Resource {
            short_names: &["rs"],
            categories: &["all"],
            subresources: &[SCALE],
            fields: fields::replica_set,
            rules: Rules {
                create: defaults::drop_status,
                default: defaults::apps::replica_set,
                validate: validation::apps::check,
                validate_update: validation::apps::check_change,
                ..RULES
            },
            columns: table::REPLICA_SET,
            ..workload::<apps::ReplicaSet>("replicasets", "replicaset")
        },
        Resource {
            short_names: &["ds"],
            categories: &["all"],
            rules: Rules {
                create: defaults::drop_status,
                default: defaults::apps::daemon_set,
                validate: validation::apps::check,
                validate_update: validation::apps::check_change,
                ..RULES
            },
            columns: table::DAEMON_SET,
            ..workload::<apps::DaemonSet>("daemonsets", "daemonset")
        },
        Resource {
            short_names: &["sts"],
            categories: &["all"],
            subresources: &[SCALE],
            rules: Rules {
                create: defaults::drop_status,
                default: defaults::apps::stateful_set,
                validate: validation::apps::check,
                validate_update: validation::apps::check_change,
                ..RULES
            },
            columns: table::STATEFUL_SET,
            ..workload::<apps::StatefulSet>("statefulsets", "statefulset")
        },
        kind::<apps::ControllerRevision>("controllerrevisions", "controllerrevision"),
        Resource {
            categories: &["all"],
            fields: fields::job,
            rules: Rules {
                create: defaults::drop_status,
                default: defaults::apps::job,
                ..RULES
            },
            ..workload::<batch::Job>("jobs", "job")
        },
        Resource {
            short_names: &["cj"],
            categories: &["all"],
            ..workload::<batch::CronJob>("cronjobs", "cronjob")
        },
    ]
}

fn network_kinds() -> Vec<Resource> {
    vec![
        Resource {
            rules: Rules {
                default: defaults::endpoint_slice,
                validate: validation::network::endpoint_slice,
                validate_update: validation::network::endpoint_slice_change,
                ..RULES
            },
            generation: true,
            columns: table::ENDPOINT_SLICE,
            ..kind::<discovery::EndpointSlice>("endpointslices", "endpointslice")
        },
        Resource {
            short_names: &["netpol"],
            generation: true,
            rules: Rules {
                default: defaults::network_policy,
                validate: validation::network::network_policy,
                ..RULES
            },
            columns: table::NETWORK_POLICY,
            ..kind::<networking::NetworkPolicy>("networkpolicies", "networkpolicy")
        },
        Resource {
            short_names: &["ing"],
            ..workload::<networking::Ingress>("ingresses", "ingress")
        },
        Resource {
            namespaced: false,
            generation: true,
            ..kind::<networking::IngressClass>("ingressclasses", "ingressclass")
        },
        Resource {
            short_names: &["ip"],
            namespaced: false,
            ..kind::<networking::IPAddress>("ipaddresses", "ipaddress")
        },
        Resource {
            namespaced: false,
            status: true,
            ..kind::<networking::ServiceCIDR>("servicecidrs", "servicecidr")
        },
    ]
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
