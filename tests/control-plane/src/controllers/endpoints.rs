//! Endpoints, the older form of EndpointSlices: still what `kubectl describe service` reads before
//! 1.31.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Node, Service,
};
use k8s_openapi::api::discovery::v1::Endpoint;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::action::{Action, Deletion};
use super::controller::Controller;
use super::endpoint_slice::{HEADLESS, Port, desired_groups, selector, services_of_pod};
use super::labels::Labels;
use super::object::{Change, Key};
use super::snapshot::Snapshot;

const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";

/// The controller.
pub(crate) struct LegacyEndpoints;

impl Controller for LegacyEndpoints {
    fn name(&self) -> &'static str {
        "endpoints"
    }

    fn width(&self) -> usize {
        4
    }

    fn affected(&self, change: &Change, snapshot: &Snapshot) -> Vec<Key> {
        if change.key.is::<Service>() || change.key.is::<Endpoints>() {
            return vec![Key::new::<Service>(&change.key.namespace, &change.key.name)];
        }
        let came_or_went = change.before::<Node>().is_none() || change.after::<Node>().is_none();
        if change.key.is::<Node>() && came_or_went {
            let all = snapshot
                .services
                .iter()
                .filter(|service| selector(service).is_some());
            return all.map(|service| Key::of(service.as_ref())).collect();
        }
        services_of_pod(change, snapshot)
    }

    fn reconcile(&self, key: &Key, snapshot: &Snapshot, _now: Timestamp) -> Vec<Action> {
        let found = snapshot.endpoints.get(&key.namespace, &key.name);
        let Some(service) = snapshot.services.get(&key.namespace, &key.name) else {
            return found
                .filter(|endpoints| is_ours(endpoints))
                .map(|endpoints| Action::delete(endpoints.as_ref(), Deletion::default()))
                .into_iter()
                .collect();
        };
        if selector(service).is_none() {
            return Vec::new();
        }
        let subsets = subsets(service, snapshot);
        let labels = labels(service);
        let Some(found) = found else {
            return vec![Action::create(&Endpoints {
                metadata: ObjectMeta {
                    name: service.metadata.name.clone(),
                    namespace: service.metadata.namespace.clone(),
                    labels: Some(labels),
                    ..ObjectMeta::default()
                },
                subsets,
            })];
        };
        let mut new = found.as_ref().clone();
        new.metadata.labels = Some(labels);
        new.subsets = subsets;
        if new.subsets.is_none() && found.subsets.as_ref().is_some_and(Vec::is_empty) {
            new.subsets.clone_from(&found.subsets);
        }
        Action::update(found.as_ref(), &new, None)
            .into_iter()
            .collect()
    }
}

fn is_ours(endpoints: &Endpoints) -> bool {
    let labels = endpoints.metadata.labels.as_ref();
    labels
        .and_then(|labels| labels.get(MANAGED_BY))
        .is_some_and(|name| name == MANAGER)
}

fn labels(service: &Service) -> Labels {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    let spec = service.spec.as_ref();
    if spec.and_then(|spec| spec.cluster_ip.as_deref()) == Some("None") {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    labels
}

/// One subset per set of ports; of a dual-stack Service the first family only.
fn subsets(service: &Service, snapshot: &Snapshot) -> Option<Vec<EndpointSubset>> {
    let families = service
        .spec
        .as_ref()
        .and_then(|spec| spec.ip_families.as_ref());
    let first = families
        .and_then(|families| families.first())
        .map_or("IPv4", String::as_str);
    let groups = desired_groups(service, snapshot).endpoints;
    let subsets: Vec<EndpointSubset> = groups
        .into_iter()
        .filter(|((address_type, _), _)| address_type.as_str() == first)
        .filter_map(|((_, ports), endpoints)| {
            let (ready, rest): (Vec<Endpoint>, Vec<Endpoint>) = endpoints
                .into_values()
                .filter(|endpoint| !is_leaving(endpoint))
                .partition(is_ready);
            let addresses = addresses(ready);
            let not_ready_addresses = self::addresses(rest);
            let any = addresses.is_some() || not_ready_addresses.is_some();
            any.then(|| EndpointSubset {
                addresses,
                not_ready_addresses,
                ports: Some(ports.iter().map(to_port).collect()),
            })
        })
        .collect();
    (!subsets.is_empty()).then_some(subsets)
}

fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint
        .conditions
        .as_ref()
        .and_then(|conditions| conditions.ready)
        == Some(true)
}

