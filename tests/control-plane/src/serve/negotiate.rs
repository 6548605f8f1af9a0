//! Which form of an answer a client wants.

use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE};

use crate::status::ApiError;

/// Form of an answer about objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// The objects.
    Json,
    /// A table.
    Table,
    /// Metadata only.
    Partial,
}

/// One entry of `Accept`: media type and parameters.
struct Wanted<'a> {
    media: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
}

impl<'a> Wanted<'a> {
    fn parse(text: &'a str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        let parameters = parts.filter_map(|part| part.split_once('=')).collect();
        Self { media, parameters }
    }

    fn parameter(&self, name: &str) -> &str {
        self.parameters
            .iter()
            .find(|(key, _)| *key == name)
            .map_or("", |(_, value)| value)
    }

    fn is_json(&self) -> bool {
        matches!(
            self.media,
            "application/json" | "application/*" | "*/*" | ""
        )
    }
}

fn accept(headers: &HeaderMap) -> String {
    let values: Vec<&str> = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect();
    values.join(",")
}

/// The first form a client accepts that can be given.
///
/// # Errors
/// 406 when there is none.
pub(super) fn form(headers: &HeaderMap) -> Result<Form, ApiError> {
    let accept = accept(headers);
    for wanted in accept.split(',').map(Wanted::parse).filter(Wanted::is_json) {
        let meta = wanted.parameter("g") == "meta.k8s.io" && wanted.parameter("v") == "v1";
        match wanted.parameter("as") {
            "" => return Ok(Form::Json),
            "Table" if meta => return Ok(Form::Table),
            "PartialObjectMetadata" | "PartialObjectMetadataList" if meta => {
                return Ok(Form::Partial);
            }
            _ => {}
        }
    }
    Err(not_acceptable())
}

pub(super) fn not_acceptable() -> ApiError {
    ApiError::new(
        406,
        "NotAcceptable",
        "only the following media types are accepted: application/json, application/json;as=Table;v=v1;g=meta.k8s.io, application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
    )
}

/// The version of aggregated discovery a client accepts before the plain one.
pub(super) fn aggregated(headers: &HeaderMap) -> Option<&'static str> {
    let accept = accept(headers);
    for wanted in accept.split(',').map(Wanted::parse).filter(Wanted::is_json) {
        let discovery = wanted.parameter("g") == "apidiscovery.k8s.io"
            && wanted.parameter("as") == "APIGroupDiscoveryList";
        match wanted.parameter("v") {
            "v2" if discovery => return Some("v2"),
            "v2beta1" if discovery => return Some("v2beta1"),
            _ if wanted.parameters.iter().all(|(key, _)| *key == "q") => return None,
            _ => {}
        }
    }
    None
}

/// Media type of a body, without parameters.
pub(super) fn media_type(headers: &HeaderMap) -> &str {
    let value = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    value
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(accept: &str) -> HeaderMap {
        HeaderMap::from_iter([(ACCEPT, accept.parse().unwrap())])
    }

    #[test]
    fn forms() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(form(&headers(table)), Ok(Form::Table));
        assert_eq!(form(&HeaderMap::new()), Ok(Form::Json));
        assert_eq!(
            form(&headers(
                "application/vnd.kubernetes.protobuf,application/json"
            )),
            Ok(Form::Json)
        );
        let partial = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
        assert_eq!(form(&headers(partial)), Ok(Form::Partial));
        let old = "application/json;as=Table;v=v1beta1;g=meta.k8s.io";
        assert_eq!(form(&headers(old)).unwrap_err().code, 406);
        assert_eq!(form(&headers("text/plain")).unwrap_err().code, 406);
    }

    #[test]
    fn discovery_forms() {
        let v2 =
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
        assert_eq!(aggregated(&headers(v2)), Some("v2"));
        assert_eq!(aggregated(&headers("application/json, */*")), None);
        let beta = v2.replace("v=v2", "v=v2beta1");
        assert_eq!(aggregated(&headers(&beta)), Some("v2beta1"));
    }
}
