//! Streams of nodes through whichever master holds the node's session: logs here, everything else in `links`.
//!
//! ```text
//! API request ─▶ session here? ── yes ─▶ StreamRequest(id) down ─▶ the node dials `Stream` with the id ─▶ frames
//!                     └── no ─▶ Relay to each other master until one holds it; authorized again there
//!                               └── nobody does ─▶ once more for a moment, unless the node is known to be silent
//! ```
//!
//! **Invariant:** bulk never travels on a control connection, and a stream nobody took within its time is forgotten. Who asks
//! for a node that is not there hears so at once, and is not told to try again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use apiserver::{Link, LogOptions, LogStream, PodRef, Session, StreamError, Streams};
use bytes::Bytes;
use control::authz::User;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use rpc::pb;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{Sessions, links};

/// How long a node has to dial back for a stream.
const DIAL_LIMIT: Duration = Duration::from_secs(10);
/// How old a node's last sign of life may be: it gives one each second. Beyond it nothing is asked of it.
const SILENCE_MAX: Duration = Duration::from_secs(3);
/// How long a node that no master is connected to may take to come back: it does within a second when its master ended.
const RECONNECT_LIMIT: Duration = Duration::from_secs(2);
const RECONNECT_LOOK: Duration = Duration::from_millis(100);
/// Frames in flight towards a slow reader.
const FRAMES_MAX: usize = 16;
/// Streams of one master that nodes have not dialled back for yet.
const WAITING_MAX: usize = 1024;

/// What a node sends for one stream.
pub type Uplink = BoxStream<'static, Result<pb::StreamFrame, Status>>;
/// What it is sent.
pub type Downlink = mpsc::Sender<Result<pb::StreamFrame, Status>>;

/// Both directions of an open stream. It ends when `down` is dropped.
pub struct Dialled {
    pub up: Uplink,
    pub down: Downlink,
}

/// Streams asked for that the node has not dialled back for yet, by id.
#[derive(Default)]
pub(super) struct Waiting(Mutex<BTreeMap<String, (String, oneshot::Sender<Dialled>)>>);

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
    /// Opens the stream at whichever other master holds the node's session; `None`: no master does.
    async fn open(&self, open: pb::StreamOpen) -> Result<Option<Dialled>, StreamError>;
}

impl Sessions {
    /// Opens a stream of a node whose session this master holds; `None` when it does not.
    pub async fn open_stream(&self, open: pb::StreamOpen) -> Option<Result<Dialled, Status>> {
        let connected = self.connected().get(&open.node).cloned()?;
        if let Some(silence) = self.0.parts.heard.silence(&open.node).filter(|silence| *silence > SILENCE_MAX) {
            return Some(Err(Status::deadline_exceeded(format!(
                "node {} cannot be reached: it has said nothing for {} s",
                open.node,
                silence.as_secs()
            ))));
        }
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

    /// The node dialled back for stream `id`, and gets what is for it.
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
        let (down, stream) = mpsc::channel(FRAMES_MAX);
        taken.send(Dialled { up, down }).map_err(|_| Status::not_found("nobody waits for this stream any more"))?;
        Ok(ReceiverStream::new(stream))
    }
}

/// Streams for the API server: from the node's session here, or through the master that holds it.
pub struct NodeStreams {
    pub sessions: Sessions,
    pub relay: Arc<dyn Relay>,
}

#[async_trait::async_trait]
impl Streams for NodeStreams {
    async fn logs(&self, user: &User, pod: PodRef, options: LogOptions) -> Result<LogStream, StreamError> {
        let open = open_logs(user, pod, options);
        log_stream(self.dial(open).await?).await
    }

    async fn open(&self, user: &User, pod: PodRef, session: Session) -> Result<Link, StreamError> {
        links::link(self.dial(links::open(user, pod, session)).await?).await
    }
}

