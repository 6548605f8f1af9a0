//! Workloads.

use k8s_openapi::api::{apps::v1 as apps, batch::v1 as batch};

use super::super::fields;
use super::super::resource::{Resource, Rules};
use super::{RULES, SCALE, kind, workload};
use crate::{defaults, table, validation};

pub(super) fn table() -> Vec<Resource> {
    vec![
        deployment(),
        replica_set(),
        daemon_set(),
        stateful_set(),
        controller_revision(),
        job(),
        cron_job(),
    ]
}

fn deployment() -> Resource {
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
    }
}

fn replica_set() -> Resource {
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
    }
}

fn daemon_set() -> Resource {
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
    }
}

fn stateful_set() -> Resource {
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
    }
}

fn controller_revision() -> Resource {
    kind::<apps::ControllerRevision>("controllerrevisions", "controllerrevision")
}

fn job() -> Resource {
    Resource {
        categories: &["all"],
        fields: fields::job,
        rules: Rules {
            create: defaults::drop_status,
            default: defaults::apps::job,
            ..RULES
        },
        ..workload::<batch::Job>("jobs", "job")
    }
}

fn cron_job() -> Resource {
    Resource {
        short_names: &["cj"],
        categories: &["all"],
        ..workload::<batch::CronJob>("cronjobs", "cronjob")
    }
}
