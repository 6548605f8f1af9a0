//! What a cluster has from its first moment: four namespaces, and the `kubernetes` Service that leads
//! to the API server. Restored when somebody deletes or changes it.

use ipnetwork::IpNetwork;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::EndpointPort as EndpointsPort;
use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointSubset, Endpoints, Namespace, Service, ServicePort, ServiceSpec,
};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use super::action::Action;
use super::controller::Controller;
use super::endpoint_slice::SERVICE_NAME;
use super::object::{Change, Key};
use super::snapshot::Snapshot;

const NAMESPACES: [&str; 4] = ["default", "kube-node-lease", "kube-public", "kube-system"];
const NAMESPACE: &str = "default";
const NAME: &str = "kubernetes";
const PORT_NAME: &str = "https";
const PORT: i32 = 443;

/// The controller.
pub(crate) struct Bootstrap {
    service_cidr: IpNetwork,
    advertise: SocketAddr,
}

impl Bootstrap {
    /// The `kubernetes` Service gets the first address of `service_cidr` and leads to `advertise`.
    pub(crate) fn new(service_cidr: IpNetwork, advertise: SocketAddr) -> Self {
        Self {
            service_cidr,
            advertise,
        }
    }
}

impl Controller for Bootstrap {
    fn name(&self) -> &'static str {
        "bootstrap"
    }

    fn initial(&self) -> Vec<Key> {
        NAMESPACES
            .iter()
            .map(|name| Key::new::<Namespace>("", name))
            .chain([
                Key::new::<Service>(NAMESPACE, NAME),
                Key::new::<EndpointSlice>(NAMESPACE, NAME),
                Key::new::<Endpoints>(NAMESPACE, NAME),
            ])
            .collect()
    }

    fn affected(&self, change: &Change, _snapshot: &Snapshot) -> Vec<Key> {
        let keys = self.initial();
        if change.key.is::<Namespace>() && change.key.name == NAMESPACE {
            return keys;
        }
        keys.into_iter().filter(|key| *key == change.key).collect()
    }

    fn reconcile(&self, key: &Key, snapshot: &Snapshot, _now: Timestamp) -> Vec<Action> {
        let (namespace, name) = (key.namespace.as_str(), key.name.as_str());
        if key.is::<Namespace>() {
            return match snapshot.namespaces.get("", name) {
                Some(_) => Vec::new(),
                None => vec![Action::create(&self::namespace(name))],
            };
        }
        // Without its namespace nothing can be created; the namespace's arrival brings us back.
        if snapshot.namespaces.get("", NAMESPACE).is_none() {
            return Vec::new();
        }
        if key.is::<Service>() {
            return match snapshot.services.get(namespace, name) {
                Some(_) => Vec::new(),
                None => vec![Action::create(&self.service())],
            };
        }
        if key.is::<EndpointSlice>() {
            let wanted = self.slice();
            return match snapshot.endpoint_slices.get(namespace, name) {
                None => vec![Action::create(&wanted)],
                Some(found) => {
                    let new = EndpointSlice {
                        metadata: found.metadata.clone(),
                        ..wanted
                    };
                    Action::update(found.as_ref(), &new, None)
                        .into_iter()
                        .collect()
                }
            };
        }
        let wanted = self.endpoints();
        match snapshot.endpoints.get(namespace, name) {
            None => vec![Action::create(&wanted)],
            Some(found) => {
                let new = Endpoints {
                    metadata: found.metadata.clone(),
                    ..wanted
                };
                Action::update(found.as_ref(), &new, None)
                    .into_iter()
                    .collect()
            }
        }
    }
}

impl Bootstrap {
    fn service(&self) -> Service {
        Service {
            metadata: ObjectMeta {
                labels: Some(labels([("component", "apiserver"), ("provider", NAME)])),
                ..named()
            },
            spec: Some(ServiceSpec {
                type_: Some("ClusterIP".to_owned()),
                cluster_ip: first_address(self.service_cidr).map(|address| address.to_string()),
                ports: Some(vec![ServicePort {
                    name: Some(PORT_NAME.to_owned()),
                    protocol: Some("TCP".to_owned()),
                    port: PORT,
                    target_port: Some(IntOrString::Int(self.advertise.port().into())),
                    ..ServicePort::default()
                }]),
                ..ServiceSpec::default()
            }),
            status: None,
        }
    }

    fn slice(&self) -> EndpointSlice {
        EndpointSlice {
            address_type: if self.advertise.is_ipv4() {
                "IPv4"
            } else {
                "IPv6"
            }
            .to_owned(),
            endpoints: vec![Endpoint {
                addresses: vec![self.advertise.ip().to_string()],
                conditions: Some(EndpointConditions {
                    ready: Some(true),
                    ..EndpointConditions::default()
                }),
                ..Endpoint::default()
            }],
            metadata: ObjectMeta {
                labels: Some(labels([(SERVICE_NAME, NAME)])),
                ..named()
            },
            ports: Some(vec![EndpointPort {
                name: Some(PORT_NAME.to_owned()),
                port: Some(self.advertise.port().into()),
                protocol: Some("TCP".to_owned()),
                app_protocol: None,
            }]),
        }
    }

