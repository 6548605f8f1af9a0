use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use super::*;

fn extract(_: &str, object: &Value) -> Index {
    let label = object
        .pointer("/metadata/labels/app")
        .and_then(Value::as_str);
    let labels = label
        .map(|value| ("app".to_owned(), value.to_owned()))
        .into_iter()
        .collect();
    Index {
        labels,
        fields: Vec::new(),
    }
}

fn open(options: &Options) -> Store {
    Store::open(options, &extract).unwrap()
}

fn options(dir: &TempDir) -> Options {
    Options::new(dir.path().join("store"))
}

fn resource() -> Arc<str> {
    Arc::from("things")
}

fn draft(name: &str, value: &str) -> Draft {
    let object = json!({"metadata": {"name": name, "labels": {"app": value}}, "value": value});
    let index = extract("things", &object);
    Draft::new(object, index).unwrap()
}

async fn put(store: &Store, name: &str, value: &str, expect: Expect) -> Result<u64, CommitError> {
    let key = Key::new(&resource(), "", name);
    let change = Change::Put(draft(name, value));
    store
        .commit(Write {
            key,
            expect,
            change,
        })
        .await
        .map(|object| object.revision)
}

async fn delete(store: &Store, name: &str, revision: u64) -> u64 {
    let key = Key::new(&resource(), "", name);
    let change = Change::Delete(draft(name, "last"));
    let write = Write {
        key,
        expect: Expect::Revision(revision),
        change,
    };
    store.commit(write).await.unwrap().revision
}

fn bodies(snapshot: &Snapshot) -> Vec<String> {
    let text = |object: &Arc<Stored>| String::from_utf8(object.body.to_vec()).unwrap();
    snapshot.objects.iter().map(text).collect()
}

#[tokio::test]
async fn expectations_are_checked_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&options(&dir));
    let first = put(&store, "a", "1", Expect::Absent).await.unwrap();
    assert!(matches!(
        put(&store, "a", "2", Expect::Absent).await,
        Err(CommitError::Exists(_))
    ));
    let second = put(&store, "a", "2", Expect::Revision(first))
        .await
        .unwrap();
    assert!(second > first);
    let stale = put(&store, "a", "3", Expect::Revision(first)).await;
    assert!(matches!(stale, Err(CommitError::Conflict(object)) if object.revision == second));
    let missing = put(&store, "b", "1", Expect::Revision(1)).await;
    assert!(matches!(missing, Err(CommitError::NotFound)));
    delete(&store, "a", second).await;
    assert_eq!(bodies(&store.list("things", None)), [""; 0]);
}

#[tokio::test]
async fn the_past_can_be_listed_until_it_is_compacted() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&options(&dir));
    let a = put(&store, "a", "1", Expect::Absent).await.unwrap();
    let b = put(&store, "b", "1", Expect::Absent).await.unwrap();
    let then = bodies(&store.list("things", None));
    put(&store, "a", "2", Expect::Revision(a)).await.unwrap();
    delete(&store, "b", b).await;
    put(&store, "c", "1", Expect::Absent).await.unwrap();
    assert_eq!(bodies(&store.list_at("things", None, b).unwrap()), then);
    store.compact();
    assert!(matches!(
        store.list_at("things", None, b),
        Err(WatchError::Expired { .. })
    ));
}

#[tokio::test]
async fn history_is_bounded_and_a_slow_watcher_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&Options {
        history: 3,
        ..options(&dir)
    });
    let start = store.revision();
    let mut slow = store.watch(&resource(), start).unwrap();
    let mut revision = put(&store, "a", "0", Expect::Absent).await.unwrap();
    for round in 1..5 {
        revision = put(&store, "a", &round.to_string(), Expect::Revision(revision))
            .await
            .unwrap();
    }
    assert!(matches!(slow.next().await, Err(WatchError::Expired { asked, .. }) if asked == start));
    let mut late = store.watch(&resource(), revision - 3).unwrap();
    assert_eq!(late.next().await.unwrap().len(), 3);
    assert_eq!(late.revision(), revision);
    drop(store);
    assert_eq!(late.next().await.unwrap_err(), WatchError::Closed);
}

#[tokio::test]
async fn a_log_becomes_a_snapshot_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let small = Options {
        snapshot_bytes: 4096,
        ..options(&dir)
    };
    let store = open(&small);
    let mut revisions = std::collections::BTreeMap::new();
    for round in 0..40 {
        for name in ["a", "b", "c"] {
            let expect = revisions
                .get(name)
                .map_or(Expect::Absent, |r| Expect::Revision(*r));
            let revision = put(&store, name, &round.to_string(), expect).await.unwrap();
            revisions.insert(name, revision);
        }
    }
    delete(&store, "b", revisions["b"]).await;
    let (revision, before) = (store.revision(), bodies(&store.list("things", None)));
    drop(store);
    let files = || -> Vec<String> {
        let files = std::fs::read_dir(&small.dir).unwrap();
        files
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect()
    };
    assert!(
        files().iter().any(|name| name.starts_with("snapshot-0")),
        "{:?}",
        files()
    );
    let logs = files()
        .iter()
        .filter(|name| name.starts_with("wal-"))
        .count();
    assert!(logs <= 2, "replaced logs are removed: {:?}", files());
    let store = open(&small);
    assert_eq!(
        (store.revision(), bodies(&store.list("things", None))),
        (revision, before)
    );
    let labels = &store.list("things", None).objects[0].index.labels;
    assert_eq!(labels, &[("app".to_owned(), "39".to_owned())]);
}

#[tokio::test]
async fn a_torn_record_is_cut_off_and_damage_before_it_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&options(&dir));
    put(&store, "a", "1", Expect::Absent).await.unwrap();
    let b = put(&store, "b", "1", Expect::Absent).await.unwrap();
    drop(store);
    let log = options(&dir).dir.join(format!("wal-{:020}", 1));
    let whole = std::fs::read(&log).unwrap();
    std::fs::write(&log, &whole[..whole.len() - 1]).unwrap();
    let store = open(&options(&dir));
    assert_eq!(bodies(&store.list("things", None)).len(), 1);
    assert_eq!(put(&store, "c", "1", Expect::Absent).await.unwrap(), b);
    drop(store);
    let store = open(&options(&dir));
    assert_eq!(
        bodies(&store.list("things", None)).len(),
        2,
        "written after the cut"
    );
    drop(store);
    std::fs::write(&log, b"something else altogether").unwrap();
    let error = Store::open(&options(&dir), &extract).unwrap_err();
    assert!(
        matches!(error, StoreError::Damaged { offset: 0, .. }),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn parallel_writers_share_syncs_and_watchers_see_one_order() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(open(&options(&dir)));
    let watchers: Vec<_> = (0..4)
        .map(|_| {
            let mut watch = store.watch(&resource(), 1).unwrap();
            tokio::spawn(async move {
                let mut seen = Vec::new();
                while seen.len() < 400 {
                    let events = watch.next().await.unwrap();
                    seen.extend(events.iter().map(|event| event.revision()));
                }
                seen
            })
        })
        .collect();
    let started = Instant::now();
    let writers: Vec<_> = (0..40)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for round in 0..10 {
                    put(&store, &format!("{writer}-{round}"), "1", Expect::Absent)
                        .await
                        .unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    assert!(started.elapsed() < Duration::from_secs(60));
    let expected: Vec<u64> = (2..402).collect();
    for watcher in watchers {
        assert_eq!(watcher.await.unwrap(), expected);
    }
}
