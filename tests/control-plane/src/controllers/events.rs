//! Events: what people read in `kubectl describe`.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, Time};
use k8s_openapi::{Metadata, Resource};

use super::action::{Action, object_reference};
use super::object::{name_of, namespace_of};

/// What an event says.
pub(crate) struct Note<'a> {
    /// `Normal` or `Warning`.
    pub(crate) type_: &'static str,
    /// Short reason in camel case.
    pub(crate) reason: &'static str,
    /// For people.
    pub(crate) message: &'a str,
    /// Who says it.
    pub(crate) component: &'static str,
}

/// Creation of an event about an object.
pub(crate) fn record<K>(object: &K, note: &Note<'_>, now: Timestamp) -> Action
where
    K: Resource + Metadata<Ty = ObjectMeta>,
{
    let metadata = object.metadata();
    let namespace = match namespace_of(metadata) {
        "" => "default",
        namespace => namespace,
    };
    let mut involved = object_reference(object);
    involved.api_version = Some(K::API_VERSION.to_owned());
    involved.resource_version = metadata.resource_version.clone();
    Action::create(&Event {
        metadata: ObjectMeta {
            name: Some(format!("{}.{:x}", name_of(metadata), now.as_nanosecond())),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        involved_object: involved,
        type_: Some(note.type_.to_owned()),
        reason: Some(note.reason.to_owned()),
        message: Some(note.message.to_owned()),
        source: Some(EventSource {
            component: Some(note.component.to_owned()),
            host: None,
        }),
        reporting_component: Some(note.component.to_owned()),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        event_time: Some(MicroTime(now)),
        action: Some(note.reason.to_owned()),
        reporting_instance: Some(note.component.to_owned()),
        count: Some(1),
        ..Event::default()
    })
}
