use serde_json::json;

use super::*;

const PODS: ResourceType = ResourceType::of::<Pod>();

fn pod(name: &str, uid: &str, revision: u64, node: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "shop", "uid": uid,
                     "resourceVersion": revision.to_string()},
        "spec": {"containers": [], "nodeName": node},
    })
}

fn empty() -> Snapshot {
    Snapshot::new(Timestamp::UNIX_EPOCH)
}

fn names_on(snapshot: &Snapshot, node: &str) -> Vec<String> {
    snapshot
        .pods_on(node)
        .map(|pod| name_of(&pod.metadata).to_owned())
        .collect()
}

fn key() -> Key {
    Key::new::<Pod>("shop", "a")
}

#[test]
fn a_write_is_seen_at_once_and_its_echo_is_no_news() {
    let mut snapshot = empty();
    let change = snapshot
        .record_written(PODS, &pod("a", "1", 7, ""))
        .unwrap()
        .unwrap();
    assert!(change.before::<Pod>().is_none() && change.after::<Pod>().is_some());
    let echo = Observation::Changed(pod("a", "1", 7, ""));
    assert!(snapshot.observe(PODS, &echo).unwrap().is_empty());
    let earlier = Observation::Changed(pod("a", "1", 6, ""));
    assert!(snapshot.observe(PODS, &earlier).unwrap().is_empty());
}

#[test]
fn a_write_that_the_watch_is_already_past_changes_nothing() {
    let mut snapshot = empty();
    for observation in [
        Observation::Changed(pod("a", "1", 7, "")),
        Observation::Deleted(pod("a", "1", 8, "")),
    ] {
        snapshot.observe(PODS, &observation).unwrap();
    }
    assert!(
        snapshot
            .record_written(PODS, &pod("a", "1", 7, ""))
            .unwrap()
            .is_none()
    );
    assert!(snapshot.pods.get("shop", "a").is_none());
}

#[test]
fn what_was_removed_does_not_come_back_until_another_takes_the_name() {
    let mut snapshot = empty();
    snapshot
        .record_written(PODS, &pod("a", "1", 5, ""))
        .unwrap();
    assert!(snapshot.record_removed(&key(), "other").is_none());
    assert!(snapshot.record_removed(&key(), "1").is_some());
    let late = Observation::Changed(pod("a", "1", 6, ""));
    assert!(snapshot.observe(PODS, &late).unwrap().is_empty());
    let successor = Observation::Changed(pod("a", "2", 8, ""));
    assert_eq!(snapshot.observe(PODS, &successor).unwrap().len(), 1);
    let old_end = Observation::Deleted(pod("a", "1", 9, ""));
    assert!(snapshot.observe(PODS, &old_end).unwrap().is_empty());
    assert!(snapshot.pods.get("shop", "a").is_some());
}

#[test]
fn a_new_list_removes_what_it_lacks_but_not_what_is_newer() {
    let mut snapshot = empty();
    snapshot
        .record_written(PODS, &pod("old", "1", 3, ""))
        .unwrap();
    snapshot
        .record_written(PODS, &pod("kept", "2", 4, ""))
        .unwrap();
    snapshot
        .record_written(PODS, &pod("newer", "3", 12, ""))
        .unwrap();
    let listed = Observation::Listed {
        objects: vec![pod("kept", "2", 4, ""), pod("found", "4", 9, "")],
        revision: 10,
    };
    let mut changed: Vec<(String, bool)> = snapshot
        .observe(PODS, &listed)
        .unwrap()
        .iter()
        .map(|change| (change.key.name.clone(), change.after::<Pod>().is_some()))
        .collect();
    changed.sort();
    assert_eq!(
        changed,
        [("found".to_owned(), true), ("old".to_owned(), false)]
    );
    let left: Vec<&str> = snapshot
        .pods
        .iter()
        .map(|pod| name_of(&pod.metadata))
        .collect();
    assert_eq!(left, ["found", "kept", "newer"]);
}

#[test]
fn pods_are_found_by_their_node() {
    let mut snapshot = empty();
    snapshot
        .record_written(PODS, &pod("a", "1", 1, ""))
        .unwrap();
    snapshot
        .record_written(PODS, &pod("b", "2", 2, "n1"))
        .unwrap();
    assert_eq!(
        (names_on(&snapshot, ""), names_on(&snapshot, "n1")),
        (vec!["a".into()], vec!["b".into()])
    );
    snapshot
        .record_written(PODS, &pod("a", "1", 3, "n1"))
        .unwrap();
    snapshot.record_removed(&Key::new::<Pod>("shop", "b"), "2");
    assert_eq!(
        (names_on(&snapshot, ""), names_on(&snapshot, "n1")),
        (vec![], vec!["a".into()])
    );
}
