//! Label and field selectors.

use crate::registry::Resource;
use crate::status::ApiError;
use crate::store::Stored;

/// Which objects are meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    labels: Vec<LabelTerm>,
    fields: Vec<FieldTerm>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum LabelTerm {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Missing(String),
    Greater(String, i64),
    Less(String, i64),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct FieldTerm {
    path: String,
    value: String,
    equal: bool,
}

impl Selector {
    /// Parses the query parameters `labelSelector` and `fieldSelector`; empty text selects all.
    ///
    /// # Errors
    /// 400 when the text is no selector, or the resource has no such selectable field.
    pub fn parse(resource: &Resource, labels: &str, fields: &str) -> Result<Self, ApiError> {
        let selector = Self {
            labels: parse_labels(labels)?,
            fields: parse_fields(fields)?,
        };
        let known = (resource.fields)(&serde_json::Value::Null);
        for term in &selector.fields {
            let path = term.path.as_str();
            let common = matches!(path, "metadata.name" | "metadata.namespace");
            if !common && !known.iter().any(|(field, _)| *field == path) {
                return Err(ApiError::bad_request(format!(
                    "Unable to find \"{}\" that match label selector \"{labels}\", field selector \"{fields}\": \"{path}\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"{}",
                    resource.plural,
                    known
                        .iter()
                        .map(|(field, _)| format!(", \"{field}\""))
                        .collect::<String>(),
                )));
            }
        }
        Ok(selector)
    }

    /// Selects by exact labels.
    pub fn labels<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let term =
            |(key, value): (&str, &str)| LabelTerm::In(key.to_owned(), vec![value.to_owned()]);
        Self {
            labels: labels.into_iter().map(term).collect(),
            fields: Vec::new(),
        }
    }

    /// Whether everything is selected.
    pub fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// The one name that can be selected, if the selector says so.
    pub fn name(&self) -> Option<&str> {
        let pinned = |term: &&FieldTerm| term.equal && term.path == "metadata.name";
        self.fields
            .iter()
            .find(pinned)
            .map(|term| term.value.as_str())
    }

    /// Whether an object is selected.
    pub fn matches(&self, object: &Stored) -> bool {
        self.labels
            .iter()
            .all(|term| term.matches(&object.index.labels))
            && self.fields.iter().all(|term| term.matches(object))
    }
}

impl LabelTerm {
    fn matches(&self, labels: &[(String, String)]) -> bool {
        let get = |key: &String| {
            labels
                .iter()
                .find(|(name, _)| name == key)
                .map(|(_, value)| value.as_str())
        };
        let number = |key: &String| get(key).and_then(|value| value.parse::<i64>().ok());
        match self {
            Self::In(key, values) => {
                get(key).is_some_and(|found| values.iter().any(|v| v == found))
            }
            Self::NotIn(key, values) => {
                get(key).is_none_or(|found| values.iter().all(|v| v != found))
            }
            Self::Exists(key) => get(key).is_some(),
            Self::Missing(key) => get(key).is_none(),
            Self::Greater(key, bound) => number(key).is_some_and(|value| value > *bound),
            Self::Less(key, bound) => number(key).is_some_and(|value| value < *bound),
        }
    }
}

impl FieldTerm {
    fn matches(&self, object: &Stored) -> bool {
        let found = match self.path.as_str() {
            "metadata.name" => object.key.object.name.as_str(),
            "metadata.namespace" => object.key.object.namespace.as_str(),
            path => {
                let field = object.index.fields.iter().find(|(field, _)| *field == path);
                field.map_or("", |(_, value)| value.as_str())
            }
        };
        (found == self.value) == self.equal
    }
}

fn bad(kind: &str, text: &str, why: &str) -> ApiError {
    ApiError::bad_request(format!("{kind}Selector: invalid value \"{text}\": {why}"))
}

/// Splits at commas that are not inside parentheses.
fn split(text: &str) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0_usize, 0, Vec::new());
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn parse_labels(text: &str) -> Result<Vec<LabelTerm>, ApiError> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    split(text)
        .into_iter()
        .map(|part| parse_label(part.trim(), text))
        .collect()
}