/// A pod on its way out is listed only where even unready pods are.
fn is_leaving(endpoint: &Endpoint) -> bool {
    let leaving = endpoint
        .conditions
        .as_ref()
        .and_then(|conditions| conditions.terminating);
    leaving == Some(true) && !is_ready(endpoint)
}

fn addresses(endpoints: Vec<Endpoint>) -> Option<Vec<EndpointAddress>> {
    let addresses: Vec<EndpointAddress> = endpoints
        .into_iter()
        .filter_map(|endpoint| {
            Some(EndpointAddress {
                ip: endpoint.addresses.into_iter().next()?,
                hostname: endpoint.hostname,
                node_name: endpoint.node_name,
                target_ref: endpoint.target_ref,
            })
        })
        .collect();
    (!addresses.is_empty()).then_some(addresses)
}

fn to_port(port: &Port) -> EndpointPort {
    let port = port.to_endpoint_port();
    EndpointPort {
        name: port.name.filter(|name| !name.is_empty()),
        port: port.port.unwrap_or_default(),
        protocol: port.protocol,
        app_protocol: port.app_protocol,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{ago, now, snapshot};
    use super::*;
    use pretty_assertions::assert_eq;
    use serde_json::{Value, json};

    fn service() -> Value {
        json!({"apiVersion": "v1", "kind": "Service",
               "metadata": {"name": "web", "namespace": "shop", "labels": {"tier": "front"}},
               "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}})
    }

    fn pod(name: &str, address: &str, ready: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "Pod",
               "metadata": {"name": name, "namespace": "shop", "labels": {"app": "web"}},
               "spec": {"containers": []},
               "status": {"podIP": address, "conditions": [{"type": "Ready", "status": ready}]}})
    }

    fn reconcile(objects: &[Value]) -> Vec<Action> {
        let key = Key::new::<Service>("shop", "web");
        LegacyEndpoints.reconcile(&key, &snapshot(objects), now())
    }

    fn wanted() -> Value {
        let address = |name: &str, address: &str| {
            json!({"ip": address, "targetRef": {"kind": "Pod", "namespace": "shop", "name": name,
                                                "uid": format!("{name}-uid")}})
        };
        json!({
            "apiVersion": "v1", "kind": "Endpoints",
            "metadata": {"name": "web", "namespace": "shop", "labels": {
                "tier": "front", "endpoints.kubernetes.io/managed-by": "endpoint-controller"}},
            "subsets": [{"addresses": [address("a", "10.244.0.2")],
                         "notReadyAddresses": [address("b", "10.244.0.3")],
                         "ports": [{"port": 8080, "protocol": "TCP"}]}],
        })
    }

    #[test]
    fn ready_and_unready_addresses_are_listed_apart_and_leaving_ones_not_at_all() {
        let mut leaving = pod("c", "10.244.0.4", "True");
        leaving["metadata"]["deletionTimestamp"] = json!(ago(1));
        let pods = [
            pod("a", "10.244.0.2", "True"),
            pod("b", "10.244.0.3", "False"),
            leaving,
        ];
        let mut objects = vec![service()];
        objects.extend(pods);
        let actions = reconcile(&objects);
        let [Action::Create { object, .. }] = &actions[..] else {
            panic!("one creation expected, not {actions:?}")
        };
        assert_eq!(object, &wanted());
        objects.push(wanted());
        assert_eq!(reconcile(&objects), []);
    }

    #[test]
    fn endpoints_go_with_their_service_if_they_came_with_it() {
        let deletion = Action::Delete {
            key: Key::new::<Endpoints>("shop", "web"),
            uid: "web-uid".to_owned(),
            how: Deletion::default(),
        };
        assert_eq!(reconcile(&[wanted()]), [deletion]);
        let mut manual = wanted();
        manual["metadata"]["labels"] = json!({});
        assert_eq!(reconcile(&[manual]), []);
    }
}
