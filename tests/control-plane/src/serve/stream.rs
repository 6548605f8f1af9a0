//! Watch responses: one line per event, flushed as it happens.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::stream;
use http::Response;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use rand::Rng;
use serde_json::{Value, json};
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::answer::{self, Body};
use super::negotiate::Form;
use super::query::Parameters;
use crate::registry::Resource;
use crate::rest::{Api, Filtered, ListOptions, ResourceWatch};
use crate::status::{ApiError, Cause};
use crate::store::{EventKind, Stored, WatchError};
use crate::table::{self, Include};

/// Time between bookmarks.
const BOOKMARKS: Duration = Duration::from_secs(60);

/// How watch events are shown.
struct Show {
    resource: Arc<Resource>,
    form: Form,
    include: Include,
    headings: bool,
}

impl Show {
    fn event(&mut self, change: &Filtered) -> Result<Bytes, ApiError> {
        match self.form {
            Form::Json => change.line(&self.resource),
            Form::Partial => {
                let value = change.value(&self.resource)?;
                Ok(line(change.kind.as_str(), &table::partial(&value)))
            }
            Form::Table => self.row(change.kind, change.object(), &change.revision().to_string()),
        }
    }

    fn initial(&mut self, object: &Arc<Stored>) -> Result<Bytes, ApiError> {
        match self.form {
            Form::Json => Ok(EventKind::Added.line(&Api::serve(&self.resource, object)?)),
            Form::Partial => Ok(line(
                "ADDED",
                &table::partial(&Api::value(&self.resource, object)?),
            )),
            Form::Table => self.row(EventKind::Added, object, &object.revision.to_string()),
        }
    }

    fn row(
        &mut self,
        kind: EventKind,
        object: &Arc<Stored>,
        revision: &str,
    ) -> Result<Bytes, ApiError> {
        let objects = std::slice::from_ref(object);
        let metadata = json!({"resourceVersion": revision});
        let table = table::table(
            &self.resource,
            objects,
            &metadata,
            self.include,
            self.headings,
        )?;
        self.headings = false;
        Ok(line(kind.as_str(), &table))
    }

    /// `end` marks the end of the initial events.
    fn bookmark(&self, revision: u64, end: bool) -> Bytes {
        let mut metadata =
            json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = match self.form {
            Form::Json => json!({
                "kind": self.resource.kind, "apiVersion": self.resource.api_version(),
                "metadata": metadata,
            }),
            Form::Partial => table::partial(&json!({"metadata": metadata})),
            Form::Table => json!({
                "kind": "Table", "apiVersion": "meta.k8s.io/v1", "columnDefinitions": null,
                "metadata": metadata,
                "rows": [{"cells": [], "object": table::partial(&json!({"metadata": metadata}))}],
            }),
        };
        line("BOOKMARK", &object)
    }
}

fn line(kind: &str, object: &Value) -> Bytes {
    format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n").into()
}

fn failure(error: &ApiError) -> Bytes {
    line("ERROR", &error.status())
}

/// Answers a watch request.
///
/// # Errors
/// For bad parameters. A revision that is too old is told inside the stream, as clients expect.
pub(super) fn watch(
    api: &Api,
    resource: &Arc<Resource>,
    namespace: Option<&str>,
    parameters: &Parameters,
    form: Form,
    shutdown: CancellationToken,
) -> Result<Response<Body>, ApiError> {
    let options = parameters.list_options(resource)?;
    let bookmarks = parameters.flag("allowWatchBookmarks")?;
    let seconds = parameters
        .number("timeoutSeconds")?
        .filter(|seconds| *seconds > 0);
    let seconds = seconds
        .unwrap_or_else(|| rand::rng().random_range(1800..3600))
        .min(86_400);
    let include = Include::parse(parameters.get("includeObject"))?;
    let start = Start::parse(resource, parameters, &options)?;
    let mut show = Show {
        resource: resource.clone(),
        form,
        include,
        headings: true,
    };
    if let Start::At(revision) = start {
        api.parse_revision(&revision.to_string())?;
    }
    let (revision, first) = begin(api, namespace, &options, start, &mut show)?;
    let watch = match api.watch(resource, namespace, options.selector, revision) {
        Ok(watch) => watch,
        Err(error) => {
            let body = failure(&ApiError::expired(error.to_string()));
            return Ok(answer::bytes(200, answer::JSON, body));
        }
    };
    let mut ticks = tokio::time::interval(BOOKMARKS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.reset();
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let state = Following {
        watch,
        show,
        bookmarks,
        ticks,
        deadline,
        shutdown,
        first,
    };
    let frames = stream::unfold(Some(state), |state| async move {
        let mut state = state?;
        let (bytes, more) = state.next().await?;
        Some((
            Ok::<_, Infallible>(Frame::data(bytes)),
            more.then_some(state),
        ))
    });
    Ok(answer::respond(
        200,
        answer::JSON,
        StreamBody::new(frames).boxed_unsync(),
    ))
}

/// The revision to follow from, and what is shown before that.
fn begin(
    api: &Api,
    namespace: Option<&str>,
    options: &ListOptions,
    start: Start,
    show: &mut Show,
) -> Result<(u64, Option<Bytes>), ApiError> {
    let end = match start {
        Start::At(revision) => return Ok((revision, None)),
        Start::Now => return Ok((api.store().revision(), None)),
        Start::Everything { end } => end,
    };
    // `resourceVersion` here means "not older than", which the present never is.
    let list = ListOptions {
        selector: options.selector.clone(),
        ..ListOptions::default()
    };
    let page = api.list(&show.resource.clone(), namespace, &list)?;
    let mut first = BytesMut::new();
    for object in &page.objects {
        first.extend_from_slice(&show.initial(object)?);
    }
    if end {
        first.extend_from_slice(&show.bookmark(page.revision, true));
    }
    Ok((
        page.revision,
        Some(first.freeze()).filter(|bytes| !bytes.is_empty()),
    ))
}

/// Where a watch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    /// After a revision.
    At(u64),
    /// With what happens next.
    Now,
    /// With all objects; a bookmark may mark their end.
    Everything { end: bool },
}

