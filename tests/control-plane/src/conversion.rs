//! Conversion between served and stored versions.

use serde_json::Value;

/// `events.k8s.io/v1` field and the core field that holds the same.
const EVENT_FIELDS: &[(&str, &str)] = &[
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

/// An `events.k8s.io/v1` Event as a core one.
pub(crate) fn event_to_core(event: &mut Value) {
    rename(
        event,
        EVENT_FIELDS
            .iter()
            .map(|(served, stored)| (*served, *stored)),
    );
    event["apiVersion"] = Value::from("v1");
}

/// A core Event as an `events.k8s.io/v1` one.
pub(crate) fn event_from_core(event: &mut Value) {
    rename(
        event,
        EVENT_FIELDS
            .iter()
            .map(|(served, stored)| (*stored, *served)),
    );
    event["apiVersion"] = Value::from("events.k8s.io/v1");
}

fn rename<'a>(object: &mut Value, names: impl Iterator<Item = (&'a str, &'a str)>) {
    let Some(map) = object.as_object_mut() else {
        return;
    };
    for (from, to) in names {
        if let Some(value) = map.remove(from) {
            map.insert(to.to_owned(), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_event_survives_the_round_trip() {
        let served = json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"},
            "regarding": {"kind": "Pod"}, "note": "hello", "reportingController": "c",
            "eventTime": "2026-01-01T00:00:00.000000Z", "future": 1,
        });
        let mut event = served.clone();
        event_to_core(&mut event);
        assert_eq!(
            event,
            json!({
                "apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"},
                "involvedObject": {"kind": "Pod"}, "message": "hello", "reportingComponent": "c",
                "eventTime": "2026-01-01T00:00:00.000000Z", "future": 1,
            })
        );
        event_from_core(&mut event);
        assert_eq!(event, served);
    }
}
