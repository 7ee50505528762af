//! Consensus' calls to other members, over gRPC: one connection per kind of traffic.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use consensus::transport::{Change, Proposed};
use consensus::{Chunk, Member, PeerTransport};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use rpc::channel::NeverConnected;
use rpc::pb::{self, membership_request};
use rpc::peer::{Client, Lane, PeerClients};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, Streaming};

/// Far above an election, so that it is openraft's own limits that end a call; only a hung connection meets these.
const BEAT_LIMIT: Duration = Duration::from_secs(2);
const CALL_LIMIT: Duration = Duration::from_secs(30);

/// [`PeerTransport`] over [`PeerClients`].
pub struct Wire {
    peers: PeerClients,
    /// The heartbeat stream to each member, by its id and address.
    beats: Mutex<BTreeMap<(u64, String), Slot>>,
}

/// Empty while a heartbeat is under way, and after one that failed or was given up: the next one opens a new stream.
type Slot = Arc<tokio::sync::Mutex<Option<Beats>>>;

struct Beats {
    requests: mpsc::Sender<pb::RaftMessage>,
    answers: Streaming<pb::RaftMessage>,
}

impl Wire {
    pub fn new(peers: PeerClients) -> Self {
        Self { peers, beats: Mutex::default() }
    }

    /// An error whose reason may be that the cluster went on without us.
    fn noted(&self, status: Status) -> Status {
        self.peers.refused(&status);
        plain(status)
    }

    fn client(&self, to: &Member, lane: Lane) -> Client {
        self.peers.client(to.id, &to.peer_address, lane)
    }

    fn beats(&self, to: &Member) -> Slot {
        let mut beats = self.beats.lock().unwrap_or_else(PoisonError::into_inner);
        beats.retain(|(id, address), _| *id != to.id || *address == to.peer_address);
        beats.entry((to.id, to.peer_address.clone())).or_default().clone()
    }

    async fn open_beats(&self, to: &Member) -> Result<Beats, Status> {
        let (requests, sent) = mpsc::channel(1);
        let answers = self.client(to, Lane::Beat).heartbeats(ReceiverStream::new(sent)).await;
        let answers = answers.map_err(|status| self.noted(status))?;
        Ok(Beats { requests, answers: answers.into_inner() })
    }
}

fn limited<T>(message: T, limit: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(limit);
    request
}

/// A call that failed before it reached anyone certainly changed nothing.
fn plain(status: Status) -> Status {
    if NeverConnected::is_behind(&status) { Status::failed_precondition(status.message().to_owned()) } else { status }
}

#[async_trait::async_trait]
impl PeerTransport for Wire {
    async fn vote(&self, to: &Member, body: Bytes) -> Result<Bytes, Status> {
        let answer = self.client(to, Lane::Beat).vote(limited(pb::RaftMessage { body }, BEAT_LIMIT)).await;
        let answer = answer.map_err(|status| self.noted(status))?;
        self.peers.note_heard(to.id);
        Ok(answer.into_inner().body)
    }

    async fn heartbeat(&self, to: &Member, body: Bytes) -> Result<Bytes, Status> {
        let slot = self.beats(to);
        let mut slot = slot.lock().await;
        let mut beats = match slot.take() {
            Some(beats) => beats,
            None => self.open_beats(to).await?,
        };
        let ended = || Status::unavailable("the heartbeat stream ended");
        beats.requests.send(raft_message(body)).await.map_err(|_| ended())?;
        let answer = beats.answers.message().await?.ok_or_else(ended)?;
        *slot = Some(beats);
        self.peers.note_heard(to.id);
        Ok(answer.body)
    }