    fn endpoints(&self) -> Endpoints {
        Endpoints {
            metadata: ObjectMeta {
                labels: Some(labels([(
                    "endpointslice.kubernetes.io/skip-mirror",
                    "true",
                )])),
                ..named()
            },
            subsets: Some(vec![EndpointSubset {
                addresses: Some(vec![EndpointAddress {
                    ip: self.advertise.ip().to_string(),
                    ..EndpointAddress::default()
                }]),
                not_ready_addresses: None,
                ports: Some(vec![EndpointsPort {
                    name: Some(PORT_NAME.to_owned()),
                    port: self.advertise.port().into(),
                    protocol: Some("TCP".to_owned()),
                    app_protocol: None,
                }]),
            }]),
        }
    }
}

fn named() -> ObjectMeta {
    ObjectMeta {
        name: Some(NAME.to_owned()),
        namespace: Some(NAMESPACE.to_owned()),
        ..ObjectMeta::default()
    }
}

fn namespace(name: &str) -> Namespace {
    Namespace {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        },
        ..Namespace::default()
    }
}

fn labels<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

/// The address after the network's own.
fn first_address(network: IpNetwork) -> Option<IpAddr> {
    network.iter().nth(1)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{now, snapshot};
    use super::*;
    use pretty_assertions::assert_eq;
    use serde_json::{Value, json};

    fn bootstrap() -> Bootstrap {
        Bootstrap::new(
            "10.96.0.0/16".parse().unwrap(),
            "172.30.0.2:6443".parse().unwrap(),
        )
    }

    fn reconcile_all(objects: &[Value]) -> Vec<Action> {
        let snapshot = snapshot(objects);
        let bootstrap = bootstrap();
        let keys = bootstrap.initial().into_iter();
        keys.flat_map(|key| bootstrap.reconcile(&key, &snapshot, now()))
            .collect()
    }

    fn namespace(name: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    }

    fn objects(actions: Vec<Action>) -> Vec<Value> {
        actions
            .into_iter()
            .map(|action| match action {
                Action::Create { object, .. } => object,
                other => panic!("only creations expected, not {other:?}"),
            })
            .collect()
    }

    #[test]
    fn an_empty_cluster_gets_its_namespaces_first() {
        let mut wanted = NAMESPACES.map(namespace);
        wanted
            .iter_mut()
            .for_each(|namespace| namespace["spec"] = json!(null));
        let names: Vec<Value> = objects(reconcile_all(&[]))
            .iter()
            .map(|object| object["metadata"]["name"].clone())
            .collect();
        assert_eq!(names, NAMESPACES);
    }

    #[test]
    fn then_the_kubernetes_service_and_its_endpoints() {
        let mut created = objects(reconcile_all(&NAMESPACES.map(namespace)));
        let endpoints = created.pop().unwrap();
        let port = json!({"name": "https", "port": 6443, "protocol": "TCP"});
        let subset = json!({"addresses": [{"ip": "172.30.0.2"}], "ports": [port]});
        assert_eq!(endpoints["subsets"], json!([subset]));
        assert_eq!(
            created,
            [
                json!({
                    "apiVersion": "v1", "kind": "Service",
                    "metadata": {"name": "kubernetes", "namespace": "default",
                                 "labels": {"component": "apiserver", "provider": "kubernetes"}},
                    "spec": {"type": "ClusterIP", "clusterIP": "10.96.0.1", "ports": [
                        {"name": "https", "protocol": "TCP", "port": 443, "targetPort": 6443}]},
                }),
                json!({
                    "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                    "metadata": {"name": "kubernetes", "namespace": "default",
                                 "labels": {"kubernetes.io/service-name": "kubernetes"}},
                    "endpoints": [{"addresses": ["172.30.0.2"], "conditions": {"ready": true}}],
                    "ports": [port],
                }),
            ]
        );
    }

    #[test]
    fn an_api_server_that_moved_is_followed() {
        let mut objects = NAMESPACES.map(namespace).to_vec();
        let old = Bootstrap::new(
            "10.96.0.0/16".parse().unwrap(),
            "172.30.0.9:6443".parse().unwrap(),
        );
        for object in [
            serde_json::to_value(old.service()).unwrap(),
            serde_json::to_value(old.slice()).unwrap(),
            serde_json::to_value(old.endpoints()).unwrap(),
        ] {
            objects.push(object);
        }
        let patches: Vec<Value> = reconcile_all(&objects)
            .into_iter()
            .map(|action| match action {
                Action::Patch { patch, .. } => patch,
                other => panic!("only patches expected, not {other:?}"),
            })
            .collect();
        assert_eq!(
            patches[0],
            json!({"metadata": {"resourceVersion": "6"},
                   "endpoints": [{"addresses": ["172.30.0.2"], "conditions": {"ready": true}}]})
        );
        assert_eq!(patches.len(), 2);
    }
}
