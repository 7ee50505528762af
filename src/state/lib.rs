//! What the cluster believes: every object as a record, one revision counter, and the only way to change either.
//!
//! `apply(state, command)` is deterministic: it reads no clock, draws no random number, iterates no hash map and never
//! parses or writes JSON; time, uids and names arrive stamped in the command. This crate knows no Kubernetes type: what
//! an object means stands in `objects`, and `control` turns one into the other.
//!
//! ```text
//! Command { proposal, term, time, expects, ops } ──apply──▶ Outcome + Events, state at revision + n
//!                                                    └──codec──▶ rows to store; restore(rows) = the same state
//! ```
//!
//! **Invariant:** the same log gives the same bytes on every member; a revision never names two different states.

mod apply;
pub mod bounds;
pub mod codec;
mod command;
mod event;
mod export;
mod hash;
mod history;
mod index;
mod key;
pub mod mutants;
mod outcomes;
mod pairs;
mod record;
mod restore;
mod store;
pub mod visits;

#[cfg(test)]
mod tests;

pub use bounds::{Beyond, Bound, Bounds, Exceeded};
pub use command::{
    Command, Compact, Condition, Expect, Op, Outcome, ProposalId, Put, RaiseVersion, Refusal, SetQuota, op,
};
pub use event::{Event, EventKind, Topic};
pub use export::EPOCH_AHEAD;
pub use key::Key;
pub use outcomes::{OUTCOMES_MAX, Remembered};
pub use pairs::Pairs;
pub use record::{Header, Owner, Record};
pub use restore::{CorruptError, Restore};
pub use store::{Applied, Compacted, EntryId, State};

/// The one counter of the whole store; `resourceVersion` is its decimal form.
pub type Revision = u64;

/// The newest `State::version` whose rules this build knows. A member whose state was raised beyond it must stop:
/// it would apply commands differently from the others.
///
/// 2: quota. 3: half of its headroom is the cluster's own. 4: bounds of namespaces.
pub const VERSION: u32 = 4;
