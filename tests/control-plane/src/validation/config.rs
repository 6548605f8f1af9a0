//! ConfigMaps and Secrets.

use serde_json::Value;

use crate::status::Cause;

/// Most bytes of all values together.
const SIZE: usize = 1 << 20;

/// Checks keys and size.
pub(crate) fn check(object: &Value, causes: &mut Vec<Cause>) {
    let mut size = 0;
    for field in ["data", "binaryData"] {
        let data = object.get(field).and_then(Value::as_object);
        for (key, value) in data.into_iter().flatten() {
            let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            if key.is_empty() || key.len() > 253 || !key.bytes().all(good) {
                let why = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
                causes.push(Cause::invalid(
                    format!("{field}[{key}]"),
                    &key.as_str().into(),
                    why,
                ));
            }
            size += value.as_str().map_or(0, str::len);
        }
    }
    if size > SIZE {
        causes.push(Cause {
            reason: "FieldValueTooLong",
            message: format!("Too long: may not be more than {SIZE} bytes"),
            field: "data".into(),
        });
    }
}

/// What is marked immutable stays; a Secret's type always does.
pub(crate) fn check_change(old: &Value, new: &Value, causes: &mut Vec<Cause>) {
    if old.get("kind").is_some_and(|kind| kind == "Secret") {
        super::immutable(old, new, "/type", causes);
    }
    if old.get("immutable") != Some(&Value::Bool(true)) {
        return;
    }
    for field in ["immutable", "data", "binaryData"] {
        if old.get(field) != new.get(field) {
            causes.push(Cause::forbidden(
                field,
                "field is immutable when `immutable` is set",
            ));
        }
    }
}
