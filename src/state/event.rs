//! A change of one key, as watchers see it: two stored versions, so nothing is written twice.

use std::sync::Arc;

use crate::{Key, Record, Revision};

/// One change. `old` is the version before, `new` the version after; one of them is present.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The revision of the change; of a deletion too, where `new` is absent.
    pub revision: Revision,
    pub key: Key,
    pub old: Option<Arc<Record>>,
    pub new: Option<Arc<Record>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    Created,
    Updated,
    Deleted,
}

impl Event {
    pub fn kind(&self) -> EventKind {
        match (&self.old, &self.new) {
            (None, _) => EventKind::Created,
            (Some(_), Some(_)) => EventKind::Updated,
            (Some(_), None) => EventKind::Deleted,
        }
    }
}
