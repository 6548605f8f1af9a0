//! Namespaces.

use desired::cluster::Namespace;
use k8s_openapi::api::core::v1 as core;

use super::fields::Fields;
use super::{TranslateError, Translated};

const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// Translates a Namespace.
///
/// # Errors
/// When its name is not one.
pub fn namespace(object: &core::Namespace) -> Result<Translated<Namespace>, TranslateError> {
    let fields = Fields::of("Namespace", &object.metadata);
    let name: desired::names::NamespaceName =
        fields.name(&object.metadata, |_, name| name.parse())?;
    let mut labels = object.metadata.labels.clone().unwrap_or_default();
    // API servers set it on every namespace; policies may rely on it.
    labels
        .entry(NAME_LABEL.to_owned())
        .or_insert_with(|| name.to_string());
    Ok(fields.done(Namespace { name, labels }))
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;
    use serde_json::json;

    use super::*;

    #[test]
    fn every_namespace_has_the_label_with_its_name() {
        let object = serde_json::from_value(json!({
            "metadata": {"name": "shop", "labels": {"team": "a"}}
        }))
        .unwrap();
        let labels = [(NAME_LABEL, "shop"), ("team", "a")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()));
        let value = Namespace {
            name: "shop".parse().unwrap(),
            labels: labels.into(),
        };
        assert_eq!(
            namespace(&object),
            Ok(Translated {
                value,
                problems: vec![]
            })
        );
    }

    #[test]
    fn a_namespace_without_a_name_is_refused() {
        let wrong = namespace(&core::Namespace::default()).unwrap_err();
        assert_eq!(wrong.field, "metadata");
    }
}
