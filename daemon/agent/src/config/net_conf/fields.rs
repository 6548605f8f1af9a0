//! One JSON object of the network configuration, read key by key.

use serde_json::{Map, Value};

use crate::config::error::ConfigError;

/// One JSON object, its keys taken away as they are read.
pub(super) struct Fields<'a> {
    source_name: &'a str,
    prefix: &'a str,
    left: Vec<(String, Value)>,
}

impl<'a> Fields<'a> {
    pub(super) fn of(
        source_name: &'a str,
        prefix: &'a str,
        value: &Value,
    ) -> Result<Self, ConfigError> {
        let Value::Object(map) = value else {
            let field = if prefix.is_empty() {
                "(document)"
            } else {
                prefix.trim_end_matches('.')
            };
            return Err(ConfigError::new(
                source_name,
                field,
                value.to_string(),
                "write a JSON object",
            ));
        };
        let left = map.iter().map(|(key, value)| (key.clone(), value.clone()));
        let fields = Self {
            source_name,
            prefix,
            left: left.collect(),
        };
        for (at, (key, value)) in fields.left.iter().enumerate() {
            let mut before = fields.left[..at].iter();
            if let Some((other, _)) = before.find(|(other, _)| other.eq_ignore_ascii_case(key)) {
                let remedy = format!("{prefix}{other} is the same key; keep one of them");
                return Err(fields.error(key, &value.to_string(), &remedy));
            }
        }
        Ok(fields)
    }

    pub(super) fn error(&self, field: &str, value: &str, remedy: &str) -> ConfigError {
        ConfigError::new(
            self.source_name,
            format!("{}{field}", self.prefix),
            value,
            remedy,
        )
    }

    /// The value of `field`; an explicit null counts as missing, as in Go.
    pub(super) fn take(&mut self, field: &str) -> Option<Value> {
        let index = self
            .left
            .iter()
            .position(|(key, _)| key.eq_ignore_ascii_case(field))?;
        Some(self.left.swap_remove(index).1).filter(|value| !value.is_null())
    }

    pub(super) fn bool(&mut self, field: &str) -> Result<Option<bool>, ConfigError> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(value)),
            Some(other) => Err(self.error(field, &other.to_string(), "write true or false")),
        }
    }

    pub(super) fn string(&mut self, field: &str) -> Result<Option<String>, ConfigError> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::String(value)) if value.is_empty() => Ok(None),
            Some(Value::String(value)) => Ok(Some(value)),
            Some(other) => {
                Err(self.error(field, &other.to_string(), "write a string in double quotes"))
            }
        }
    }

    /// The object under `field`, an empty one if it is missing.
    pub(super) fn object(&mut self, field: &'a str) -> Value {
        self.take(field)
            .unwrap_or_else(|| Value::Object(Map::new()))
    }

    /// What `read` makes of `value`, or that it cannot be.
    pub(super) fn checked<T, V: ToString, E: ToString>(
        &self,
        field: &str,
        value: V,
        read: impl FnOnce(V) -> Result<T, E>,
    ) -> Result<T, ConfigError> {
        let shown = value.to_string();
        read(value).map_err(|error| self.error(field, &shown, &error.to_string()))
    }

    pub(super) fn number(
        &mut self,
        field: &str,
        low: u64,
        high: u64,
    ) -> Result<Option<u64>, ConfigError> {
        let Some(value) = self.take(field) else {
            return Ok(None);
        };
        match value
            .as_u64()
            .filter(|number| (low..=high).contains(number))
        {
            Some(number) => Ok(Some(number)),
            None => {
                let remedy = format!("write a whole number from {low} to {high}");
                Err(self.error(field, &value.to_string(), &remedy))
            }
        }
    }

    /// The keys that were not read and that are not in `known` (lower case).
    pub(super) fn rest(self, known: &[&str]) -> Vec<String> {
        self.left
            .into_iter()
            .map(|(key, _)| key)
            .filter(|key| !known.contains(&key.to_lowercase().as_str()))
            .map(|key| format!("{}{key}", self.prefix))
            .collect()
    }
}