impl NodeStreams {
    async fn dial(&self, open: pb::StreamOpen) -> Result<Dialled, StreamError> {
        let since = Instant::now();
        loop {
            if let Some(opened) = self.sessions.open_stream(open.clone()).await {
                return opened.map_err(refused);
            }
            if let Some(opened) = self.relay.open(open.clone()).await? {
                return Ok(opened);
            }
            if !super::may_come_back(&self.sessions.root(), &open.node) || since.elapsed() > RECONNECT_LIMIT {
                return Err(StreamError::Unreachable(format!(
                    "node {} cannot be reached: it is connected to no master; is its machine up, and `hactl run` running there?",
                    open.node
                )));
            }
            tokio::time::sleep(RECONNECT_LOOK).await;
        }
    }
}

/// Why a node that has a session did not open the stream.
fn refused(status: Status) -> StreamError {
    let why = status.message().to_owned();
    match status.code() {
        tonic::Code::DeadlineExceeded => StreamError::Unreachable(why),
        _ => StreamError::Unavailable(why),
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
        ..Default::default()
    }
}

/// Waits for the first frame, so that a failure becomes a proper HTTP answer, and turns the rest into bytes.
async fn log_stream(mut dialled: Dialled) -> Result<LogStream, StreamError> {
    let first = match dialled.up.next().await {
        None => return Ok(futures::stream::empty().boxed()),
        Some(frame) => data(frame)?,
    };
    let ended = first.is_none();
    let first = futures::stream::iter(first.map(Ok));
    if ended {
        return Ok(first.boxed());
    }
    Ok(first.chain(until_end(dialled)).boxed())
}

fn until_end(dialled: Dialled) -> impl Stream<Item = Result<Bytes, StreamError>> + Send {
    futures::stream::unfold(Some(dialled), |dialled| async move {
        let mut dialled = dialled?;
        match dialled.up.next().await.map(data) {
            None | Some(Ok(None)) => None,
            Some(Ok(Some(bytes))) => Some((Ok(bytes), Some(dialled))),
            Some(Err(error)) => Some((Err(error), None)),
        }
    })
}

/// The bytes of a frame; `None` at the end.
fn data(frame: Result<pb::StreamFrame, Status>) -> Result<Option<Bytes>, StreamError> {
    let frame = frame.map_err(broke)?;
    match frame.error {
        Some(error) => Err(said(error)),
        None if frame.eof && frame.data.is_empty() => Ok(None),
        None => Ok(Some(frame.data)),
    }
}

pub(super) fn broke(status: Status) -> StreamError {
    StreamError::Unavailable(format!("the node's stream broke: {}", status.message()))
}

/// What a node says of its failure.
pub(super) fn said(error: pb::StreamError) -> StreamError {
    match error.code {
        400 => StreamError::BadRequest(error.message),
        404 => StreamError::NotFound(error.message),
        503 => StreamError::Unavailable(error.message),
        _ => StreamError::Internal(error.message),
    }
}

/// Answers a Relay call of another master: the node's frames as they come, and for the node those that master sends.
pub fn relayed(dialled: Dialled, from: Uplink) -> ReceiverStream<Result<pb::StreamFrame, Status>> {
    let (answer, stream) = mpsc::channel(FRAMES_MAX);
    let Dialled { up, down } = dialled;
    let downwards = async move {
        if carry(from, &down).await.is_err() {
            // The node takes no more; what it has said is still on its way.
            std::future::pending::<()>().await;
        }
    };
    tokio::spawn(async move {
        // A quiet stream ends with either side too, not only with the next frame.
        tokio::select! {
            () = answer.closed() => {}
            _ = carry(up, &answer) => {}
            () = downwards => {}
        }
    });
    ReceiverStream::new(stream)
}

