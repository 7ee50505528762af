//! What consensus needs of the network: eight calls to another member. The implementation must carry votes and
//! heartbeats, appends, and snapshots on separate connections, so that a big append never delays a heartbeat.
//!
//! Bodies of raft's own messages are bytes that [`crate::Peers`] of the other member understands. Errors are gRPC
//! statuses, since that is what crosses the wire: [`is_refused`] tells those that certainly changed nothing.

use bytes::Bytes;
use futures::stream::BoxStream;
use tonic::{Code, Status};

use crate::types::Member;

/// One piece of a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    /// In the first chunk only: vote and snapshot metadata.
    pub header: Bytes,
    pub file: String,
    pub offset: u64,
    pub data: Bytes,
    pub crc32: u32,
    /// In the last chunk only.
    pub last: bool,
}

/// A batch of outcomes, and the log index up to which the asker must have applied before it answers its callers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proposed {
    /// An encoded `state::Outcome` each, in order of the commands.
    pub outcomes: Vec<Bytes>,
    pub index: u64,
}

/// A change of membership, carried out by the leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    AddLearner(Member),
    Promote(u64),
    Remove(u64),
    /// Leadership goes to this member, or (0) to the one that is furthest.
    Transfer(u64),
}

/// Calls to other members. An implementation never retries by itself: openraft and the callers here do.
#[async_trait::async_trait]
pub trait PeerTransport: Send + Sync + 'static {
    async fn vote(&self, to: &Member, body: Bytes) -> Result<Bytes, Status>;
    async fn heartbeat(&self, to: &Member, body: Bytes) -> Result<Bytes, Status>;
    /// Pipelined: one answer per request, in order.
    async fn append(
        &self,
        to: &Member,
        requests: BoxStream<'static, Bytes>,
    ) -> Result<BoxStream<'static, Result<Bytes, Status>>, Status>;
    async fn snapshot(&self, to: &Member, chunks: BoxStream<'static, Chunk>) -> Result<Bytes, Status>;
    /// A snapshot that holds everything up to the log id in `body`, of any member that has one.
    async fn fetch_snapshot(
        &self,
        to: &Member,
        body: Bytes,
    ) -> Result<BoxStream<'static, Result<Chunk, Status>>, Status>;
    async fn transfer_leader(&self, to: &Member, body: Bytes) -> Result<Bytes, Status>;
    /// Encoded `state::Command`s for the leader. Answered when applied there.
    async fn propose(&self, to: &Member, commands: Vec<Bytes>) -> Result<Proposed, Status>;
    /// Joins a read-index round of the leader; the index to apply up to.
    async fn read_index(&self, to: &Member) -> Result<u64, Status>;
    async fn change_membership(&self, to: &Member, change: Change) -> Result<(), Status>;
}

const NO_ROOM: &str = "hactl-no-room";

/// The leader's refusal where no majority has room: trying again at once is in vain.
pub fn no_room(why: &str) -> Status {
    let mut status = Status::failed_precondition(why);
    status.metadata_mut().insert(NO_ROOM, tonic::metadata::MetadataValue::from_static("1"));
    status
}

pub fn is_no_room(status: &Status) -> bool {
    status.metadata().contains_key(NO_ROOM)
}

/// The peer refused before anything entered a log, or could not be reached at all.
///
/// `Unavailable` is not among them: a connection may break after the request was delivered. Nor is `ResourceExhausted`,
/// which HTTP/2 says of a connection that it gives up with requests under way. A transport that knows it could not even
/// connect says `FailedPrecondition`, as the peer's own refusals do.
pub fn is_refused(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::FailedPrecondition | Code::Unauthenticated | Code::PermissionDenied | Code::Unimplemented
    )
}
