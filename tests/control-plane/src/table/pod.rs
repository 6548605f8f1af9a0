//! Pods.

use jiff::Timestamp;
use serde_json::Value;

use super::{AGE, Columns, NAME, age, column, count, name, since, text_or, wide};
use crate::json::{list, text};

pub(crate) const POD: Columns = Columns {
    columns: &[
        NAME,
        column("Ready"),
        column("Status"),
        column("Restarts"),
        AGE,
        wide("IP"),
        wide("Node"),
        wide("Nominated Node"),
        wide("Readiness Gates"),
    ],
    cells: pod,
};

fn pod(pod: &Value, now: Timestamp) -> Vec<Value> {
    let containers = list(pod, "/spec/containers").len();
    let statuses = list(pod, "/status/containerStatuses");
    let ready = statuses
        .iter()
        .filter(|status| status["ready"] == true)
        .count();
    let restarts: i64 = statuses
        .iter()
        .map(|status| count(status, "/restartCount"))
        .sum();
    let last = statuses
        .iter()
        .map(|status| text(status, "/lastState/terminated/finishedAt"))
        .max()
        .unwrap_or_default();
    let restarts = match (restarts, last) {
        (0, _) | (_, "") => restarts.to_string(),
        (restarts, last) => format!("{restarts} ({} ago)", since(last, now)),
    };
    vec![
        name(pod),
        format!("{ready}/{containers}").into(),
        status(pod).into(),
        restarts.into(),
        age(pod, now),
        text_or(pod, "/status/podIP", "<none>"),
        text_or(pod, "/spec/nodeName", "<none>"),
        text_or(pod, "/status/nominatedNodeName", "<none>"),
        gates(pod).into(),
    ]
}

/// The reason that matters most: of the pod, of its init containers, of its containers, and whether
/// it is being deleted.
fn status(pod: &Value) -> String {
    let mut reason = match text(pod, "/status/reason") {
        "" => text(pod, "/status/phase").to_owned(),
        reason => reason.to_owned(),
    };
    let conditions = list(pod, "/status/conditions");
    if conditions
        .iter()
        .any(|c| c["type"] == "PodScheduled" && c["reason"] == "SchedulingGated")
    {
        reason = "SchedulingGated".into();
    }
    let initializing = init_status(pod);
    match &initializing {
        Some(init) => reason.clone_from(init),
        None => container_status(pod, &mut reason),
    }
    if !text(pod, "/metadata/deletionTimestamp").is_empty() {
        if text(pod, "/status/reason") == "NodeLost" {
            return "Unknown".into();
        }
        let ended = matches!(text(pod, "/status/phase"), "Succeeded" | "Failed");
        if !ended || initializing.is_some() {
            return "Terminating".into();
        }
    }
    reason
}

fn init_status(pod: &Value) -> Option<String> {
    let statuses = list(pod, "/status/initContainerStatuses");
    let total = list(pod, "/spec/initContainers").len();
    let unfinished = |status: &&Value| {
        let code = status
            .pointer("/state/terminated/exitCode")
            .and_then(Value::as_i64);
        code != Some(0)
    };
    let done = statuses
        .iter()
        .take_while(|status| !unfinished(status))
        .count();
    let status = statuses.iter().find(unfinished)?;
    if status.pointer("/state/terminated").is_some() {
        return Some(format!("Init:{}", terminated(status)));
    }
    Some(match text(status, "/state/waiting/reason") {
        "" | "PodInitializing" => format!("Init:{done}/{total}"),
        reason => format!("Init:{reason}"),
    })
}

fn terminated(status: &Value) -> String {
    match text(status, "/state/terminated/reason") {
        "" => match count(status, "/state/terminated/signal") {
            0 => format!("ExitCode:{}", count(status, "/state/terminated/exitCode")),
            signal => format!("Signal:{signal}"),
        },
        reason => reason.to_owned(),
    }
}

fn container_status(pod: &Value, reason: &mut String) {
    let mut running = false;
    for status in list(pod, "/status/containerStatuses").iter().rev() {
        let waiting = text(status, "/state/waiting/reason");
        if !waiting.is_empty() {
            waiting.clone_into(reason);
        } else if status.pointer("/state/terminated").is_some() {
            *reason = terminated(status);
        } else if status["ready"] == true && status.pointer("/state/running").is_some() {
            running = true;
        }
    }
    if reason == "Completed" && running {
        let conditions = list(pod, "/status/conditions");
        let ready = conditions
            .iter()
            .any(|c| c["type"] == "Ready" && c["status"] == "True");
        *reason = if ready {
            "Running".into()
        } else {
            "NotReady".into()
        };
    }
}

fn gates(pod: &Value) -> String {
    let gates = list(pod, "/spec/readinessGates");
    if gates.is_empty() {
        return "<none>".into();
    }
    let open = gates.iter().filter(|gate| {
        list(pod, "/status/conditions")
            .iter()
            .any(|c| c["type"] == gate["conditionType"] && c["status"] == "True")
    });
    format!("{}/{}", open.count(), gates.len())
}
