//! The handle to the replicated state that every other part uses: propose, read, root, watch, leadership.
//!
//! What stands behind it is `consensus` (Raft over RocksDB) in a master, or [`memory`] (one member, nothing stored) in
//! other crates' tests. This crate knows neither Raft nor storage nor HTTP.
//!
//! **Invariant:** readers never wait for writers: a root is one immutable state, taken with one atomic load.

pub mod hub;
pub mod memory;
pub mod watch;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use state::{Command, Outcome, Revision, State};
use tokio::sync::watch::Receiver;

use crate::hub::Hub;
use crate::watch::{Filter, Watcher};

pub type MemberId = u64;
pub type Term = u64;

/// Why a proposal or read got no answer, named for what the caller can do.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// It certainly entered no log: try again, here or elsewhere (503 with Retry-After).
    #[error("no leader can be reached: {0}")]
    Unavailable(String),
    /// It may or may not take effect (504 without Retry-After).
    #[error("the outcome is unknown: {0}")]
    Unknown(String),
    /// `propose_as_leader` on a member that does not lead that term (any more).
    #[error("this master does not lead term {0}")]
    Deposed(Term),
    /// The command exceeds the size of a batch, or the store its quota.
    #[error("too large: {0}")]
    TooLarge(String),
}

/// Who leads, as this member knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    pub leader: Option<MemberId>,
    pub term: Term,
    /// `Some(term)` while this member leads: committed vote, a quorum acknowledged within the lease, and the state has
    /// applied that term's first entry.
    pub leading: Option<Term>,
    /// A leader was confirmed within the last 10 s, and everything that was committed at start has been applied.
    pub serving: bool,
}

/// What stands behind a [`Replica`].
#[async_trait::async_trait]
pub trait Backend: Send + Sync + 'static {
    /// See [`Replica::propose`].
    async fn propose(&self, command: Command) -> Result<Outcome, Error>;
    /// See [`Replica::propose_as_leader`].
    async fn propose_as_leader(&self, term: Term, command: Command) -> Result<Outcome, Error>;
    /// See [`Replica::read`].
    async fn read(&self) -> Result<Arc<State>, Error>;
    /// See [`Replica::root`].
    fn root(&self) -> Arc<State>;
    /// Where watchers wait. The backend publishes every applied event there, after the root.
    fn hub(&self) -> &Hub;
    /// The revision of the newest published root; changes after the root is published.
    fn applied(&self) -> Receiver<Revision>;
    /// Changes of leadership.
    fn leadership(&self) -> Receiver<Leadership>;
}

/// A cheaply cloned handle to one member of the replicated store.
#[derive(Clone)]
pub struct Replica(Arc<dyn Backend>);

impl Replica {
    pub fn new(backend: Arc<dyn Backend>) -> Self {
        Self(backend)
    }

    /// Proposes through whichever member leads, and returns when the outcome is applied to the local root (read your
    /// writes). If the leader is lost meanwhile it proposes again under the same proposal id. An empty `proposal` is
    /// given a fresh id.
    pub async fn propose(&self, command: Command) -> Result<Outcome, Error> {
        self.0.propose(command).await
    }

    /// Proposes on this member only, stamped with `term`; for the loops of a leader.
    pub async fn propose_as_leader(&self, term: Term, command: Command) -> Result<Outcome, Error> {
        self.0.propose_as_leader(term, command).await
    }

    /// A linearizable read: a root that contains every write acknowledged before this call began.
    pub async fn read(&self) -> Result<Arc<State>, Error> {
        self.0.read().await
    }

    /// The local root: immediate, possibly behind.
    pub fn root(&self) -> Arc<State> {
        self.0.root()
    }

    /// Follows the changes after a revision, usually that of a list; see [`Watcher`].
    pub fn watch(&self, filter: Filter, after: Revision) -> Watcher {
        Watcher::new(self.clone(), filter, after)
    }

    pub(crate) fn hub(&self) -> &Hub {
        self.0.hub()
    }

    /// The revision of the newest published root; changes after the root is published.
    pub fn applied(&self) -> Receiver<Revision> {
        self.0.applied()
    }

    /// Who leads, and changes of it.
    pub fn leadership(&self) -> Receiver<Leadership> {
        self.0.leadership()
    }
}
