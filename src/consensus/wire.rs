//! Bytes of everything this crate stores or sends: one place per format, all append-only.
//!
//! A log entry on disk and on the wire is the same bytes: `version(1) crc32(4) body`, the body an [`EntryBody`]. Raft's
//! own messages are prost messages here rather than openraft's serde forms, so that they outlive openraft's types.

use std::path::Path;

use bytes::{BufMut as _, Bytes, BytesMut};
use openraft::EntryPayload;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError, TransferLeaderRequest,
    VoteRequest, VoteResponse,
};
use prost::Message as _;

use crate::Error;
use crate::storage::rocks::corrupt;
use crate::types::{Batch, Entry, LogId, Membership, SnapshotMeta, StoredMembership, Types, Vote, log_id};

const VERSION: u8 = 1;

/// Bytes that are not what they should be.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

const NEWER: &str = "written by a newer version of hactl";

impl Malformed {
    /// What it means for something stored in `dir`: damage, or no more than that this build is too old for it.
    pub fn stored(self, dir: &Path, what: &str) -> Error {
        if self.0 == NEWER {
            return Error::Mismatch(format!(
                "{}: {what} was written by a newer hactl: install that one here again; nothing was changed",
                dir.display()
            ));
        }
        corrupt(dir, &format!("{what} is damaged: {self}"))
    }
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct WireLogId {
    #[prost(uint64, tag = "1")]
    pub term: u64,
    #[prost(uint64, tag = "2")]
    pub index: u64,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct WireVote {
    #[prost(uint64, tag = "1")]
    pub term: u64,
    #[prost(uint64, tag = "2")]
    pub member: u64,
    #[prost(bool, tag = "3")]
    pub committed: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct EntryBody {
    #[prost(message, required, tag = "1")]
    pub id: WireLogId,
    #[prost(oneof = "Payload", tags = "2, 3")]
    pub payload: Option<Payload>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Payload {
    #[prost(bytes = "bytes", tag = "2")]
    Batch(Bytes),
    /// Membership as JSON: small, rare, and readable when something is wrong with it.
    #[prost(bytes = "bytes", tag = "3")]
    Membership(Bytes),
}

#[derive(Clone, PartialEq, prost::Message)]
struct AppendMessage {
    #[prost(message, required, tag = "1")]
    vote: WireVote,
    #[prost(message, optional, tag = "2")]
    previous: Option<WireLogId>,
    #[prost(message, optional, tag = "3")]
    committed: Option<WireLogId>,
    #[prost(bytes = "bytes", repeated, tag = "4")]
    entries: Vec<Bytes>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AppendReply {
    #[prost(oneof = "AppendResult", tags = "1, 2, 3, 4")]
    result: Option<AppendResult>,
    /// To a heartbeat: why this member takes no entries, if it takes none.
    #[prost(string, tag = "5")]
    full: String,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum AppendResult {
    #[prost(message, tag = "1")]
    Matched(WireLogId),
    /// Accepted, with nothing in the log yet (the value is always true).
    #[prost(bool, tag = "2")]
    MatchedNothing(bool),
    #[prost(message, tag = "3")]
    Conflict(WireLogId),
    #[prost(message, tag = "4")]
    HigherVote(WireVote),
}

#[derive(Clone, PartialEq, prost::Message)]
struct VoteMessage {
    #[prost(message, required, tag = "1")]
    vote: WireVote,
    #[prost(message, optional, tag = "2")]
    last: Option<WireLogId>,
    #[prost(bool, tag = "3")]
    transfer: bool,
    /// Only asks whether the vote would be granted.
    #[prost(bool, tag = "4")]
    pre_vote: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct VoteReply {
    #[prost(message, required, tag = "1")]
    vote: WireVote,
    #[prost(message, optional, tag = "2")]
    last: Option<WireLogId>,
    #[prost(bool, tag = "3")]
    granted: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct TransferMessage {
    #[prost(message, required, tag = "1")]
    from: WireVote,
    #[prost(uint64, tag = "2")]
    to: u64,
    #[prost(message, optional, tag = "3")]
    last: Option<WireLogId>,
}

/// What goes ahead of a snapshot's files, and what is stored beside them.
#[derive(Clone, PartialEq, prost::Message)]
struct SnapshotHeader {
    #[prost(message, optional, tag = "1")]
    vote: Option<WireVote>,
    #[prost(message, optional, tag = "2")]
    last: Option<WireLogId>,
    #[prost(message, optional, tag = "3")]
    membership_at: Option<WireLogId>,
    #[prost(bytes = "bytes", tag = "4")]
    membership: Bytes,
}

impl From<LogId> for WireLogId {
    fn from(id: LogId) -> Self {
        Self { term: id.leader_id.term, index: id.index }
    }
}

impl From<WireLogId> for LogId {
    fn from(id: WireLogId) -> Self {
        log_id(id.term, id.index)
    }
}

impl From<Vote> for WireVote {
    fn from(vote: Vote) -> Self {
        Self { term: vote.leader_id.term, member: vote.leader_id.voted_for, committed: vote.committed }
    }
}

impl From<WireVote> for Vote {
    fn from(vote: WireVote) -> Self {
        if vote.committed { Vote::new_committed(vote.term, vote.member) } else { Vote::new(vote.term, vote.member) }
    }
}

/// Frames a body: version, checksum, body.
pub fn seal(body: &impl prost::Message) -> Bytes {
    let mut out = BytesMut::with_capacity(5 + body.encoded_len());
    out.put_u8(VERSION);
    out.put_u32_le(0);
    // Writing into a growable buffer cannot fail.
    let _ = body.encode(&mut out);
    let crc = crc32fast::hash(&out[5..]);
    out[1..5].copy_from_slice(&crc.to_le_bytes());
    out.freeze()
}

pub fn open<M: prost::Message + Default>(bytes: &Bytes) -> Result<M, Malformed> {
    if bytes.len() < 5 {
        return Err(Malformed("too short"));
    }
    if bytes[0] != VERSION {
        return Err(Malformed(NEWER));
    }
    let crc = u32::from_le_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]);
    if crc32fast::hash(&bytes[5..]) != crc {
        return Err(Malformed("the checksum does not match"));
    }
    M::decode(bytes.slice(5..)).map_err(|_| Malformed("not a message of this kind"))
}

fn membership_json(membership: &Membership) -> Bytes {
    // A map from integers to strings always has a JSON form.
    serde_json::to_vec(membership).unwrap_or_default().into()
}

fn membership_from(json: &[u8]) -> Result<Membership, Malformed> {
    serde_json::from_slice(json).map_err(|_| Malformed("not a membership"))
}

pub fn encode_entry(entry: &Entry) -> Bytes {
    let payload = match &entry.payload {
        EntryPayload::Blank => None,
        EntryPayload::Normal(batch) => Some(Payload::Batch(batch.0.clone())),
        EntryPayload::Membership(membership) => Some(Payload::Membership(membership_json(membership))),
    };
    seal(&EntryBody { id: entry.log_id.into(), payload })
}

pub fn decode_entry(bytes: &Bytes) -> Result<Entry, Malformed> {
    let body: EntryBody = open(bytes)?;
    let payload = match body.payload {
        None => EntryPayload::Blank,
        Some(Payload::Batch(bytes)) => EntryPayload::Normal(Batch(bytes)),
        Some(Payload::Membership(json)) => EntryPayload::Membership(membership_from(&json)?),
    };
    Ok(Entry { log_id: body.id.into(), payload })
}

/// About how many bytes an entry takes in memory and on the wire.
pub fn entry_len(entry: &Entry) -> usize {
    64 + match &entry.payload {
        EntryPayload::Normal(batch) => batch.0.len(),
        EntryPayload::Membership(membership) => 128 * membership.nodes().count(),
        EntryPayload::Blank => 0,
    }
}

pub fn encode_append(request: AppendEntriesRequest<Types>) -> Bytes {
    AppendMessage {
        vote: request.vote.into(),
        previous: request.prev_log_id.map(Into::into),
        committed: request.leader_commit.map(Into::into),
        entries: request.entries.iter().map(encode_entry).collect(),
    }
    .encode_to_vec()
    .into()
}

pub fn decode_append(bytes: Bytes) -> Result<AppendEntriesRequest<Types>, Malformed> {
    let message = AppendMessage::decode(bytes).map_err(|_| Malformed("not an append"))?;
    let entries = message.entries.iter().map(decode_entry).collect::<Result<Vec<_>, _>>()?;
    // openraft takes consecutive entries for granted.
    let expected = message.previous.map_or(0, |id| id.index + 1)..;
    if !entries.iter().map(|entry| entry.log_id.index).eq(expected.take(entries.len())) {
        return Err(Malformed("entries are not consecutive"));
    }
    Ok(AppendEntriesRequest {
        vote: message.vote.into(),
        prev_log_id: message.previous.map(Into::into),
        leader_commit: message.committed.map(Into::into),
        entries,
    })
}

pub type AppendAnswer = openraft::raft::StreamAppendResult<Types>;

pub fn encode_append_answer(answer: &AppendAnswer) -> Bytes {
    encode_heartbeat_answer(answer, None)
}

pub fn encode_heartbeat_answer(answer: &AppendAnswer, full: Option<String>) -> Bytes {
    let result = match answer {
        Ok(Some(id)) => AppendResult::Matched((*id).into()),
        Ok(None) => AppendResult::MatchedNothing(true),
        Err(StreamAppendError::Conflict(id)) => AppendResult::Conflict((*id).into()),
        Err(StreamAppendError::HigherVote(vote)) => AppendResult::HigherVote((*vote).into()),
    };
    AppendReply { result: Some(result), full: full.unwrap_or_default() }.encode_to_vec().into()
}

pub fn decode_append_answer(bytes: Bytes) -> Result<AppendAnswer, Malformed> {
    Ok(decode_heartbeat_answer(bytes)?.0)
}

/// The answer, and why the member takes no entries, if it takes none.
pub fn decode_heartbeat_answer(bytes: Bytes) -> Result<(AppendAnswer, Option<String>), Malformed> {
    let reply = AppendReply::decode(bytes).map_err(|_| Malformed("not an append's answer"))?;
    let full = Some(reply.full).filter(|why| !why.is_empty());
    let answer = match reply.result.ok_or(Malformed("an empty append's answer"))? {
        AppendResult::Matched(id) => Ok(Some(id.into())),
        AppendResult::MatchedNothing(_) => Ok(None),
        AppendResult::Conflict(id) => Err(StreamAppendError::Conflict(id.into())),
        AppendResult::HigherVote(vote) => Err(StreamAppendError::HigherVote(vote.into())),
    };
    Ok((answer, full))
}

/// An answer to one append in the form of the stream's answers. `None`: a conflict with nothing, which cannot be.
pub fn append_answer(
    response: AppendEntriesResponse<Types>,
    previous: Option<LogId>,
    last: Option<LogId>,
) -> Option<AppendAnswer> {
    Some(match response {
        AppendEntriesResponse::Success => Ok(last),
        AppendEntriesResponse::PartialSuccess(id) => Ok(id),
        AppendEntriesResponse::Conflict => Err(StreamAppendError::Conflict(previous?)),
        AppendEntriesResponse::HigherVote(vote) => Err(StreamAppendError::HigherVote(vote)),
    })
}

pub fn encode_vote(request: &VoteRequest<Types>, pre_vote: bool) -> Bytes {
    VoteMessage {
        vote: request.vote.into(),
        last: request.last_log_id.map(Into::into),
        transfer: request.leadership_transfer,
        pre_vote,
    }
    .encode_to_vec()
    .into()
}

/// The request, and whether it is only a pre-vote.
pub fn decode_vote(bytes: Bytes) -> Result<(VoteRequest<Types>, bool), Malformed> {
    let message = VoteMessage::decode(bytes).map_err(|_| Malformed("not a vote"))?;
    let mut request = VoteRequest::new(message.vote.into(), message.last.map(Into::into));
    request.leadership_transfer = message.transfer;
    Ok((request, message.pre_vote))
}

pub fn encode_vote_answer(answer: &VoteResponse<Types>) -> Bytes {
    VoteReply { vote: answer.vote.into(), last: answer.last_log_id.map(Into::into), granted: answer.vote_granted }
        .encode_to_vec()
        .into()
}

pub fn decode_vote_answer(bytes: Bytes) -> Result<VoteResponse<Types>, Malformed> {
    let reply = VoteReply::decode(bytes).map_err(|_| Malformed("not a vote's answer"))?;
    Ok(VoteResponse::new(Vote::from(reply.vote), reply.last.map(Into::into), reply.granted))
}

pub fn encode_transfer(request: &TransferLeaderRequest<Types>) -> Bytes {
    TransferMessage {
        from: (*request.from_leader()).into(),
        to: *request.to_node_id(),
        last: request.last_log_id().map(|id| (*id).into()),
    }
    .encode_to_vec()
    .into()
}

pub fn decode_transfer(bytes: Bytes) -> Result<TransferLeaderRequest<Types>, Malformed> {
    let message = TransferMessage::decode(bytes).map_err(|_| Malformed("not a transfer"))?;
    Ok(TransferLeaderRequest::new(message.from.into(), message.to, message.last.map(Into::into)))
}

pub fn encode_vote_only(vote: &Vote) -> Bytes {
    seal(&WireVote::from(*vote))
}

pub fn decode_vote_only(bytes: &Bytes) -> Result<Vote, Malformed> {
    Ok(open::<WireVote>(bytes)?.into())
}

pub fn encode_log_id(id: &LogId) -> Bytes {
    seal(&WireLogId::from(*id))
}

pub fn decode_log_id(bytes: &Bytes) -> Result<LogId, Malformed> {
    Ok(open::<WireLogId>(bytes)?.into())
}

pub fn encode_snapshot_meta(meta: &SnapshotMeta, vote: Option<&Vote>) -> Bytes {
    seal(&SnapshotHeader {
        vote: vote.map(|vote| (*vote).into()),
        last: meta.last_log_id.map(Into::into),
        membership_at: meta.last_membership.log_id().map(Into::into),
        membership: membership_json(meta.last_membership.membership()),
    })
}

pub fn decode_snapshot_meta(bytes: &Bytes) -> Result<(SnapshotMeta, Option<Vote>), Malformed> {
    let header: SnapshotHeader = open(bytes)?;
    let meta = SnapshotMeta {
        last_log_id: header.last.map(Into::into),
        last_membership: StoredMembership::new(
            header.membership_at.map(Into::into),
            membership_from(&header.membership)?,
        ),
    };
    Ok((meta, header.vote.map(Into::into)))
}

pub fn encode_snapshot_answer(answer: &SnapshotResponse<Types>) -> Bytes {
    WireVote::from(answer.vote).encode_to_vec().into()
}

pub fn decode_snapshot_answer(bytes: Bytes) -> Result<SnapshotResponse<Types>, Malformed> {
    let vote = WireVote::decode(bytes).map_err(|_| Malformed("not a snapshot's answer"))?;
    Ok(SnapshotResponse::new(vote.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_survive_the_round_trip_and_damage_is_seen() {
        let batch = Batch::new(vec![Bytes::from_static(b"\x12\x00")]);
        let cases = [
            Entry { log_id: log_id(3, 7), payload: EntryPayload::Blank },
            Entry { log_id: log_id(3, 8), payload: EntryPayload::Normal(batch) },
            Entry { log_id: log_id(3, 9), payload: EntryPayload::Membership(Membership::default()) },
        ];
        for entry in cases {
            let bytes = encode_entry(&entry);
            assert_eq!(decode_entry(&bytes).expect("whole"), entry);
            for at in 0..bytes.len() {
                let mut damaged = bytes.to_vec();
                damaged[at] ^= 0x10;
                assert!(decode_entry(&damaged.into()).is_err(), "byte {at} of {entry}");
            }
            assert!(decode_entry(&bytes.slice(..bytes.len() - 1)).is_err());
        }
    }

    #[test]
    fn appends_must_be_consecutive() {
        let request = |indexes: &[u64]| AppendEntriesRequest::<Types> {
            vote: Vote::new_committed(2, 1),
            prev_log_id: Some(log_id(1, 4)),
            leader_commit: None,
            entries: indexes
                .iter()
                .map(|index| Entry { log_id: log_id(2, *index), payload: EntryPayload::Blank })
                .collect(),
        };
        assert_eq!(decode_append(encode_append(request(&[5, 6]))).expect("consecutive").entries.len(), 2);
        assert!(decode_append(encode_append(request(&[5, 7]))).is_err());
    }

    #[test]
    fn stored_bytes_never_change() {
        let entry = Entry { log_id: log_id(2, 5), payload: EntryPayload::Normal(Batch(Bytes::from_static(b"x"))) };
        assert_eq!(encode_entry(&entry).as_ref(), golden::ENTRY);
        assert_eq!(encode_vote_only(&Vote::new_committed(2, 3)).as_ref(), golden::VOTE);
    }

    mod golden {
        //! Bytes that older versions have written to disks.
        pub const ENTRY: &[u8] = &[1, 71, 167, 19, 134, 10, 4, 8, 2, 16, 5, 18, 1, 120];
        pub const VOTE: &[u8] = &[1, 167, 49, 18, 128, 8, 2, 16, 3, 24, 1];
    }
}
