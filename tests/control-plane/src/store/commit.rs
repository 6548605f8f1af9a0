//! The commit thread.

use std::collections::HashMap;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use super::wal::{Log, Operation};
use super::{Draft, Key, Options, Shared, StoreError, Stored, read, snapshot, write};

/// Most writes made durable by one `fdatasync`.
const BATCH: usize = 256;

/// What must hold for a write to be committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// There is no such object.
    Absent,
    /// The object's current version has this revision.
    Revision(u64),
}

/// What a write does.
#[derive(Debug)]
pub enum Change {
    /// Creates or replaces the object.
    Put(Draft),
    /// Removes the object, whose last version this is.
    Delete(Draft),
}

/// One write.
#[derive(Debug)]
pub struct Write {
    /// The object.
    pub key: Key,
    /// Its state before.
    pub expect: Expect,
    /// The change.
    pub change: Change,
}

/// Why a write was not committed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CommitError {
    /// Expected absent, but it is there.
    #[error("the object exists")]
    Exists(Arc<Stored>),
    /// Expected present, but it is not there.
    #[error("the object does not exist")]
    NotFound,
    /// Its revision is another.
    #[error("the object was modified")]
    Conflict(Arc<Stored>),
    /// The log could not be written; the store accepts no more writes.
    #[error("the store takes no writes: {0}")]
    Stopped(Arc<str>),
}

type Reply = oneshot::Sender<Result<Arc<Stored>, CommitError>>;

/// Handle of the commit thread; ends and joins it when dropped.
#[derive(Debug)]
pub(crate) struct Committer {
    queue: Option<mpsc::Sender<(Write, Reply)>>,
    thread: Option<JoinHandle<()>>,
}

impl Committer {
    pub(crate) fn start(
        options: Options,
        state: Arc<Shared>,
        log: Log,
    ) -> Result<Self, StoreError> {
        let (queue, requests) = mpsc::channel();
        let path = options.dir.clone();
        let thread = std::thread::Builder::new()
            .name("store-commit".into())
            .spawn(move || run(&options, &state, log, &requests))
            .map_err(|cause| StoreError::Io {
                action: "start thread for",
                path,
                cause,
            })?;
        Ok(Self {
            queue: Some(queue),
            thread: Some(thread),
        })
    }

    pub(crate) async fn commit(&self, write: Write) -> Result<Arc<Stored>, CommitError> {
        let stopped = || CommitError::Stopped("it is closed".into());
        let (reply, answer) = oneshot::channel();
        let queue = self.queue.as_ref().ok_or_else(stopped)?;
        queue.send((write, reply)).map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("store: the commit thread panicked");
        }
    }
}

/// Writes decided on but not yet visible.
#[derive(Default)]
struct Batch {
    /// Current version of the keys touched in this batch; `None` when deleted.
    staged: HashMap<Key, Option<Arc<Stored>>>,
    operations: Vec<Operation>,
    replies: Vec<(Reply, Result<Arc<Stored>, CommitError>)>,
}

fn run(
    options: &Options,
    state: &Arc<Shared>,
    mut log: Log,
    requests: &mpsc::Receiver<(Write, Reply)>,
) {
    let mut failure: Option<Arc<str>> = None;
    let mut snapshots = snapshot::Background::default();
    while let Ok(first) = requests.recv() {
        let mut batch = Batch::default();
        let mut revision = read(state).revision;
        let more = std::iter::from_fn(|| requests.try_recv().ok()).take(BATCH - 1);
        for (write, reply) in std::iter::once(first).chain(more) {
            batch.stage(state, &mut revision, write, reply);
        }
        if failure.is_none()
            && let Err(error) = log.append(&batch.operations)
        {
            tracing::error!(%error, "store: the log cannot be written; no more writes are taken");
            failure = Some(error.to_string().into());
        }
        batch.finish(state, failure.as_ref());
        if failure.is_none() && log.size() > options.snapshot_bytes && snapshots.idle() {
            snapshots.begin(options, state, &mut log);
        }
    }
    snapshots.wait();
    write(state).close();
}

impl Batch {
    fn stage(&mut self, state: &Shared, revision: &mut u64, write: Write, reply: Reply) {
        let current = match self.staged.get(&write.key) {
            Some(staged) => staged.clone(),
            None => read(state).get(&write.key).cloned(),
        };
        if let Err(refusal) = check(write.expect, current.as_ref()) {
            self.replies.push((reply, Err(refusal)));
            return;
        }
        *revision += 1;
        let (draft, deleted) = match write.change {
            Change::Put(draft) => (draft, false),
            Change::Delete(draft) => (draft, true),
        };
        let (body, index) = draft.finish(*revision);
        let create_revision = current.map_or(*revision, |object| object.create_revision);
        let object = Arc::new(Stored {
            key: write.key.clone(),
            create_revision,
            revision: *revision,
            body,
            index,
        });
        self.staged
            .insert(write.key, (!deleted).then(|| object.clone()));
        self.operations.push(Operation {
            deleted,
            object: object.clone(),
        });
        self.replies.push((reply, Ok(object)));
    }

    /// Makes the batch visible, then answers; or answers everything with `failure`.
    fn finish(self, state: &Shared, failure: Option<&Arc<str>>) {
        if failure.is_none() && !self.operations.is_empty() {
            let mut state = write(state);
            for operation in &self.operations {
                state.apply(operation.object.clone(), operation.deleted);
            }
            let mut woken: Vec<&Arc<str>> = self
                .operations
                .iter()
                .map(|operation| &operation.object.key.resource)
                .collect();
            woken.sort_unstable();
            woken.dedup();
            for resource in woken {
                state.wake(resource);
            }
        }
        for (reply, result) in self.replies {
            let result = match failure {
                Some(reason) => Err(CommitError::Stopped(reason.clone())),
                None => result,
            };
            // The writer may have gone away; its write stands.
            drop(reply.send(result));
        }
    }
}

fn check(expect: Expect, current: Option<&Arc<Stored>>) -> Result<(), CommitError> {
    match (expect, current) {
        (Expect::Absent, None) => Ok(()),
        (Expect::Absent, Some(object)) => Err(CommitError::Exists(object.clone())),
        (Expect::Revision(_), None) => Err(CommitError::NotFound),
        (Expect::Revision(revision), Some(object)) if object.revision == revision => Ok(()),
        (Expect::Revision(_), Some(object)) => Err(CommitError::Conflict(object.clone())),
    }
}
