//! Endpoints, policies, ingresses, ranges.

use k8s_openapi::api::{discovery::v1 as discovery, networking::v1 as networking};

use super::super::resource::{Resource, Rules};
use super::{RULES, kind, workload};
use crate::{defaults, table, validation};

pub(super) fn table() -> Vec<Resource> {
    vec![
        endpoint_slice(),
        network_policy(),
        ingress(),
        ingress_class(),
        ipaddress(),
        service_cidr(),
    ]
}

fn endpoint_slice() -> Resource {
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
    }
}

fn network_policy() -> Resource {
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
    }
}

fn ingress() -> Resource {
    Resource {
        short_names: &["ing"],
        ..workload::<networking::Ingress>("ingresses", "ingress")
    }
}

fn ingress_class() -> Resource {
    Resource {
        namespaced: false,
        generation: true,
        ..kind::<networking::IngressClass>("ingressclasses", "ingressclass")
    }
}

fn ipaddress() -> Resource {
    Resource {
        short_names: &["ip"],
        namespaced: false,
        ..kind::<networking::IPAddress>("ipaddresses", "ipaddress")
    }
}

fn service_cidr() -> Resource {
    Resource {
        namespaced: false,
        status: true,
        ..kind::<networking::ServiceCIDR>("servicecidrs", "servicecidr")
    }
}
