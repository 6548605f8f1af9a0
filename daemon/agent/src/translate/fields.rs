//! Reading fields and collecting what is wrong with them.

use std::fmt::Display;
use std::net::IpAddr;
use std::str::FromStr;

use desired::cluster::TrafficPolicy;
use desired::labels::{Condition, LabelSelector};
use desired::names::{NameError, PortNumber, Protocol};
use ipnetwork::IpNetwork;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;

use super::{TranslateError, Translated};

/// Reads one object's fields; remembers the ones that cannot be used.
pub(super) struct Fields {
    object: String,
    problems: Vec<TranslateError>,
}

impl Fields {
    /// Begins with an object of a kind, named for messages as well as its metadata allow.
    pub(super) fn of(kind: &str, metadata: &meta::ObjectMeta) -> Self {
        let name = metadata.name.as_deref().unwrap_or_default();
        let object = match metadata.namespace.as_deref() {
            Some(namespace) => format!("{kind} {namespace}/{name}"),
            None => format!("{kind} {name}"),
        };
        Self {
            object,
            problems: Vec::new(),
        }
    }

    /// Ends with the object's value.
    pub(super) fn done<T>(self, value: T) -> Translated<T> {
        Translated {
            value,
            problems: self.problems,
        }
    }

    /// The error for a field.
    pub(super) fn error(
        &self,
        field: &str,
        value: impl Display,
        remedy: impl Display,
    ) -> TranslateError {
        TranslateError {
            object: self.object.clone(),
            field: field.to_owned(),
            value: value.to_string(),
            remedy: remedy.to_string(),
        }
    }

    /// Remembers that a field is left out.
    pub(super) fn problem(&mut self, field: &str, value: impl Display, remedy: impl Display) {
        self.problems.push(self.error(field, value, remedy));
    }

    /// The object's own name, without which nothing of it can be used.
    pub(super) fn name<T>(
        &self,
        metadata: &meta::ObjectMeta,
        build: impl FnOnce(&str, &str) -> Result<T, NameError>,
    ) -> Result<T, TranslateError> {
        let namespace = metadata.namespace.as_deref().unwrap_or_default();
        let name = metadata.name.as_deref().unwrap_or_default();
        build(namespace, name)
            .map_err(|wrong| self.error("metadata", format!("{namespace}/{name}"), wrong))
    }

    /// A value that checks itself.
    pub(super) fn parse<T: FromStr<Err: Display>>(&mut self, field: &str, text: &str) -> Option<T> {
        self.keep(field, text, text.parse())
    }

    /// A value whose check is done already.
    pub(super) fn keep<T, E: Display>(
        &mut self,
        field: &str,
        value: impl Display,
        result: Result<T, E>,
    ) -> Option<T> {
        result
            .map_err(|wrong| self.problem(field, value, wrong))
            .ok()
    }

    /// An address.
    pub(super) fn address(&mut self, field: &str, text: &str) -> Option<IpAddr> {
        let parsed = text.parse().map_err(|_| "use an IPv4 or IPv6 address");
        self.keep(field, text, parsed)
    }

    /// A list of addresses.
    pub(super) fn addresses<'a>(
        &mut self,
        field: &str,
        texts: impl IntoIterator<Item = &'a str>,
    ) -> Vec<IpAddr> {
        let mut addresses = Vec::new();
        for (index, text) in texts.into_iter().enumerate() {
            addresses.extend(self.address(&format!("{field}[{index}]"), text));
        }
        addresses
    }

    /// A prefix.
    pub(super) fn network(&mut self, field: &str, text: &str) -> Option<IpNetwork> {
        let parsed = text.contains('/').then(|| text.parse().ok()).flatten();
        self.keep(
            field,
            text,
            parsed.ok_or("use a prefix such as 10.0.0.0/8 or fd00::/8"),
        )
    }

    /// A port number.
    pub(super) fn port(&mut self, field: &str, number: i32) -> Option<PortNumber> {
        self.keep(field, number, PortNumber::try_from(number))
    }

    /// A protocol, TCP when left out.
    pub(super) fn protocol(&mut self, field: &str, text: Option<&str>) -> Option<Protocol> {
        text.map_or(Some(Protocol::Tcp), |text| self.parse(field, text))
    }

    /// A traffic policy, `Cluster` when left out.
    pub(super) fn traffic_policy(&mut self, field: &str, text: Option<&str>) -> TrafficPolicy {
        match text {
            None | Some("" | "Cluster") => TrafficPolicy::Cluster,
            Some("Local") => TrafficPolicy::Local,
            Some(other) => {
                self.problem(field, other, "use Cluster or Local");
                TrafficPolicy::Cluster
            }
        }
    }

    /// A label selector; `None` when one of its requirements cannot be understood, because
    /// without it the selector would select more.
    pub(super) fn selector(
        &mut self,
        field: &str,
        selector: &meta::LabelSelector,
    ) -> Option<LabelSelector> {
        match parse_selector(selector) {
            Ok(selector) => Some(selector),
            Err((index, value, remedy)) => {
                self.problem(&format!("{field}.matchExpressions[{index}]"), value, remedy);
                None
            }
        }
    }
}

/// Which requirement is wrong, what it holds, and the remedy.
type WrongRequirement = (usize, String, &'static str);

fn parse_selector(selector: &meta::LabelSelector) -> Result<LabelSelector, WrongRequirement> {
    let mut parsed = LabelSelector::everything();
    for (key, value) in selector.match_labels.iter().flatten() {
        parsed = parsed.with_label(key, value);
    }
    for (index, requirement) in selector.match_expressions.iter().flatten().enumerate() {
        let values: std::collections::BTreeSet<String> =
            requirement.values.iter().flatten().cloned().collect();
        let condition = match (requirement.operator.as_str(), values.is_empty()) {
            ("In", false) => Condition::In(values),
            ("NotIn", false) => Condition::NotIn(values),
            ("Exists", true) => Condition::Exists,
            ("DoesNotExist", true) => Condition::DoesNotExist,
            ("In" | "NotIn", true) => {
                let remedy = "In and NotIn need at least one value";
                return Err((index, requirement.key.clone(), remedy));
            }
            ("Exists" | "DoesNotExist", false) => {
                let remedy = "Exists and DoesNotExist take no values";
                return Err((index, requirement.key.clone(), remedy));
            }
            (operator, _) => {
                let remedy = "use operator In, NotIn, Exists or DoesNotExist";
                return Err((index, operator.to_owned(), remedy));
            }
        };
        parsed = parsed.with(&requirement.key, condition);
    }
    Ok(parsed)
}
