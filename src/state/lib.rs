//! What the cluster believes: every object as a record, one revision counter, and the only way to change either.
//!
//! `apply(state, command)` is deterministic: it reads no clock, draws no random number, iterates no hash map and never
//! parses or writes JSON; time, uids and names arrive stamped in the command. This crate knows no Kubernetes type: what
//! an object means stands in `objects`, and `control` turns one into the other.
//!
//! ```text
//! Command { proposal, term, time, expects, ops } ──apply──▶ Outcome + Events, state at revision + n
//! ```
//!
//! **Invariant:** the same log gives the same bytes on every member; a revision never names two different states.

mod apply;
mod command;
mod event;
mod key;
mod record;
mod store;

pub use command::{op, Command, Compact, Condition, Expect, Op, Outcome, ProposalId, Put, RaiseVersion, Refusal};
pub use event::{Event, EventKind};
pub use key::Key;
pub use record::{Header, Owner, Record};
pub use store::{Applied, Compacted, EntryId, State};

/// The one counter of the whole store; `resourceVersion` is its decimal form.
pub type Revision = u64;
