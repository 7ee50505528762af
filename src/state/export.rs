//! The state without its history: what a snapshot file holds, and what a new epoch begins with.
//!
//! **Invariant:** the rows are those of [`codec::dump`] of the same state, made one at a time, so that a large state is
//! written out without a second copy in memory.

use crate::codec;
use crate::{Revision, State};

/// How far a new epoch moves the revision: further than any member of the epoch before can have come.
pub const EPOCH_AHEAD: Revision = 1_000_000_000;

impl State {
    /// Forgets all history and moves the revision `ahead` (0: not at all). Objects keep the revisions of their last
    /// change; a watch that was under way gets 410 and lists again.
    pub fn forget_history(&mut self, ahead: Revision) {
        self.compact(self.revision);
        self.revision += ahead;
        self.compacted = self.revision;
    }

    /// All rows of a state without history, in key order.
    ///
    /// # Panics
    /// When the state has history: [`State::forget_history`] comes first.
    pub fn present_rows(&self) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
        assert!(self.events.is_empty() && self.compacted == self.revision, "the state still has history");
        let meta = std::iter::once(codec::meta(self));
        let objects = self.objects.iter().map(|(key, record)| codec::version_row(key, record.revision, Some(record)));
        let outcomes =
            self.outcomes.iter().map(|(number, (proposal, outcome))| codec::outcome_row(*number, *proposal, outcome));
        meta.chain(objects).chain(outcomes).filter_map(|row| match row {
            codec::Row::Put(key, value) => Some((key, value)),
            codec::Row::Delete(_) => None,
        })
    }
}
