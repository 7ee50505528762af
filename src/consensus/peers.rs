//! What other members ask of this one: the raft part of the peer service, as plain async methods that a master's gRPC
//! service delegates to. The caller has checked certificate, cluster id and epoch.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _};
use tokio::time::Instant;
use tonic::Status;

use crate::Error;
use crate::batcher::{Attempt, LIMIT};
use crate::snapshot::{self, Snapshot};
use crate::supervisor::Slot;
use crate::transport::{Change, Chunk, Proposed, no_room};
use crate::wire::{self, Malformed};
use openraft::async_runtime::watch::WatchReceiver as _;

/// How long a heartbeat waits for the disk before it is answered without. Far below the heartbeats' own limit.
const DISK_PATIENCE: Duration = Duration::from_millis(5);

/// What a snapshot may take that another member asks for.
const SNAPSHOT_LIMIT: Duration = Duration::from_secs(120);

/// A cheaply cloned handle.
#[derive(Clone)]
pub struct Peers(pub(crate) Arc<Slot>);

fn malformed(error: Malformed) -> Status {
    Status::invalid_argument(error.0)
}

fn fatal(error: impl std::fmt::Display) -> Status {
    Status::internal(error.to_string())
}

impl Peers {
    /// Nothing was done, so the caller may try elsewhere.
    fn check_able(&self) -> Result<(), Status> {
        self.0.now().refusal().map_or(Ok(()), |why| Err(Status::failed_precondition(why)))
    }

    pub async fn vote(&self, body: Bytes) -> Result<Bytes, Status> {
        let (request, pre_vote) = wire::decode_vote(body).map_err(malformed)?;
        let raft = &self.0.now().raft;
        let answer = if pre_vote { raft.pre_vote(request).await } else { raft.vote(request).await };
        Ok(wire::encode_vote_answer(&answer.map_err(fatal)?))
    }

    /// openraft answers an append, and so a heartbeat, when everything before it is synced. A slow disk must not cost
    /// the leader its lease, so a heartbeat is also answered as soon as the core has taken it, which is what renews our
    /// promise, provided that the leader's vote is on our disk already.
    pub async fn heartbeat(&self, body: Bytes) -> Result<Bytes, Status> {
        let request = wire::decode_append(body).map_err(malformed)?;
        let (vote, previous) = (request.vote, request.prev_log_id);
        let inner = self.0.now();
        let metrics = inner.raft.metrics();
        let append = inner.raft.append_entries(request);
        tokio::pin!(append);
        let taken = async {
            // Nothing waits for the disk as a rule: the core answers at its next turn, before a timer is worth setting.
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
            tokio::time::sleep(DISK_PATIENCE).await;
            let durable = metrics.borrow_watched().vote == vote;
            let seen = inner.raft.with_raft_state(move |state| *state.vote_ref() == vote).await;
            if !(durable && seen.is_ok_and(|same| same)) {
                std::future::pending::<()>().await;
            }
        };
        let answer = tokio::select! {
            // The append is polled first, so it is in the core's queue before the question that follows it.
            biased;
            answer = &mut append => {
                let answer = answer.map_err(fatal)?;
                wire::append_answer(answer, previous, previous).ok_or_else(|| fatal("a conflict with nothing"))?
            }
            () = taken => Ok(previous),
        };
        if answer.is_ok() {
            inner.contact.note();
        }
        Ok(wire::encode_heartbeat_answer(&answer, self.0.disk.full()))
    }

