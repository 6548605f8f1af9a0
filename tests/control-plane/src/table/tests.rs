use super::*;

fn cells(columns: Columns, object: &Value) -> Value {
    let now = "2026-01-01T00:10:00Z".parse().unwrap();
    let cells = (columns.cells)(object, now);
    assert_eq!(cells.len(), columns.columns.len());
    cells.into()
}

#[test]
fn a_service_row() {
    let service = json!({
        "metadata": {"name": "web", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"type": "NodePort", "clusterIP": "10.96.0.9", "selector": {"app": "web"}, "ports": [
            {"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"},
        ]},
    });
    assert_eq!(
        cells(SERVICE, &service),
        json!([
            "web",
            "NodePort",
            "10.96.0.9",
            "<none>",
            "80:30080/TCP,53/UDP",
            "10m",
            "app=web"
        ])
    );
}

#[test]
fn a_pod_row_shows_the_reason_that_matters() {
    let mut pod = json!({
        "metadata": {"name": "p", "creationTimestamp": "2026-01-01T00:09:55Z"},
        "spec": {"nodeName": "n", "containers": [{"name": "a"}, {"name": "b"}]},
        "status": {"phase": "Running", "podIP": "10.244.0.2", "containerStatuses": [
            {"ready": true, "restartCount": 0, "state": {"running": {}}},
            {"ready": false, "restartCount": 2, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
             "lastState": {"terminated": {"finishedAt": "2026-01-01T00:09:00Z"}}},
        ]},
    });
    let row = |status: &str| {
        json!([
            "p",
            "1/2",
            status,
            "2 (60s ago)",
            "5s",
            "10.244.0.2",
            "n",
            "<none>",
            "<none>"
        ])
    };
    assert_eq!(cells(POD, &pod), row("CrashLoopBackOff"));
    pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:11:00Z".into();
    assert_eq!(cells(POD, &pod), row("Terminating"));
}

#[test]
fn slices_show_the_first_few() {
    let endpoint = |last: u8| json!({"addresses": [format!("10.244.0.{last}")]});
    let slice = json!({
        "metadata": {"name": "web-x", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "addressType": "IPv4", "ports": [{"port": 8080}],
        "endpoints": [endpoint(1), endpoint(2), endpoint(3), endpoint(4)],
    });
    assert_eq!(
        cells(ENDPOINT_SLICE, &slice),
        json!([
            "web-x",
            "IPv4",
            "8080",
            "10.244.0.1,10.244.0.2,10.244.0.3 + 1 more...",
            "10m"
        ])
    );
}