impl Start {
    fn parse(
        resource: &Resource,
        parameters: &Parameters,
        options: &ListOptions,
    ) -> Result<Self, ApiError> {
        let version = options.resource_version.as_deref().unwrap_or_default();
        let forbid = |field: &str, why: &str| {
            Err(ApiError::invalid(
                resource,
                "",
                &[Cause::forbidden(field, why)],
            ))
        };
        let given = !parameters.get("sendInitialEvents").is_empty();
        let matching = options.resource_version_match.as_deref();
        if given && matching != Some("NotOlderThan") {
            let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
            return forbid("resourceVersionMatch", why);
        }
        if !given && matching.is_some() {
            let why =
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
            return forbid("resourceVersionMatch", why);
        }
        if parameters.flag("sendInitialEvents")? {
            return Ok(Self::Everything {
                end: parameters.flag("allowWatchBookmarks")?,
            });
        }
        match version {
            "" | "0" if given => Ok(Self::Now),
            "" | "0" => Ok(Self::Everything { end: false }),
            version => version.parse().map(Self::At).map_err(|_| {
                ApiError::bad_request(format!(
                    "resourceVersion: Invalid value: \"{version}\": must be a number"
                ))
            }),
        }
    }
}

/// A watch under way.
struct Following {
    watch: ResourceWatch,
    show: Show,
    bookmarks: bool,
    ticks: Interval,
    deadline: Instant,
    shutdown: CancellationToken,
    first: Option<Bytes>,
}

impl Following {
    /// The next bytes, and whether more may follow; `None` at the end.
    async fn next(&mut self) -> Option<(Bytes, bool)> {
        if let Some(first) = self.first.take() {
            return Some((first, true));
        }
        loop {
            let changes = tokio::select! {
                () = self.shutdown.cancelled() => return None,
                () = tokio::time::sleep_until(self.deadline) => return None,
                _ = self.ticks.tick(), if self.bookmarks => {
                    let missed = self.watch.drain();
                    return Some(self.frame(missed, true));
                }
                changes = self.watch.next() => changes,
            };
            let (bytes, more) = self.frame(changes, false);
            if !bytes.is_empty() || !more {
                return Some((bytes, more));
            }
        }
    }

    /// Shows some changes in one frame.
    fn frame(
        &mut self,
        changes: Result<Vec<Filtered>, WatchError>,
        bookmark: bool,
    ) -> (Bytes, bool) {
        let changes = match changes {
            Ok(changes) => changes,
            Err(WatchError::Closed) => return (Bytes::new(), false),
            Err(error) => return (failure(&ApiError::expired(error.to_string())), false),
        };
        if let ([only], false) = (changes.as_slice(), bookmark) {
            // One event, the usual case: its line is shared with the other watchers, not copied.
            return match self.show.event(only) {
                Ok(line) => (line, true),
                Err(error) => (failure(&error), false),
            };
        }
        let mut frame = BytesMut::new();
        for change in &changes {
            match self.show.event(change) {
                Ok(line) => frame.extend_from_slice(&line),
                Err(error) => {
                    frame.extend_from_slice(&failure(&error));
                    return (frame.freeze(), false);
                }
            }
        }
        if bookmark {
            frame.extend_from_slice(&self.show.bookmark(self.watch.revision(), false));
        }
        (frame.freeze(), true)
    }
}