fn parse_label(part: &str, whole: &str) -> Result<LabelTerm, ApiError> {
    let key = |key: &str| {
        let key = key.trim();
        match crate::validation::names::qualified_name(key) {
            None => Ok(key.to_owned()),
            Some(why) => Err(bad("label", whole, &format!("key \"{key}\": {why}"))),
        }
    };
    let value = |value: &str| {
        let value = value.trim();
        match crate::validation::names::label_value(value) {
            None => Ok(value.to_owned()),
            Some(why) => Err(bad("label", whole, &format!("value \"{value}\": {why}"))),
        }
    };
    let number = |text: &str| {
        text.trim()
            .parse()
            .map_err(|_| bad("label", whole, "after < and > comes an integer"))
    };
    if let Some((head, rest)) = part.split_once('(') {
        let inside = rest
            .strip_suffix(')')
            .ok_or_else(|| bad("label", whole, "a ) is missing"))?;
        let values: Vec<String> = inside.split(',').map(value).collect::<Result<_, _>>()?;
        let mut words = head.split_whitespace();
        return match (words.next(), words.next(), words.next()) {
            (Some(name), Some("in"), None) => Ok(LabelTerm::In(key(name)?, values)),
            (Some(name), Some("notin"), None) => Ok(LabelTerm::NotIn(key(name)?, values)),
            _ => Err(bad(
                "label",
                whole,
                "before ( come a key and \"in\" or \"notin\"",
            )),
        };
    }
    if let Some((name, rest)) = part.split_once("!=") {
        return Ok(LabelTerm::NotIn(key(name)?, vec![value(rest)?]));
    }
    if let Some((name, rest)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return Ok(LabelTerm::In(key(name)?, vec![value(rest)?]));
    }
    if let Some((name, rest)) = part.split_once('>') {
        return Ok(LabelTerm::Greater(key(name)?, number(rest)?));
    }
    if let Some((name, rest)) = part.split_once('<') {
        return Ok(LabelTerm::Less(key(name)?, number(rest)?));
    }
    match part.strip_prefix('!') {
        Some(name) => Ok(LabelTerm::Missing(key(name)?)),
        None => Ok(LabelTerm::Exists(key(part)?)),
    }
}

fn parse_fields(text: &str) -> Result<Vec<FieldTerm>, ApiError> {
    let mut terms = Vec::new();
    for part in text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        let (path, value, equal) = if let Some((path, value)) = part.split_once("!=") {
            (path, value, false)
        } else if let Some((path, value)) = part.split_once("==") {
            (path, value, true)
        } else if let Some((path, value)) = part.split_once('=') {
            (path, value, true)
        } else {
            return Err(bad("field", text, "each term is PATH=VALUE or PATH!=VALUE"));
        };
        terms.push(FieldTerm {
            path: path.trim().to_owned(),
            value: value.trim().to_owned(),
            equal,
        });
    }
    Ok(terms)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selected(selector: &str, labels: &[(&str, &str)]) -> bool {
        let labels: Vec<_> = labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        parse_labels(selector)
            .unwrap()
            .iter()
            .all(|term| term.matches(&labels))
    }

    #[test]
    fn label_terms() {
        let labels = [("app", "web"), ("n", "5"), ("k8s.io/x", "")];
        for yes in [
            "",
            "app=web",
            "app==web",
            "app!=db",
            "app in (db, web)",
            "app notin (db)",
            "app",
            "!gone",
            "n>4",
            "n<6",
            "k8s.io/x",
            "k8s.io/x=",
            "app=web,n>1,!gone",
            "gone!=1",
        ] {
            assert!(selected(yes, &labels), "{yes}");
        }
        for no in [
            "app=db",
            "app!=web",
            "gone",
            "!app",
            "n>5",
            "app in (db)",
            "app,gone",
        ] {
            assert!(!selected(no, &labels), "{no}");
        }
    }

    #[test]
    fn bad_selectors_are_refused() {
        for bad in ["app in web", "app in (web", "a b", "=x", "n>x", "a=,,b"] {
            assert!(parse_labels(bad).is_err(), "{bad}");
        }
        assert!(parse_fields("metadata.name").is_err());
    }
}
