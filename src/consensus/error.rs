//! Why consensus could not do what was asked, named for what the caller can do.

use replica::MemberId;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What is on disk cannot be trusted. The message names the cause and the cure; do not start this member.
    #[error("{0}")]
    Corrupt(String),
    /// The data directory belongs to another member or cluster.
    #[error("{0}")]
    Mismatch(String),
    /// Only the leader can do this: ask it, if one is known.
    #[error("this member does not lead; the leader is {}", match .leader { Some(id) => id.to_string(), None => "unknown".into() })]
    NotLeader { leader: Option<MemberId> },
    /// The request makes no sense for the present membership.
    #[error("{0}")]
    Invalid(String),
    /// It did not happen within the limit; it may still happen.
    #[error("{0}")]
    Timeout(String),
    /// The disk failed. The member stops; it must be started again from disk.
    #[error("storage: {0}")]
    Storage(String),
    /// Consensus is shutting down or has stopped.
    #[error("consensus has stopped: {0}")]
    Stopped(String),
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::Storage(error.to_string())
    }
}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        Self::other(error)
    }
}
