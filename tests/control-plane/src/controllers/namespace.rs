//! Namespaces: what each must hold (a ServiceAccount, the cluster's root certificate), and the
//! removal of everything in one that is deleted.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeMap;

use super::action::{Action, Deletion};
use super::controller::Controller;
use super::object::{Change, Key};
use super::snapshot::Snapshot;

const ROOT_CERTIFICATE: &str = "kube-root-ca.crt";
const ROOT_CERTIFICATE_KEY: &str = "ca.crt";
const SERVICE_ACCOUNT: &str = "default";

/// The controller.
pub(crate) struct Namespaces {
    root_certificate: Option<String>,
}

impl Namespaces {
    /// `root_certificate` is the PEM text by which pods recognise the API server.
    pub(crate) fn new(root_certificate: Option<String>) -> Self {
        Self { root_certificate }
    }
}

impl Controller for Namespaces {
    fn name(&self) -> &'static str {
        "namespace"
    }

    fn width(&self) -> usize {
        4
    }

    fn affected(&self, change: &Change, snapshot: &Snapshot) -> Vec<Key> {
        if change.key.is::<Namespace>() {
            return vec![change.key.clone()];
        }
        let watched = change.key.is::<ServiceAccount>() && change.key.name == SERVICE_ACCOUNT
            || change.key.is::<ConfigMap>() && change.key.name == ROOT_CERTIFICATE;
        let leaves = snapshot
            .namespaces
            .get("", &change.key.namespace)
            .is_some_and(|namespace| namespace.metadata.deletion_timestamp.is_some());
        if watched || leaves {
            vec![Key::new::<Namespace>("", &change.key.namespace)]
        } else {
            Vec::new()
        }
    }

    fn reconcile(&self, key: &Key, snapshot: &Snapshot, _now: Timestamp) -> Vec<Action> {
        let Some(namespace) = snapshot.namespaces.get("", &key.name) else {
            return Vec::new();
        };
        if namespace.metadata.deletion_timestamp.is_some() {
            return empty(&key.name, namespace, snapshot);
        }
        self.furnish(&key.name, snapshot)
    }
}

impl Namespaces {
    fn furnish(&self, namespace: &str, snapshot: &Snapshot) -> Vec<Action> {
        let mut actions = Vec::new();
        let named = |name: &str| ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        };
        if snapshot
            .service_accounts
            .get(namespace, SERVICE_ACCOUNT)
            .is_none()
        {
            actions.push(Action::create(&ServiceAccount {
                metadata: named(SERVICE_ACCOUNT),
                ..ServiceAccount::default()
            }));
        }
        let Some(certificate) = &self.root_certificate else {
            return actions;
        };
        let data = BTreeMap::from([(ROOT_CERTIFICATE_KEY.to_owned(), certificate.clone())]);
        match snapshot.config_maps.get(namespace, ROOT_CERTIFICATE) {
            None => actions.push(Action::create(&ConfigMap {
                metadata: named(ROOT_CERTIFICATE),
                data: Some(data),
                ..ConfigMap::default()
            })),
            Some(found) => {
                let wanted = ConfigMap {
                    data: Some(data),
                    ..found.as_ref().clone()
                };
                actions.extend(Action::update(found.as_ref(), &wanted, None));
            }
        }
        actions
    }
}

/// Deletes what the namespace holds; when nothing is left, lets the namespace itself go.
fn empty(name: &str, namespace: &Namespace, snapshot: &Snapshot) -> Vec<Action> {
    let mut contents = snapshot.identities.in_namespace(name).peekable();
    if contents.peek().is_some() {
        return contents
            .filter(|(_, identity)| !identity.deleting)
            .map(|(key, identity)| Action::delete_identity(key, identity, Deletion::BACKGROUND))
            .collect();
    }
    let spec = namespace.spec.as_ref();
    let held = spec.and_then(|spec| spec.finalizers.as_ref());
    if held.is_none_or(Vec::is_empty) {
        return Vec::new();
    }
    vec![Action::FinalizeNamespace {
        name: name.to_owned(),
    }]
}

#[cfg(test)]
mod tests {
    use super::super::testing::{ago, now, snapshot};
    use super::*;
    use k8s_openapi::api::core::v1::{Pod, Service};
    use pretty_assertions::assert_eq;
    use serde_json::{Value, json};

    fn reconcile(objects: &[Value]) -> Vec<Action> {
        let controller = Namespaces::new(Some("PEM".to_owned()));
        controller.reconcile(
            &Key::new::<Namespace>("", "shop"),
            &snapshot(objects),
            now(),
        )
    }

    fn namespace(deleting: bool) -> Value {
        let mut namespace = json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"},
            "spec": {"finalizers": ["kubernetes"]},
        });
        if deleting {
            namespace["metadata"]["deletionTimestamp"] = json!(ago(1));
        }
        namespace
    }

    fn object(kind: &str, namespace: &str, name: &str) -> Value {
        json!({"apiVersion": "v1", "kind": kind, "metadata": {"namespace": namespace, "name": name}})
    }

    #[test]
    fn a_namespace_gets_its_account_and_certificate() {
        let actions = reconcile(&[namespace(false)]);
        let objects: Vec<Value> = actions
            .into_iter()
            .map(|action| match action {
                Action::Create { object, .. } => object,
                other => panic!("only creations expected, not {other:?}"),
            })
            .collect();
        let mut certificate = object("ConfigMap", "shop", "kube-root-ca.crt");
        certificate["data"] = json!({"ca.crt": "PEM"});
        assert_eq!(
            objects,
            [object("ServiceAccount", "shop", "default"), certificate]
        );
    }

    #[test]
    fn a_changed_certificate_is_put_right() {
        let mut certificate = object("ConfigMap", "shop", "kube-root-ca.crt");
        certificate["data"] = json!({"ca.crt": "OLD", "more": "x"});
        let account = object("ServiceAccount", "shop", "default");
        assert_eq!(
            reconcile(&[namespace(false), account, certificate]),
            [Action::Patch {
                key: Key::new::<ConfigMap>("shop", "kube-root-ca.crt"),
                subresource: None,
                patch: json!({"metadata": {"resourceVersion": "3"},
                              "data": {"ca.crt": "PEM", "more": null}}),
            }]
        );
    }

    #[test]
    fn the_contents_of_a_deleted_namespace_go_before_it_does() {
        let mut going = object("Pod", "shop", "b");
        going["metadata"]["deletionTimestamp"] = json!(ago(1));
        let objects = [
            namespace(true),
            object("Pod", "shop", "a"),
            going.clone(),
            object("Service", "shop", "s"),
            object("Pod", "elsewhere", "c"),
        ];
        let delete = |key: Key| Action::Delete {
            uid: format!("{}-uid", key.name),
            key,
            how: Deletion::BACKGROUND,
        };
        assert_eq!(
            reconcile(&objects),
            [
                delete(Key::new::<Pod>("shop", "a")),
                delete(Key::new::<Service>("shop", "s"))
            ]
        );
        assert_eq!(reconcile(&[namespace(true), going]), []);
        let last = Action::FinalizeNamespace {
            name: "shop".to_owned(),
        };
        assert_eq!(reconcile(&[namespace(true)]), [last]);
    }
}
