//! WATCH: a position and a filter on the replica, written out as JSON frames.
//!
//! ```text
//! initial objects (ADDED) ─▶ [BOOKMARK initial-events-end] ─▶ changes, BOOKMARK now and then ─▶ end of stream
//!                 all of one root at revision R                     every change after R, once, in order
//! ```
//!
//! A watcher holds no queue: a slow client costs its position, and at worst gets an ERROR frame with 410.
//!
//! **Invariant:** a bookmark's revision is sent only after every matching change up to it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use control::seal::{self, Sealer};
use futures::stream;
use http::{HeaderValue, header};
use replica::watch::{Filter, Watcher};
use state::{Compacted, Event, Record, Revision};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::negotiate;
use crate::query::{ListOptions, Selectors, Version};
use crate::read;
use crate::rows::Rows;
use crate::server::Call;
use crate::shape::Shape;
use crate::status::{Failure, Result};

/// Without `timeoutSeconds` a watch lives 30 to 60 minutes, at random, so that clients do not come back all at once.
const TIMEOUT_DEFAULT_S: u64 = 1800;
/// A longer `timeoutSeconds` counts as this.
const TIMEOUT_MAX_S: u64 = 365 * 24 * 3600;
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// A bookmark is due this long before the end, so that the client resumes from it.
const BOOKMARK_BEFORE_END: Duration = Duration::from_secs(2);
/// Initial objects are written in chunks of about this size.
const CHUNK_BYTES: usize = 64 * 1024;
/// The change of an object of at least this size is written once for all watchers; smaller ones cost less to copy than to
/// look up.
const SHARED_BYTES_MIN: usize = 16 * 1024;
/// So many of the latest of those are kept for watchers that come to them later.
const SHARED_FRAMES_MAX: usize = 16;

pub async fn watch(call: Call) -> Result<Response> {
    let accepted = negotiate::accepted(&call.headers, true)?;
    let options = ListOptions::parse(&call, true)?;
    let shape = Shape::new(&call, accepted.form)?;
    let root = read::at(call.replica(), options.version).await?;
    let start = match options.version {
        Version::NotOlderThan(revision) | Version::Exact(revision) if options.initial_events != Some(true) => revision,
        _ => root.revision(),
    };
    if start < root.compacted() {
        return Err(expired(Compacted { asked: start, compacted: root.compacted() }));
    }
    let initial = match (options.initial_events, options.version) {
        (Some(initial), _) => initial,
        (None, version) => matches!(version, Version::Newest | Version::Any),
    };
    let mut context = call.server.context();
    let seconds = options
        .timeout_seconds
        .filter(|seconds| *seconds > 0)
        .unwrap_or_else(|| TIMEOUT_DEFAULT_S + context.draw() % TIMEOUT_DEFAULT_S)
        .min(TIMEOUT_MAX_S);
    let now = Instant::now();
    let end = now + Duration::from_secs(seconds);
    let namespace = call.resource.namespace.as_str();
    let frames = Frames {
        watcher: call.replica().watch(filter(&call, &options.selectors), start),
        now: call.server.config.now.clone(),
        shutdown: call.server.config.shutdown.clone(),
        initial: if initial {
            Rows::new(root, call.kind, namespace, options.selectors.clone())
        } else {
            Rows::none(call.kind, options.selectors.clone())
        },
        ready: VecDeque::new(),
        shared: call.server.frames.clone(),
        initial_end: (options.initial_events == Some(true) && options.bookmarks).then_some(start),
        sealer: call.server.config.settings.sealer.clone(),
        selectors: options.selectors,
        bookmarks: options.bookmarks,
        next_bookmark: bookmark_time(now, end),
        columns_due: true,
        shape,
        end,
        done: false,
        _gauge: Gauge::new(call.kind.plural),
    };
    let body = stream::unfold(frames, |mut frames| async {
        let chunk = frames.next().await?;
        Some((Ok::<_, std::convert::Infallible>(chunk), frames))
    });
    let mut response = Response::new(Body::from_stream(body));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    Ok(response)
}

/// What the replica may filter for us: it wakes only the watchers concerned.
fn filter(call: &Call, selectors: &Selectors) -> Filter {
    let exact = |field: &str| selectors.fields.exact(field).filter(|value| !value.is_empty()).map(str::to_owned);
    let namespace = match call.resource.namespace.as_str() {
        "" => exact("metadata.namespace"),
        namespace => Some(namespace.to_owned()),
    };
    Filter {
        group: call.kind.group.to_owned(),
        resource: call.kind.plural.to_owned(),
        namespace,
        name: exact("metadata.name"),
        node: exact("spec.nodeName").filter(|_| call.kind.group.is_empty() && call.kind.plural == "pods"),
    }
}

fn expired(compacted: Compacted) -> Failure {
    Failure::expired(compacted.to_string(), None)
}

fn bookmark_time(now: Instant, end: Instant) -> Instant {
    let last = end.checked_sub(BOOKMARK_BEFORE_END).unwrap_or(end);
    if now >= last { end } else { (now + BOOKMARK_EVERY).min(last) }
}

/// The frames of one watch, a chunk at a time.
struct Frames {
    watcher: Watcher,
    now: Arc<dyn Fn() -> jiff::Timestamp + Send + Sync>,
    shutdown: CancellationToken,
    sealer: Option<Arc<dyn Sealer>>,
    selectors: Selectors,
    shape: Shape,
    initial: Rows,
    /// What is written and not sent yet: a large frame is a piece of its own.
    ready: VecDeque<Bytes>,
    shared: SharedFrames,
    /// The bookmark owed after the initial objects.
    initial_end: Option<Revision>,
    bookmarks: bool,
    next_bookmark: Instant,
    /// The first Table frame carries the columns.
    columns_due: bool,
    end: Instant,
    done: bool,
    _gauge: Gauge,
}

