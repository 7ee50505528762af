//! The types openraft is made of here.

use std::fmt;

use bytes::Bytes;
use openraft::impls::leader_id_std;
use prost::Message as _;
use serde::{Deserialize, Serialize};
use state::{Command, Outcome};

openraft::declare_raft_types!(
    /// One leader per term (`leader_id_std`): fencing by term alone depends on it.
    pub Types:
        D = Batch,
        R = Answers,
        NodeId = u64,
        Node = Member,
        LeaderId = leader_id_std::LeaderId<u64, u64>,
        AsyncRuntime = crate::random::OnTokio,
);

pub type Raft = openraft::Raft<Types, crate::state_machine::StateMachine>;
pub type LogId = openraft::alias::LogIdOf<Types>;
pub type Vote = openraft::alias::VoteOf<Types>;
pub type Entry = openraft::alias::EntryOf<Types>;
pub type Membership = openraft::Membership<u64, Member>;
pub type StoredMembership = openraft::alias::StoredMembershipOf<Types>;
pub type SnapshotMeta = openraft::alias::SnapshotMetaOf<Types>;

pub fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(term.into(), index)
}

/// A master, as the others reach it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Never reused; 0 is no member.
    pub id: u64,
    pub name: String,
    /// host:port of the peer port.
    pub peer_address: String,
    /// host:port of the API port.
    pub api_address: String,
}

/// What one log entry carries: an encoded [`Commands`].
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch(pub Bytes);

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Batch({} bytes)", self.0.len())
    }
}

impl fmt::Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Stored in the log, so append-only.
#[derive(Clone, PartialEq, prost::Message)]
struct Commands {
    /// An encoded `state::Command` each: one that this version cannot decode must not spoil its neighbours.
    #[prost(bytes = "bytes", repeated, tag = "1")]
    commands: Vec<Bytes>,
}

impl Batch {
    pub fn new(commands: Vec<Bytes>) -> Self {
        Self(Commands { commands }.encode_to_vec().into())
    }

    /// The commands in order; an undecodable one is an empty command, which every member refuses or ignores alike.
    pub fn commands(&self) -> Vec<Command> {
        let commands = Commands::decode(self.0.clone()).unwrap_or_default().commands;
        commands.into_iter().map(|bytes| Command::decode(bytes).unwrap_or_default()).collect()
    }
}

/// The outcome of each command of a batch. Handed over in memory only.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Answers {
    #[serde(skip)]
    pub outcomes: Vec<Outcome>,
}
