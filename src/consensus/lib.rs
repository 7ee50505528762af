//! The replicated log: openraft over RocksDB. Implements [`replica::Backend`], so that the rest of a master sees only a
//! [`replica::Replica`]; nothing outside this crate names openraft or RocksDB.
//!
//! ```text
//!   propose ──▶ batcher ──one entry──▶ openraft ──▶ log/ (synced by the storage thread) ──▶ majority
//!      │           │ a follower's batcher sends its batch to the leader's                      │ committed
//!      ◀─outcomes──┴───────── state machine: apply in memory, publish the root ◀───────────────┘
//!                                   └──rows──▶ state/ (no WAL; the log replays what a crash loses)
//! ```
//!
//! Not here: what a command means (`state`), TLS and gRPC (`rpc`), which member may join (`master`). A master hands in a
//! [`PeerTransport`] and delegates the raft part of its peer service to [`Peers`].
//!
//! **Invariant:** a write is acknowledged only after a majority has synced it; a deposed leader writes nothing.

mod batcher;
mod disk;
mod error;
mod kept;
mod leadership;
mod log;
mod members;
mod network;
mod node;
mod peers;
mod quarantine;
mod random;
mod reads;
pub mod recovery;
mod refill;
mod room;
mod rows;
mod runtime;
mod snapshot;
mod state_machine;
mod state_store;
pub mod storage;
mod supervisor;
mod ticks;
pub mod transport;
mod types;
mod wire;

#[cfg(test)]
mod tests;

pub use disk::SyncFigures;
pub use error::Error;
pub use members::{MemberState, Role, Status};
pub use node::{Config, Consensus, start, start_here, start_on};
pub use peers::Peers;
pub use random::seed_thread;
pub use transport::{Chunk, PeerTransport};
pub use types::Member;