impl Frames {
    /// The next chunk; `None` at the clean end of the stream.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(chunk) = self.ready.pop_front() {
            return Some(chunk);
        }
        let mut out = self.next_initial();
        while out.is_empty() && self.ready.is_empty() {
            if self.done {
                return None;
            }
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return None,
                () = tokio::time::sleep_until(self.end) => return None,
                () = tokio::time::sleep_until(self.next_bookmark), if self.bookmarks => {
                    self.next_bookmark = bookmark_time(Instant::now(), self.end);
                    self.bookmark(&mut out);
                }
                batch = self.watcher.next() => {
                    self.shape.now = (self.now)();
                    match batch {
                        Ok(batch) => batch.events.iter().for_each(|event| self.change(event, &mut out)),
                        Err(compacted) => {
                            self.done = true;
                            frame("ERROR", &mut out, |out| {
                                out.extend_from_slice(expired(compacted).body().to_string().as_bytes());
                            });
                        }
                    }
                }
            }
        }
        if !out.is_empty() {
            self.ready.push_back(out.into());
        }
        self.ready.pop_front()
    }

    fn next_initial(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        let (shape, columns, sealer) = (&self.shape, &mut self.columns_due, self.sealer.as_deref());
        let mut closed = None;
        self.initial.visit(|record| {
            let record = match seal::open(record, sealer) {
                Ok(record) => record,
                Err(why) => {
                    closed = Some(why);
                    return false;
                }
            };
            let columns = std::mem::take(columns);
            frame("ADDED", &mut out, |out| shape.write_object(&record, record.revision, columns, out));
            out.len() < CHUNK_BYTES
        });
        if let Some(why) = closed {
            self.fail(why, &mut out);
            return out;
        }
        if self.initial.is_over()
            && let Some(revision) = self.initial_end.take()
        {
            frame("BOOKMARK", &mut out, |out| self.shape.write_bookmark(revision, true, out));
        }
        out
    }

    /// What one change is to this watcher: selectors turn it into the appearance or disappearance of an object.
    fn change(&mut self, event: &Event, out: &mut Vec<u8>) {
        let old = event.old.as_ref().filter(|record| self.selectors.matches(record));
        let new = event.new.as_ref().filter(|record| self.selectors.matches(record));
        match (old, new) {
            (None, Some(new)) => self.object("ADDED", new, event.revision, out),
            (Some(_), Some(new)) => self.object("MODIFIED", new, event.revision, out),
            (Some(old), None) => self.object("DELETED", old, event.revision, out),
            (None, None) => {}
        }
    }

    /// The client starts anew, most likely at a master that can open what this one cannot.
    fn fail(&mut self, why: String, out: &mut Vec<u8>) {
        self.done = true;
        frame("ERROR", out, |out| out.extend_from_slice(Failure::internal(why).body().to_string().as_bytes()));
    }

    fn object(&mut self, kind: &'static str, record: &Record, revision: Revision, out: &mut Vec<u8>) {
        let sealer = self.sealer.clone();
        let record = match seal::open(record, sealer.as_deref()) {
            Ok(record) => record,
            Err(why) => return self.fail(why, out),
        };
        let columns = std::mem::take(&mut self.columns_due);
        let shape = &self.shape;
        let write = |out: &mut Vec<u8>| frame(kind, out, |out| shape.write_object(&record, revision, columns, out));
        if !shape.copies() || record.body.len() < SHARED_BYTES_MIN {
            return write(out);
        }
        let frame = self.shared.frame(revision, kind, write);
        if !out.is_empty() {
            self.ready.push_back(std::mem::take(out).into());
        }
        self.ready.push_back(frame);
    }

    /// A bookmark, unless a change that is due stands before it.
    fn bookmark(&mut self, out: &mut Vec<u8>) {
        let revision = self.watcher.settle();
        frame("BOOKMARK", out, |out| self.shape.write_bookmark(revision, false, out));
    }
}

fn frame(kind: &str, out: &mut Vec<u8>, object: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(b"\",\"object\":");
    object(out);
    out.extend_from_slice(b"}\n");
}

/// Frames of large objects, written once for all watchers that a change concerns.
#[derive(Clone, Default)]
pub struct SharedFrames(Arc<Mutex<VecDeque<SharedFrame>>>);

struct SharedFrame {
    revision: Revision,
    kind: &'static str,
    bytes: Bytes,
}

impl SharedFrames {
    fn frame(&self, revision: Revision, kind: &'static str, write: impl FnOnce(&mut Vec<u8>)) -> Bytes {
        let mut frames = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A revision is one change of one object.
        if let Some(known) = frames.iter().rev().find(|frame| (frame.revision, frame.kind) == (revision, kind)) {
            return known.bytes.clone();
        }
        let mut bytes = Vec::new();
        write(&mut bytes);
        let bytes = Bytes::from(bytes);
        if frames.len() == SHARED_FRAMES_MAX {
            frames.pop_front();
        }
        frames.push_back(SharedFrame { revision, kind, bytes: bytes.clone() });
        bytes
    }
}

/// Counts the watchers of a resource while one lives.
struct Gauge(&'static str);

impl Gauge {
    fn new(resource: &'static str) -> Self {
        metrics::gauge!("apiserver_longrunning_requests", "verb" => "watch", "resource" => resource).increment(1.0);
        Self(resource)
    }
}

impl Drop for Gauge {
    fn drop(&mut self) {
        metrics::gauge!("apiserver_longrunning_requests", "verb" => "watch", "resource" => self.0).decrement(1.0);
    }
}
