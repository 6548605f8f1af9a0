//! Lays endpoints into slices with as few writes as possible.
//!
//! A slice keeps the endpoints it has, loses those that went, and takes new ones first where a write
//! is needed anyway, then where one slice has room for all that remain; only then are slices made.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::desired::{Group, Groups, Port};
use super::{HEADLESS, MANAGED_BY, MANAGER, SERVICE_NAME, TRIGGER_TIME};
use crate::controllers::action::{Action, Deletion};
use crate::controllers::labels::Labels;
use crate::controllers::object::{controller_reference, name_of};

/// Most endpoints in a slice.
const CAPACITY: usize = 100;

/// A slice as it is and as it shall be.
struct Draft<'a> {
    old: Option<&'a EndpointSlice>,
    endpoints: Vec<Endpoint>,
    /// Whether a write is needed anyway.
    touched: bool,
}

/// The writes that turn the existing slices of a Service into ones that hold `groups`.
pub(super) fn pack(
    service: &Service,
    groups: Groups,
    existing: &[&Arc<EndpointSlice>],
) -> Vec<Action> {
    let mut by_group: BTreeMap<Group, Vec<&EndpointSlice>> = BTreeMap::new();
    let mut deletions = Vec::new();
    for slice in existing {
        match group_of(slice, &groups) {
            Some(group) => by_group.entry(group).or_default().push(slice),
            None => deletions.push(Action::delete(slice.as_ref(), Deletion::default())),
        }
    }
    let labels = slice_labels(service);
    let mut writes = Vec::new();
    for (group, endpoints) in groups.endpoints {
        let slices = by_group.remove(&group).unwrap_or_default();
        let drafts = fill(&slices, endpoints, &labels);
        // One slice remains even without endpoints: it says that the Service was looked at.
        let nothing = drafts.iter().all(|draft| draft.endpoints.is_empty());
        for (position, draft) in drafts.into_iter().enumerate() {
            let superfluous = draft.endpoints.is_empty() && !(nothing && position == 0);
            match draft.old.filter(|_| superfluous) {
                Some(old) => deletions.push(Action::delete(old, Deletion::default())),
                None => writes.extend(write(service, &group, draft, &labels, groups.changed_at)),
            }
        }
    }
    // What is wanted is written before what is not is removed: no moment without endpoints.
    writes.append(&mut deletions);
    writes
}

fn group_of(slice: &EndpointSlice, groups: &Groups) -> Option<Group> {
    let mut ports: Vec<Port> = slice
        .ports
        .iter()
        .flatten()
        .map(Port::from_endpoint_port)
        .collect();
    ports.sort_unstable();
    groups
        .endpoints
        .keys()
        .find(|(address_type, wanted)| {
            address_type.as_str() == slice.address_type && *wanted == ports
        })
        .cloned()
}

fn target_uid(endpoint: &Endpoint) -> &str {
    endpoint
        .target_ref
        .as_ref()
        .and_then(|target| target.uid.as_deref())
        .unwrap_or_default()
}

fn fill<'a>(
    slices: &[&'a EndpointSlice],
    mut wanted: BTreeMap<String, Endpoint>,
    labels: &Labels,
) -> Vec<Draft<'a>> {
    let mut drafts: Vec<Draft<'a>> = slices
        .iter()
        .map(|slice| keep(slice, &mut wanted, labels))
        .collect();
    let mut rest: Vec<Endpoint> = wanted.into_values().collect();
    for draft in drafts.iter_mut().filter(|draft| draft.touched) {
        take(draft, &mut rest);
    }
    if !rest.is_empty() {
        let tightest = drafts
            .iter_mut()
            .filter(|draft| draft.endpoints.len() + rest.len() <= CAPACITY)
            .max_by_key(|draft| draft.endpoints.len());
        if let Some(draft) = tightest {
            take(draft, &mut rest);
        }
    }
    while !rest.is_empty() || drafts.is_empty() {
        let mut draft = Draft {
            old: None,
            endpoints: Vec::new(),
            touched: true,
        };
        take(&mut draft, &mut rest);
        drafts.push(draft);
    }
    drafts
}

/// What of a slice stays.
fn keep<'a>(
    slice: &'a EndpointSlice,
    wanted: &mut BTreeMap<String, Endpoint>,
    labels: &Labels,
) -> Draft<'a> {
    let mut seen = BTreeSet::new();
    let endpoints: Vec<Endpoint> = slice
        .endpoints
        .iter()
        .filter(|endpoint| seen.insert(target_uid(endpoint)))
        .filter_map(|endpoint| wanted.remove(target_uid(endpoint)))
        .collect();
    let relabelled = slice.metadata.labels.as_ref() != Some(labels);
    Draft {
        touched: relabelled || endpoints != slice.endpoints,
        old: Some(slice),
        endpoints,
    }
}

fn take(draft: &mut Draft<'_>, rest: &mut Vec<Endpoint>) {
    let room = CAPACITY
        .saturating_sub(draft.endpoints.len())
        .min(rest.len());
    draft.touched |= room > 0;
    draft.endpoints.extend(rest.drain(..room));
}

fn write(
    service: &Service,
    group: &Group,
    draft: Draft<'_>,
    labels: &Labels,
    changed_at: Option<Timestamp>,
) -> Option<Action> {
    if !draft.touched {
        return None;
    }
    let mut slice = draft
        .old
        .cloned()
        .unwrap_or_else(|| new_slice(service, group));
    slice.endpoints = draft.endpoints;
    slice.metadata.labels = Some(labels.clone());
    set_trigger_time(&mut slice.metadata, changed_at);
    match draft.old {
        Some(old) => Action::update(old, &slice, None),
        None => Some(Action::create(&slice)),
    }
}

fn new_slice(service: &Service, group: &Group) -> EndpointSlice {
    EndpointSlice {
        address_type: group.0.as_str().to_owned(),
        endpoints: Vec::new(),
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", name_of(&service.metadata))),
            namespace: service.metadata.namespace.clone(),
            owner_references: Some(vec![controller_reference(service)]),
            ..ObjectMeta::default()
        },
        ports: Some(group.1.iter().map(Port::to_endpoint_port).collect()),
    }
}

fn slice_labels(service: &Service) -> Labels {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    let headless = service
        .spec
        .as_ref()
        .is_some_and(|spec| spec.cluster_ip.as_deref() == Some("None"));
    if headless {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels.insert(
        SERVICE_NAME.to_owned(),
        name_of(&service.metadata).to_owned(),
    );
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    labels
}

/// Notes when the change happened that this write reflects; without news the note is taken away,
/// since latency is measured from it.
fn set_trigger_time(metadata: &mut ObjectMeta, changed_at: Option<Timestamp>) {
    let annotations = metadata.annotations.get_or_insert_default();
    let before: Option<Timestamp> = annotations
        .get(TRIGGER_TIME)
        .and_then(|time| time.parse().ok());
    match changed_at {
        Some(time) if before.is_none_or(|before| time > before) => {
            annotations.insert(TRIGGER_TIME.to_owned(), time.to_string());
        }
        _ => {
            annotations.remove(TRIGGER_TIME);
        }
    }
    if annotations.is_empty() {
        metadata.annotations = None;
    }
}
