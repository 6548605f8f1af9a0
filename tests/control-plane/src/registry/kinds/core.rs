//! The core group, and Events in both their groups.

use std::sync::Arc;

use k8s_openapi::api::{core::v1 as core, events::v1 as events};

use super::super::fields;
use super::super::resource::{Conversion, NameRule, Resource, Rules};
use super::{BINDING, EVICTION, FINALIZE, RULES, kind, workload};
use crate::{conversion, defaults, table, validation};

pub(super) fn table() -> Vec<Resource> {
    vec![
        namespace(),
        node(),
        pod(),
        service(),
        endpoints(),
        config_map(),
        secret(),
        service_account(),
        event(),
        new_event(),
    ]
}

fn namespace() -> Resource {
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
    }
}

fn node() -> Resource {
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
    }
}

fn pod() -> Resource {
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
    }
}

fn service() -> Resource {
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
    }
}

fn endpoints() -> Resource {
    Resource {
        short_names: &["ep"],
        rules: Rules {
            default: defaults::endpoints,
            ..RULES
        },
        columns: table::ENDPOINTS,
        ..kind::<core::Endpoints>("endpoints", "endpoints")
    }
}

fn config_map() -> Resource {
    Resource {
        short_names: &["cm"],
        rules: Rules {
            validate: validation::config::check,
            validate_update: validation::config::check_change,
            ..RULES
        },
        columns: table::CONFIG_MAP,
        ..kind::<core::ConfigMap>("configmaps", "configmap")
    }
}

fn secret() -> Resource {
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
    }
}

fn service_account() -> Resource {
    Resource {
        short_names: &["sa"],
        returns_deleted: true,
        columns: table::SERVICE_ACCOUNT,
        ..kind::<core::ServiceAccount>("serviceaccounts", "serviceaccount")
    }
}

fn event() -> Resource {
    Resource {
        short_names: &["ev"],
        fields: fields::event,
        columns: table::EVENT,
        ..kind::<core::Event>("events", "event")
    }
}

fn new_event() -> Resource {
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
    }
}