/// Until there are no more frames; an error: nobody takes them.
async fn carry(mut frames: Uplink, to: &Downlink) -> Result<(), ()> {
    while let Some(frame) = frames.next().await {
        to.send(frame).await.map_err(|_| ())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering::Relaxed;
    use std::sync::atomic::{AtomicBool, AtomicUsize};

    use serde_json::json;
    use state::{Command, EntryId, Op, State};
    use tokio_util::sync::CancellationToken;

    use super::super::{Connected, Parts};
    use super::*;

    #[derive(Debug)]
    struct Plain;

    impl control::seal::Sealer for Plain {
        fn seal(&self, _: &str, _: &[u8]) -> Result<Option<(String, Vec<u8>)>, String> {
            Ok(None)
        }

        fn open(&self, _: &str, _: &str, blob: &[u8]) -> Result<Vec<u8>, String> {
            Ok(blob.to_vec())
        }
    }

    /// Other masters without a session of the node; how often they were asked.
    #[derive(Default)]
    struct Nobody(AtomicUsize);

    #[async_trait::async_trait]
    impl Relay for Nobody {
        async fn open(&self, _: pb::StreamOpen) -> Result<Option<Dialled>, StreamError> {
            self.0.fetch_add(1, Relaxed);
            Ok(None)
        }
    }

    /// The sessions of a master that knows `well` to be Ready and `dead` to be silent.
    fn sessions() -> Sessions {
        let mut root = State::default();
        for (name, ready) in [("well", "True"), ("dead", "Unknown")] {
            let node = json!({"metadata": {"name": name, "uid": name},
                "status": {"conditions": [{"type": "Ready", "status": ready}]}});
            let kind = objects::Kinds::builtin().by_resource("", "nodes").expect("a kind");
            let put = control::record::put(kind, &node).expect("an object");
            let id = EntryId { term: 1, index: root.revision() + 1 };
            root.apply(id, &Command { ops: vec![Op::put(put)], ..Command::default() });
        }
        Sessions::new(Parts {
            replica: replica::memory::start_with(root),
            heard: crate::leader::Heard::default(),
            cluster_id: "c".into(),
            epoch: 1,
            masters: tokio::sync::watch::channel(Vec::new()).1,
            trust: tokio::sync::watch::channel(pb::Trust::default()).1,
            now: Arc::new(|| jiff::Timestamp::UNIX_EPOCH),
            seeds: Arc::new(control::Seeds::new(1)),
            sealer: Arc::new(Plain),
            epochs: None,
            shutdown: CancellationToken::new(),
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_without_a_session_is_waited_for_only_while_it_may_come_back() {
        for (node, again) in [("well", true), ("dead", false), ("none", false)] {
            let relay = Arc::new(Nobody::default());
            let streams = NodeStreams { sessions: sessions(), relay: relay.clone() };
            let answer = streams.dial(pb::StreamOpen { node: node.into(), ..Default::default() }).await;
            let Err(StreamError::Unreachable(why)) = answer.map(drop) else { panic!("{node} was reached") };
            assert!(why.starts_with(&format!("node {node} cannot be reached: it is connected to no master")), "{why}");
            assert_eq!(relay.0.load(Relaxed) > 1, again, "{node}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_asked_of_a_node_that_fell_silent_on_an_open_connection() {
        let sessions = sessions();
        let (down, mut asked) = tokio::sync::mpsc::channel(1);
        let connected = Connected { serial: 1, down, ended: CancellationToken::new() };
        sessions.connected().insert("well".into(), connected);
        sessions.0.parts.heard.heard("well", SILENCE_MAX + Duration::from_secs(1));
        let streams = NodeStreams { sessions, relay: Arc::new(Nobody::default()) };
        let answer = streams.dial(pb::StreamOpen { node: "well".into(), ..Default::default() }).await;
        let Err(StreamError::Unreachable(why)) = answer.map(drop) else { panic!("it was reached") };
        assert_eq!(why, "node well cannot be reached: it has said nothing for 4 s");
        assert!(asked.try_recv().is_err());
    }

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
        let dialled = Dialled { up: frames.boxed(), down: mpsc::channel(1).0 };
        drop(relayed(dialled, futures::stream::pending().boxed()));
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