    async fn append(
        &self,
        to: &Member,
        requests: BoxStream<'static, Bytes>,
    ) -> Result<BoxStream<'static, Result<Bytes, Status>>, Status> {
        let requests = Messages(requests.map(raft_message).boxed());
        let answers = self.client(to, Lane::Append).append(requests).await.map_err(plain)?.into_inner();
        Ok(answers.map(|answer| answer.map(|message| message.body)).boxed())
    }

    async fn snapshot(&self, to: &Member, chunks: BoxStream<'static, Chunk>) -> Result<Bytes, Status> {
        let chunks = Messages(chunks.map(snapshot_chunk).boxed());
        let answer = self.client(to, Lane::Snapshot).snapshot(chunks).await;
        Ok(answer.map_err(plain)?.into_inner().body)
    }

    async fn fetch_snapshot(
        &self,
        to: &Member,
        body: Bytes,
    ) -> Result<BoxStream<'static, Result<Chunk, Status>>, Status> {
        let answer = self.client(to, Lane::Snapshot).fetch_snapshot(raft_message(body)).await;
        let chunks = answer.map_err(|status| self.noted(status))?.into_inner();
        Ok(chunks.map(|answer| answer.map(chunk)).boxed())
    }

    async fn transfer_leader(&self, to: &Member, body: Bytes) -> Result<Bytes, Status> {
        let answer = self.client(to, Lane::Beat).transfer_leader(limited(pb::RaftMessage { body }, BEAT_LIMIT)).await;
        Ok(answer.map_err(plain)?.into_inner().body)
    }

    async fn propose(&self, to: &Member, commands: Vec<Bytes>) -> Result<Proposed, Status> {
        let request = limited(pb::ProposeRequest { commands }, CALL_LIMIT);
        let answer = self.client(to, Lane::General).propose(request).await.map_err(plain)?.into_inner();
        Ok(Proposed { outcomes: answer.outcomes, index: answer.index })
    }

    async fn read_index(&self, to: &Member) -> Result<u64, Status> {
        let request = limited(pb::ReadIndexRequest {}, CALL_LIMIT);
        Ok(self.client(to, Lane::General).read_index(request).await.map_err(plain)?.into_inner().index)
    }

    async fn change_membership(&self, to: &Member, change: Change) -> Result<(), Status> {
        let request = limited(change_request(change), CALL_LIMIT);
        self.client(to, Lane::General).change_membership(request).await.map_err(plain)?;
        Ok(())
    }
}

/// A stream that names no lifetime, which the compiler needs to see that the calls' futures can be sent.
struct Messages<T>(BoxStream<'static, T>);

impl<T> Stream for Messages<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        self.0.as_mut().poll_next(cx)
    }
}

fn raft_message(body: Bytes) -> pb::RaftMessage {
    pb::RaftMessage { body }
}

/// As it crosses the wire.
pub fn snapshot_chunk(chunk: Chunk) -> pb::SnapshotChunk {
    pb::SnapshotChunk {
        header: chunk.header,
        file: chunk.file,
        offset: chunk.offset,
        data: chunk.data,
        crc32: chunk.crc32,
        last: chunk.last,
    }
}

pub fn chunk(chunk: pb::SnapshotChunk) -> Chunk {
    Chunk {
        header: chunk.header,
        file: chunk.file,
        offset: chunk.offset,
        data: chunk.data,
        crc32: chunk.crc32,
        last: chunk.last,
    }
}

/// As it crosses the wire.
pub fn change_request(change: Change) -> pb::MembershipRequest {
    let change = match change {
        Change::AddLearner(member) => membership_request::Change::AddLearner(info(&member)),
        Change::Promote(id) => membership_request::Change::Promote(id),
        Change::Remove(id) => membership_request::Change::Remove(id),
        Change::Transfer(id) => membership_request::Change::Transfer(id),
    };
    pb::MembershipRequest { change: Some(change) }
}

pub fn info(member: &Member) -> pb::MemberInfo {
    pb::MemberInfo {
        id: member.id,
        name: member.name.clone(),
        peer_address: member.peer_address.clone(),
        api_address: member.api_address.clone(),
    }
}

pub fn member(info: pb::MemberInfo) -> Member {
    Member { id: info.id, name: info.name, peer_address: info.peer_address, api_address: info.api_address }
}
