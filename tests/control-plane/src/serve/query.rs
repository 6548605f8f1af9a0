//! Query parameters.

use axum::extract::Query;
use http::Uri;
use serde_json::Value;

use crate::json::text;
use crate::registry::Resource;
use crate::rest::{DeleteOptions, FieldValidation, ListOptions, Propagation, WriteOptions};
use crate::selector::Selector;
use crate::status::ApiError;

/// The parameters of a request.
#[derive(Clone, Debug, Default)]
pub(super) struct Parameters(Vec<(String, String)>);

fn bad(name: &str, value: &str, wanted: &str) -> ApiError {
    ApiError::bad_request(format!("{name}: Invalid value: \"{value}\": {wanted}"))
}

impl Parameters {
    /// # Errors
    /// 400 when the query cannot be decoded.
    pub(super) fn parse(uri: &Uri) -> Result<Self, ApiError> {
        match Query::try_from_uri(uri) {
            Ok(Query(parameters)) => Ok(Self(parameters)),
            Err(error) => Err(ApiError::bad_request(format!("query: {error}"))),
        }
    }

    /// A parameter; empty when it is not given.
    pub(super) fn get(&self, name: &str) -> &str {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map_or("", |(_, value)| value.as_str())
    }

    /// # Errors
    /// 400 when it is neither true nor false.
    pub(super) fn flag(&self, name: &str) -> Result<bool, ApiError> {
        match self.get(name) {
            "" | "false" | "0" => Ok(false),
            "true" | "1" => Ok(true),
            other => Err(bad(name, other, "must be true or false")),
        }
    }

    /// # Errors
    /// 400 when it is no number.
    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, ApiError> {
        match self.get(name) {
            "" => Ok(None),
            text => text
                .parse()
                .map(Some)
                .map_err(|_| bad(name, text, "must be a number, 0 or more")),
        }
    }

    fn dry_run(&self) -> Result<bool, ApiError> {
        match self.get("dryRun") {
            "" => Ok(false),
            "All" => Ok(true),
            other => Err(bad("dryRun", other, "must be All")),
        }
    }

    /// # Errors
    /// 400 for a bad value.
    pub(super) fn write_options(&self) -> Result<WriteOptions, ApiError> {
        let fields = match self.get("fieldValidation") {
            "" | "Warn" => FieldValidation::Warn,
            "Strict" => FieldValidation::Strict,
            "Ignore" => FieldValidation::Ignore,
            other => {
                return Err(bad(
                    "fieldValidation",
                    other,
                    "must be Ignore, Warn or Strict",
                ));
            }
        };
        Ok(WriteOptions {
            dry_run: self.dry_run()?,
            fields,
        })
    }

    /// # Errors
    /// 400 for a bad selector.
    pub(super) fn selector(&self, resource: &Resource) -> Result<Selector, ApiError> {
        Selector::parse(
            resource,
            self.get("labelSelector"),
            self.get("fieldSelector"),
        )
    }

    /// # Errors
    /// 400 for a bad value.
    pub(super) fn list_options(&self, resource: &Resource) -> Result<ListOptions, ApiError> {
        let given = |name: &str| Some(self.get(name).to_owned()).filter(|text| !text.is_empty());
        let limit = self.number("limit")?;
        Ok(ListOptions {
            selector: self.selector(resource)?,
            limit: limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)),
            resume: given("continue"),
            resource_version: given("resourceVersion"),
            resource_version_match: given("resourceVersionMatch"),
        })
    }

    /// Options of a deletion: the body's, then the query's.
    ///
    /// # Errors
    /// 400 for a bad value.
    pub(super) fn delete_options(&self, body: &Value) -> Result<DeleteOptions, ApiError> {
        let grace = match body
            .get("gracePeriodSeconds")
            .filter(|value| !value.is_null())
        {
            None => self.number("gracePeriodSeconds")?,
            Some(value) => Some(value.as_u64().ok_or_else(|| {
                bad(
                    "gracePeriodSeconds",
                    &value.to_string(),
                    "must be a number, 0 or more",
                )
            })?),
        };
        let word = match text(body, "/propagationPolicy") {
            "" => self.get("propagationPolicy"),
            word => word,
        };
        let orphan = body.get("orphanDependents").and_then(Value::as_bool);
        let propagation = match (word, orphan) {
            ("Background", _) | ("", Some(false)) => Some(Propagation::Background),
            ("Foreground", _) => Some(Propagation::Foreground),
            ("Orphan", _) | ("", Some(true)) => Some(Propagation::Orphan),
            ("", None) => None,
            (other, _) => {
                let wanted = "must be Background, Foreground or Orphan";
                return Err(bad("propagationPolicy", other, wanted));
            }
        };
        let given = |pointer: &str| Some(text(body, pointer).to_owned()).filter(|t| !t.is_empty());
        let dry_body = crate::json::list(body, "/dryRun")
            .iter()
            .any(|word| word == "All");
        Ok(DeleteOptions {
            grace_seconds: grace,
            propagation,
            uid: given("/preconditions/uid"),
            resource_version: given("/preconditions/resourceVersion"),
            dry_run: dry_body || self.dry_run()?,
        })
    }
}
