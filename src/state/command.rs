//! The one way in: a command, its preconditions and operations, and its outcome. Stored in the log and sent between
//! masters, so everything here is append-only: a new tag, never a changed meaning.

use bytes::Bytes;

use crate::{Exceeded, Header, Key, Revision};

/// 128 random bits that name one proposal for ever, so that a retried one is answered and not applied twice.
pub type ProposalId = u128;

/// One atomic change. All `expects` hold and every rule of `apply` accepts every op, or nothing changes.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Command {
    /// The `ProposalId`, 16 bytes big-endian.
    #[prost(bytes = "bytes", tag = "1")]
    pub proposal: Bytes,
    /// The leader term this was planned in; 0 for proposals of users. `apply` refuses it in an entry of another term.
    #[prost(uint64, tag = "2")]
    pub term: u64,
    /// The proposer's wall clock, milliseconds since 1970.
    #[prost(int64, tag = "3")]
    pub time_ms: i64,
    #[prost(message, repeated, tag = "4")]
    pub expects: Vec<Expect>,
    #[prost(message, repeated, tag = "5")]
    pub ops: Vec<Op>,
    /// Of the cluster itself though no leader planned it: what a node reports, who joins. Since version 3.
    #[prost(bool, tag = "6")]
    pub system: bool,
}

/// A precondition on one key, checked in `apply` where nothing can change between check and write.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Expect {
    #[prost(message, required, tag = "1")]
    pub key: Key,
    #[prost(oneof = "Condition", tags = "2, 3, 4, 5")]
    pub condition: Option<Condition>,
}

#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub enum Condition {
    /// No such object (the value is always true).
    #[prost(bool, tag = "2")]
    Absent(bool),
    /// Some object of that key (the value is always true).
    #[prost(bool, tag = "3")]
    Exists(bool),
    /// The object is at exactly this revision.
    #[prost(uint64, tag = "4")]
    Revision(Revision),
    /// The object has this uid.
    #[prost(string, tag = "5")]
    Uid(String),
}

/// One operation. Each that changes something takes one new revision.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Op {
    #[prost(oneof = "op::Kind", tags = "1, 2, 3, 4, 5")]
    pub kind: Option<op::Kind>,
}

pub mod op {
    //! The kinds of operation.

    #[derive(Clone, PartialEq, prost::Oneof)]
    #[expect(clippy::large_enum_variant, reason = "nearly every operation is the large one")]
    pub enum Kind {
        /// Create or replace.
        #[prost(message, tag = "1")]
        Put(super::Put),
        /// Remove the key; nothing if it is absent.
        #[prost(message, tag = "2")]
        Delete(crate::Key),
        /// Forget history up to a revision.
        #[prost(message, tag = "3")]
        Compact(super::Compact),
        /// Raise `state.version`.
        #[prost(message, tag = "4")]
        RaiseVersion(super::RaiseVersion),
        /// Since version 2.
        #[prost(message, tag = "5")]
        SetQuota(super::SetQuota),
    }
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Put {
    #[prost(message, required, tag = "1")]
    pub key: Key,
    #[prost(message, required, tag = "2")]
    pub header: Header,
    /// See [`crate::Record::body`].
    #[prost(bytes = "bytes", tag = "3")]
    pub body: Bytes,
    #[prost(uint32, tag = "4")]
    pub split: u32,
    #[prost(bytes = "bytes", tag = "5")]
    pub managed_fields: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Compact {
    #[prost(uint64, tag = "1")]
    pub revision: Revision,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct RaiseVersion {
    #[prost(uint32, tag = "1")]
    pub version: u32,
}

/// Bounds the bytes of all present objects, as [`crate::State::bytes`] counts them. The limit travels in the log, so that
/// every member refuses the same commands, whatever its own settings say.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SetQuota {
    /// 0: no bound.
    #[prost(uint64, tag = "1")]
    pub bytes: u64,
}

impl Op {
    pub fn put(put: Put) -> Self {
        Self { kind: Some(op::Kind::Put(put)) }
    }

    pub fn delete(key: Key) -> Self {
        Self { kind: Some(op::Kind::Delete(key)) }
    }
}

impl Expect {
    pub fn absent(key: Key) -> Self {
        Self { key, condition: Some(Condition::Absent(true)) }
    }

    pub fn exists(key: Key) -> Self {
        Self { key, condition: Some(Condition::Exists(true)) }
    }

    pub fn revision(key: Key, revision: Revision) -> Self {
        Self { key, condition: Some(Condition::Revision(revision)) }
    }

    pub fn uid(key: Key, uid: impl Into<String>) -> Self {
        Self { key, condition: Some(Condition::Uid(uid.into())) }
    }
}

/// What became of a command, equal on every replica. A refused command is an ordinary outcome.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Outcome {
    /// The store's revision after the command (also when nothing changed).
    #[prost(uint64, tag = "1")]
    pub revision: Revision,
    /// Per op: the revision it took, or the object's present revision (0 if absent) where it changed nothing.
    #[prost(uint64, repeated, tag = "2")]
    pub revisions: Vec<Revision>,
    #[prost(oneof = "Refusal", tags = "3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13")]
    pub refusal: Option<Refusal>,
}

/// Why a command changed nothing.
#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub enum Refusal {
    /// An expected-absent key exists.
    #[prost(message, tag = "3")]
    AlreadyExists(Key),
    /// An expected key is absent.
    #[prost(message, tag = "4")]
    NotFound(Key),
    /// The key is at another revision or has another uid.
    #[prost(message, tag = "5")]
    Conflict(Key),
    /// The namespace (named by its key) does not exist.
    #[prost(message, tag = "6")]
    NamespaceMissing(Key),
    /// The namespace is being deleted and takes no new objects.
    #[prost(message, tag = "7")]
    NamespaceTerminating(Key),
    /// A claim is held by another object: `<claim> held by <key>`.
    #[prost(string, tag = "8")]
    Claimed(String),
    /// The pod is bound to another node already, or the node does not exist: the message says which.
    #[prost(string, tag = "9")]
    Bind(String),
    /// Planned in a term that is over.
    #[prost(uint64, tag = "10")]
    Deposed(u64),
    /// Malformed, or from a newer version than this state: the message says what.
    #[prost(string, tag = "11")]
    Invalid(String),
    /// The objects of the store take more bytes than its quota: the message has the figures and the cure.
    #[prost(string, tag = "12")]
    OverQuota(String),
    /// It would take more than the bounds of its namespace leave. Since version 4.
    #[prost(message, tag = "13")]
    Exceeded(Exceeded),
}
