use super::*;
use crate::registry::Registry;

fn allocators(range: &str) -> Allocators {
    Allocators::new(&ClusterConfig {
        cluster_cidr: "10.244.0.0/16".parse().unwrap(),
        service_cidr: range.parse().unwrap(),
        node_cidr_mask: 24,
        advertise: "127.0.0.1:6443".parse().unwrap(),
    })
}

fn admit(allocators: &Allocators, old: Option<&Value>, mut new: Value) -> Result<Value, ApiError> {
    let registry = Registry::new();
    let services = registry.find("", "v1", "services").unwrap();
    allocators.admit(services, old, &mut new)?.keep();
    Ok(new)
}

fn service(kind: &str, ports: &Value) -> Value {
    json!({"metadata": {"name": "s"}, "spec": {"type": kind, "ports": ports}})
}

#[test]
fn a_small_range_is_given_out_whole_and_no_more() {
    let allocators = allocators("10.96.0.0/29");
    let mut given: Vec<String> = (0..6)
        .map(|_| admit(&allocators, None, service("ClusterIP", &json!([]))).unwrap())
        .map(|service| text(&service, "/spec/clusterIP").to_owned())
        .collect();
    given.sort();
    let all: Vec<String> = (1..=6).map(|last| format!("10.96.0.{last}")).collect();
    assert_eq!(given, all);
    let error = admit(&allocators, None, service("ClusterIP", &json!([]))).unwrap_err();
    assert_eq!(error.code, 422);
    assert!(
        error.message.contains("the range is full"),
        "{}",
        error.message
    );
}

#[test]
fn what_a_refused_or_dropped_write_reserved_is_free_again() {
    let allocators = allocators("10.96.0.0/29");
    let registry = Registry::new();
    let services = registry.find("", "v1", "services").unwrap();
    let mut named = service("NodePort", &json!([{"port": 80, "nodePort": 29_000}]));
    named["spec"]["clusterIP"] = "10.96.0.1".into();
    let refused = allocators
        .admit(services, None, &mut named.clone())
        .unwrap_err();
    assert_eq!(
        refused.details.unwrap()["causes"][0]["field"],
        "spec.ports[0].nodePort"
    );
    named["spec"]["ports"][0]["nodePort"] = 30_000.into();
    drop(
        allocators
            .admit(services, None, &mut named.clone())
            .unwrap(),
    );
    let kept = admit(&allocators, None, named.clone()).unwrap();
    assert_eq!(
        admit(&allocators, None, named.clone()).unwrap_err().code,
        422
    );
    allocators.release(services, &kept);
    admit(&allocators, None, named).unwrap();
}

#[test]
fn a_change_of_type_frees_what_is_no_longer_needed() {
    let allocators = allocators("10.96.0.0/16");
    let ports = json!([
        {"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}, {"port": 80},
    ]);
    let old = admit(&allocators, None, service("NodePort", &ports)).unwrap();
    let number = |index: usize| old["spec"]["ports"][index]["nodePort"].as_u64().unwrap();
    assert_eq!(
        number(0),
        number(1),
        "one number for both protocols of one port"
    );
    assert_ne!(number(0), number(2));
    admit(&allocators, Some(&old), service("ExternalName", &json!([]))).unwrap();
    let mut again = service("NodePort", &json!([{"port": 1, "nodePort": number(0)}]));
    again["spec"]["clusterIP"] = old["spec"]["clusterIP"].clone();
    admit(&allocators, None, again).unwrap();
}

#[test]
fn headless_services_get_no_address() {
    let allocators = allocators("10.96.0.0/16");
    let mut headless = service("ClusterIP", &json!([]));
    headless["spec"]["clusterIP"] = "None".into();
    let headless = admit(&allocators, None, headless).unwrap();
    assert_eq!(
        headless["spec"],
        json!({"type": "ClusterIP", "ports": [], "clusterIP": "None", "clusterIPs": ["None"],
               "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"})
    );
}
