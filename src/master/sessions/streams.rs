//! Streams of nodes (logs; later exec, attach and port-forward) through whichever master holds the node's session.
//!
//! ```text
//! API request ─▶ session here? ── yes ─▶ StreamRequest(id) down ─▶ the node dials `Stream` with the id ─▶ frames
//!                     └── no ─▶ Relay to each other master until one holds it; authorized again there
//! ```
//!
//! **Invariant:** bulk never travels on a control connection, and a stream nobody took within its time is forgotten.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use apiserver::{LogOptions, LogStream, PodRef, StreamError, Streams};
use bytes::Bytes;
use control::authz::User;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use rpc::pb;
use tokio::sync::oneshot;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::Sessions;

/// How long a node has to dial back for a stream.
const DIAL_LIMIT: Duration = Duration::from_secs(10);
/// Frames in flight towards a slow reader.
const FRAMES_MAX: usize = 16;
/// Streams of one master that nodes have not dialled back for yet.
const WAITING_MAX: usize = 1024;

/// What a node sends for one stream.
pub type Uplink = BoxStream<'static, Result<pb::StreamFrame, Status>>;

/// Streams asked for that the node has not dialled back for yet, by id.
#[derive(Default)]
pub(super) struct Waiting(Mutex<BTreeMap<String, (String, oneshot::Sender<Uplink>)>>);

/// Takes a stream off the waiting ones when it is opened or given up.
struct Forget<'a> {
    waiting: &'a Waiting,
    id: &'a str,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.waiting.0.lock().unwrap_or_else(PoisonError::into_inner).remove(self.id);
    }
}

/// The way to the other masters.
#[async_trait::async_trait]
pub trait Relay: Send + Sync + 'static {
    /// Opens the stream at whichever other master holds the node's session.
    async fn open(&self, open: pb::StreamOpen) -> Result<Uplink, StreamError>;
}

impl Sessions {
    /// Opens a stream of a node whose session this master holds; `None` when it does not.
    pub async fn open_stream(&self, open: pb::StreamOpen) -> Option<Result<Uplink, Status>> {
        let connected = self.connected().get(&open.node).cloned()?;
        let id = self.uid();
        let (taken, dialled) = oneshot::channel();
        // Whoever asked may go away at any time.
        let _forgotten = Forget { waiting: &self.0.waiting, id: &id };
        {
            let mut waiting = self.0.waiting.0.lock().unwrap_or_else(PoisonError::into_inner);
            if waiting.len() >= WAITING_MAX {
                return Some(Err(Status::resource_exhausted("too many streams are being opened")));
            }
            waiting.insert(id.clone(), (open.node.clone(), taken));
        }
        let node = open.node.clone();
        let request = pb::StreamRequest { id: id.clone(), open: Some(open) };
        let message = pb::MasterMessage { message: Some(pb::master_message::Message::Stream(request)) };
        let opened = async {
            connected
                .down
                .send_timeout(Ok(message), DIAL_LIMIT)
                .await
                .map_err(|_| Status::unavailable(format!("node {node} went away")))?;
            tokio::time::timeout(DIAL_LIMIT, dialled)
                .await
                .map_err(|_| {
                    Status::deadline_exceeded(format!(
                        "node {node} did not open the stream in {} s",
                        DIAL_LIMIT.as_secs()
                    ))
                })?
                .map_err(|_| Status::unavailable(format!("node {node} went away")))
        }
        .await;
        Some(opened)
    }

    /// The node dialled back for stream `id`. Frames towards the node are for later streams; logs need none.
    ///
    /// # Errors
    /// `NOT_FOUND` when nobody waits for that stream of that node (any more).
    pub fn dialled(
        &self,
        node: &str,
        id: &str,
        up: Uplink,
    ) -> Result<ReceiverStream<Result<pb::StreamFrame, Status>>, Status> {
        let mut waiting = self.0.waiting.0.lock().unwrap_or_else(PoisonError::into_inner);
        let ours = waiting.get(id).is_some_and(|(whose, _)| whose == node);
        let taken = if ours { waiting.remove(id) } else { None };
        drop(waiting);
        let (_, taken) = taken.ok_or_else(|| Status::not_found("nobody waits for this stream"))?;
        let (down, stream) = tokio::sync::mpsc::channel(1);
        // The node's call lives as long as its frames are read: `down` is dropped with the reader.
        let up = up.chain(futures::stream::once(async move {
            drop(down);
            Ok(pb::StreamFrame { eof: true, ..Default::default() })
        }));
        taken.send(up.boxed()).map_err(|_| Status::not_found("nobody waits for this stream any more"))?;
        Ok(ReceiverStream::new(stream))
    }
}

