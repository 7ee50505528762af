//! openraft's network over a [`PeerTransport`]: which call and which connection each message takes.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt as _, Stream, StreamExt as _};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError, StreamAppendResult,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{AnyError, OptionalSend};
use tonic::Status;

use crate::room::Room;
use crate::snapshot::{self, Snapshot, SnapshotData};
use crate::transport::PeerTransport;
use crate::types::{Member, Types, Vote};
use crate::wire::{self, Malformed};

/// A stream on which a request waits this long (up to twice) without any answer is given up: the follower's disk may
/// be slow, but not that slow.
const APPEND_SILENCE: Duration = Duration::from_secs(5);

pub struct Network {
    pub transport: Arc<dyn PeerTransport>,
    pub room: Arc<Room>,
}

/// Calls to one member.
pub struct Connection {
    transport: Arc<dyn PeerTransport>,
    room: Arc<Room>,
    to: Member,
    heartbeats: bool,
    /// The last stream could not be opened.
    lost: bool,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Connection;

    async fn new_client(&mut self, _target: u64, node: &Member) -> Connection {
        self.connection(node, false)
    }

    async fn new_heartbeat_client(&mut self, _target: u64, node: &Member) -> Connection {
        self.connection(node, true)
    }
}

impl Network {
    fn connection(&self, to: &Member, heartbeats: bool) -> Connection {
        let (transport, room) = (self.transport.clone(), self.room.clone());
        Connection { transport, room, to: to.clone(), heartbeats, lost: false }
    }
}

/// Every failure makes openraft back off: an immediate retry against a member that is gone would be a busy loop.
fn unreachable(error: impl std::fmt::Display) -> RPCError<Types> {
    RPCError::Unreachable(Unreachable::new(&AnyError::error(error)))
}

fn malformed(error: Malformed) -> RPCError<Types> {
    unreachable(error)
}

fn status(status: Status) -> RPCError<Types> {
    unreachable(format!("{:?}: {}", status.code(), status.message()))
}

impl Connection {
    async fn within<T>(
        &self,
        limit: Duration,
        call: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, RPCError<Types>> {
        match tokio::time::timeout(limit, call).await {
            Ok(outcome) => outcome.map_err(status),
            Err(_) => Err(unreachable(format!("no answer from {} within {limit:?}", self.to.name))),
        }
    }

    /// One line when the member is lost and one when it is back, instead of one per try.
    fn note(&mut self, error: Option<&Status>) {
        match error {
            Some(error) if !self.lost => {
                tracing::warn!(member = self.to.id, name = self.to.name, "cannot be reached: {}", error.message());
            }
            None if self.lost => tracing::info!(member = self.to.id, name = self.to.name, "can be reached again"),
            _ => {}
        }
        self.lost = error.is_some();
    }

    async fn send_vote(
        &self,
        request: VoteRequest<Types>,
        pre_vote: bool,
        option: &RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let call = self.transport.vote(&self.to, wire::encode_vote(&request, pre_vote));
        wire::decode_vote_answer(self.within(option.hard_ttl(), call).await?).map_err(malformed)
    }
}

impl RaftNetworkV2<Types> for Connection {
    type SnapshotData = SnapshotData;

    /// Only heartbeats come this way, and openraft limits the time of each itself; entries take [`Self::stream_append`].
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let answer = self.transport.heartbeat(&self.to, wire::encode_append(request)).await.map_err(status)?;
        let (answer, full) = wire::decode_heartbeat_answer(answer).map_err(malformed)?;
        self.room.note(self.to.id, full);
        Ok(match answer {
            Ok(_) => AppendEntriesResponse::Success,
            Err(StreamAppendError::Conflict(_)) => AppendEntriesResponse::Conflict,
            Err(StreamAppendError::HigherVote(vote)) => AppendEntriesResponse::HigherVote(vote),
        })
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<StreamAppendResult<Types>, RPCError<Types>>>, RPCError<Types>>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
    {
        if self.heartbeats {
            return openraft::network::stream_append_sequential(self, input, option);
        }
        async move {
            let sent = Arc::new(AtomicU64::new(0));
            let counter = sent.clone();
            let requests = input.map(move |request| {
                counter.fetch_add(1, Ordering::Relaxed);
                wire::encode_append(request)
            });
            // openraft backs off inside `input`, before its first request: dialling only once there is one keeps a
            // member that is gone from being dialled in a busy loop.
            let mut requests = Box::pin(requests.peekable());
            if requests.as_mut().peek().await.is_none() {
                return Ok(futures::stream::empty().boxed());
            }
            let answers = self.transport.append(&self.to, requests.boxed()).await;
            self.note(answers.as_ref().err());
            Ok(answers_of(answers.map_err(status)?, sent).boxed())
        }
        .boxed()
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.send_vote(request, false, &option).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.send_vote(request, true, &option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        tracing::info!(to = self.to.name, last = ?snapshot.meta.last_log_id, "sending a snapshot");
        let chunks = snapshot::chunks(snapshot.snapshot, vote).boxed();
        let call = self.within(option.hard_ttl(), self.transport.snapshot(&self.to, chunks));
        tokio::select! {
            closed = cancel => Err(closed.into()),
            answer = call => Ok(wire::decode_snapshot_answer(answer?).map_err(malformed)?),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        let call = self.transport.transfer_leader(&self.to, wire::encode_transfer(&request));
        self.within(option.hard_ttl(), call).await?;
        Ok(Ok(()))
    }
}

/// The answers of an append stream, ended by silence while requests wait.
fn answers_of(
    answers: BoxStream<'static, Result<Bytes, Status>>,
    sent: Arc<AtomicU64>,
) -> impl Stream<Item = Result<StreamAppendResult<Types>, RPCError<Types>>> + Send + 'static {
    let state = Some((answers, sent, 0u64));
    futures::stream::unfold(state, |state| async move {
        let (mut answers, sent, received) = state?;
        let mut waited = false;
        let answer = loop {
            match tokio::time::timeout(APPEND_SILENCE, answers.next()).await {
                Ok(answer) => break answer?,
                Err(_) if sent.load(Ordering::Relaxed) == received => waited = false,
                Err(_) if !waited => waited = true,
                Err(_) => break Err(Status::deadline_exceeded("the follower answers no appends")),
            }
        };
        match answer.map_err(status).and_then(|bytes| wire::decode_append_answer(bytes).map_err(malformed)) {
            Ok(Ok(matched)) => Some((Ok(Ok(matched)), Some((answers, sent, received + 1)))),
            Ok(refused) => Some((Ok(refused), None)),
            Err(error) => Some((Err(error), None)),
        }
    })
}