    pub fn append(
        &self,
        requests: impl Stream<Item = Result<Bytes, Status>> + Send + 'static,
    ) -> BoxStream<'static, Result<Bytes, Status>> {
        // A request that cannot be read ends the stream; the leader opens another.
        let disk = self.0.disk.clone();
        let decoded = requests.map(move |body| {
            let request = wire::decode_append(body?).map_err(malformed)?;
            // Without entries it tells what is committed, which takes no room.
            match disk.full().filter(|_| !request.entries.is_empty()) {
                Some(why) => Err(Status::failed_precondition(why)),
                None => Ok(request),
            }
        });
        let decoded = decoded.take_while(|request| {
            if let Err(status) = request {
                tracing::warn!("append stream ends: {}", status.message());
            }
            std::future::ready(request.is_ok())
        });
        let decoded = decoded.filter_map(|request| std::future::ready(request.ok()));
        let inner = self.0.now();
        let raft = inner.raft.clone();
        let answers = raft.stream_append(decoded).map(move |answer| {
            let answer = answer.map_err(fatal)?;
            if answer.is_ok() {
                inner.contact.note();
            }
            Ok(wire::encode_append_answer(&answer))
        });
        answers.boxed()
    }

    pub async fn snapshot(&self, chunks: BoxStream<'static, Result<Chunk, Status>>) -> Result<Bytes, Status> {
        let inner = self.0.now();
        if let Some(why) = self.0.disk.full() {
            return Err(Status::failed_precondition(format!("member {} {why}", inner.id)));
        }
        // It may be larger than what is free: it must not take the room that the log needs.
        let disk = self.0.disk.clone();
        let chunks = chunks.map(move |chunk| disk.full().map_or(chunk, |why| Err(Status::failed_precondition(why))));
        let (vote, snapshot) = inner.snapshots.receive(chunks.boxed()).await?;
        let answer = inner.raft.install_full_snapshot(vote, snapshot).await.map_err(fatal)?;
        inner.contact.note();
        Ok(wire::encode_snapshot_answer(&answer))
    }

    /// A snapshot with everything up to the log id in `body`, for a member that lost its state but not its log. Any member
    /// has it that has applied so much: what is applied is committed.
    pub async fn fetch_snapshot(&self, body: Bytes) -> Result<BoxStream<'static, Result<Chunk, Status>>, Status> {
        let upto = wire::decode_log_id(&body).map_err(malformed)?;
        self.check_able()?;
        let inner = self.0.now();
        let reaches = |snapshot: &Snapshot| snapshot.meta.last_log_id >= Some(upto);
        let snapshot = match inner.snapshots.current().filter(reaches) {
            Some(snapshot) => snapshot,
            None => {
                let applied = inner.published.applied.borrow().next;
                if applied <= upto.index {
                    let why = format!("applied {applied} log entries only, and {} are asked for", upto.index + 1);
                    return Err(Status::failed_precondition(why));
                }
                inner.raft.trigger().snapshot().await.map_err(fatal)?;
                let mut metrics = inner.raft.metrics();
                let taken = metrics.wait_until(|metrics| metrics.snapshot >= Some(upto));
                let taken = tokio::time::timeout(SNAPSHOT_LIMIT, taken).await;
                taken.map_err(|_| Status::aborted("the snapshot takes too long"))?.map_err(fatal)?;
                let current = inner.snapshots.current().filter(reaches);
                current.ok_or_else(|| Status::aborted("no snapshot is at hand"))?
            }
        };
        tracing::info!(last = ?snapshot.meta.last_log_id, "a member whose state is lost fetches a snapshot");
        // Of our own: who fetches believes nobody's vote.
        let vote = inner.raft.metrics().borrow_watched().vote;
        Ok(snapshot::chunks(snapshot.snapshot, vote).map(Ok).boxed())
    }

    pub async fn transfer_leader(&self, body: Bytes) -> Result<Bytes, Status> {
        let request = wire::decode_transfer(body).map_err(malformed)?;
        self.check_able()?;
        let outcome = self.0.now().raft.handle_transfer_leader(request).await.map_err(fatal)?;
        outcome.map_err(|error| Status::aborted(error.to_string()))?;
        Ok(Bytes::new())
    }

    /// Commands of a follower. Never forwarded further.
    pub async fn propose(&self, commands: Vec<Bytes>) -> Result<Proposed, Status> {
        let inner = self.0.now();
        if let Some(why) = inner.lacks_room() {
            return Err(no_room(&why));
        }
        self.check_able()?;
        match inner.batcher.attempt_here(commands, Instant::now() + LIMIT).await {
            Attempt::Applied { outcomes, index } => Ok(Proposed {
                outcomes: outcomes.iter().map(|outcome| prost::Message::encode_to_vec(outcome).into()).collect(),
                index,
            }),
            Attempt::Refused(why) => Err(Status::failed_precondition(why)),
            Attempt::NoRoom(why) => Err(no_room(&why)),
            Attempt::Unknown(why) => Err(Status::aborted(why)),
        }
    }

    pub async fn read_index(&self) -> Result<u64, Status> {
        if let Some(why) = self.0.quarantined() {
            return Err(Status::failed_precondition(why));
        }
        self.0.now().reads.leader_index().await.map_err(Status::failed_precondition)
    }

    pub async fn change_membership(&self, change: Change) -> Result<(), Status> {
        self.0.now().change_here(change).await.map_err(|error| match error {
            Error::NotLeader { .. } => Status::failed_precondition(error.to_string()),
            Error::Invalid(message) => Status::invalid_argument(message),
            other => Status::aborted(other.to_string()),
        })
    }
}