/// Logs for the API server: from the node's session here, or through the master that holds it.
pub struct NodeStreams {
    pub sessions: Sessions,
    pub relay: Arc<dyn Relay>,
}

#[async_trait::async_trait]
impl Streams for NodeStreams {
    async fn logs(&self, user: &User, pod: PodRef, options: LogOptions) -> Result<LogStream, StreamError> {
        let open = open_logs(user, pod, options);
        let frames = match self.sessions.open_stream(open.clone()).await {
            Some(opened) => opened.map_err(|status| StreamError::Unavailable(status.message().to_owned()))?,
            None => self.relay.open(open).await?,
        };
        log_stream(frames).await
    }
}

fn open_logs(user: &User, pod: PodRef, options: LogOptions) -> pb::StreamOpen {
    pb::StreamOpen {
        node: pod.node,
        user: user.name.clone(),
        groups: user.groups.clone(),
        namespace: pod.namespace,
        pod: pod.name,
        uid: pod.uid,
        container: options.container,
        logs: Some(pb::LogOptions {
            follow: options.follow,
            previous: options.previous,
            tail_lines: options.tail_lines.map(|lines| i64::try_from(lines).unwrap_or(i64::MAX)),
            limit_bytes: options.limit_bytes.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX)),
            since_seconds: None,
            since_time: options.since.map(|time| time.to_string()).unwrap_or_default(),
            timestamps: options.timestamps,
        }),
    }
}

/// Waits for the first frame, so that a failure becomes a proper HTTP answer, and turns the rest into bytes.
async fn log_stream(mut frames: Uplink) -> Result<LogStream, StreamError> {
    let first = match frames.next().await {
        None => return Ok(futures::stream::empty().boxed()),
        Some(frame) => data(frame)?,
    };
    let ended = first.is_none();
    let first = futures::stream::iter(first.map(Ok));
    if ended {
        return Ok(first.boxed());
    }
    Ok(first.chain(until_end(frames)).boxed())
}

fn until_end(frames: Uplink) -> impl Stream<Item = Result<Bytes, StreamError>> + Send {
    futures::stream::unfold(Some(frames), |frames| async move {
        let mut frames = frames?;
        match frames.next().await.map(data) {
            None | Some(Ok(None)) => None,
            Some(Ok(Some(bytes))) => Some((Ok(bytes), Some(frames))),
            Some(Err(error)) => Some((Err(error), None)),
        }
    })
}

/// The bytes of a frame; `None` at the end.
fn data(frame: Result<pb::StreamFrame, Status>) -> Result<Option<Bytes>, StreamError> {
    let frame =
        frame.map_err(|status| StreamError::Unavailable(format!("the node's stream broke: {}", status.message())))?;
    match frame.error {
        Some(error) => Err(match error.code {
            400 => StreamError::BadRequest(error.message),
            404 => StreamError::NotFound(error.message),
            503 => StreamError::Unavailable(error.message),
            _ => StreamError::Internal(error.message),
        }),
        None if frame.eof && frame.data.is_empty() => Ok(None),
        None => Ok(Some(frame.data)),
    }
}

/// Answers a Relay call of another master: the node's frames as they come.
pub fn relayed(frames: Uplink) -> ReceiverStream<Result<pb::StreamFrame, Status>> {
    let (down, stream) = tokio::sync::mpsc::channel(FRAMES_MAX);
    tokio::spawn(async move {
        let mut frames = frames;
        // A quiet stream ends with its reader too, not only with its next frame.
        loop {
            let frame = tokio::select! {
                () = down.closed() => return,
                frame = frames.next() => frame,
            };
            let Some(frame) = frame else { return };
            if down.send(frame).await.is_err() {
                return;
            }
        }
    });
    ReceiverStream::new(stream)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    /// A stream without frames that notes its end.
    struct Quiet(Arc<AtomicBool>);

    impl Drop for Quiet {
        fn drop(&mut self) {
            self.0.store(true, Relaxed);
        }
    }

    #[tokio::test]
    async fn a_relayed_stream_that_is_quiet_ends_with_its_reader() {
        let ended = Arc::new(AtomicBool::new(false));
        let quiet = Quiet(ended.clone());
        let frames = futures::stream::once(async move {
            let _quiet = quiet;
            std::future::pending().await
        });
        drop(relayed(frames.boxed()));
        while !ended.load(Relaxed) {
            tokio::task::yield_now().await;
        }
    }

    #[test]
    fn a_stream_that_was_given_up_no_longer_waits() {
        let waiting = Waiting::default();
        waiting.0.lock().unwrap().insert("1".into(), ("n1".into(), oneshot::channel().0));
        drop(Forget { waiting: &waiting, id: "1" });
        assert!(waiting.0.lock().unwrap().is_empty());
    }
}
