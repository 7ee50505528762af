//! From stored rows back to the state: one ordered scan, every row checked.
//!
//! **Invariant:** the result equals the state whose rows they are, with hash, history and indexes; or it is an error.
//! A missing, doubled or misplaced row is never papered over.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;

use crate::codec::{FORMAT, META, Meta, OBJECT, OUTCOME, Proposal, Version};
use crate::key::Shared;
use crate::{EntryId, Event, Key, OUTCOMES_MAX, Record, Revision, State};

/// What is stored is not a state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stored state is corrupt: {0}")]
pub struct CorruptError(String);

fn corrupt<T>(what: impl Into<String>) -> Result<T, CorruptError> {
    Err(CorruptError(what.into()))
}

/// Takes the rows of [`crate::codec`] in key order, then makes the state of them.
#[derive(Debug, Default)]
pub struct Restore {
    state: State,
    /// The hash that the meta row says; none before that row.
    hash: Option<Bytes>,
    last: Vec<u8>,
    /// The versions of the key at hand so far: its newest.
    at_hand: Option<(Shared, Option<Arc<Record>>)>,
    events: Vec<Arc<Event>>,
}

impl Restore {
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next row.
    ///
    /// # Errors
    /// [`CorruptError`] if it cannot be one of a state, or not at this place.
    pub fn row(&mut self, key: &[u8], value: &[u8]) -> Result<(), CorruptError> {
        if key <= self.last.as_slice() {
            return corrupt("rows out of order");
        }
        self.last.clear();
        self.last.extend_from_slice(key);
        let value = match value.split_first() {
            Some((&FORMAT, value)) => value,
            Some((format, _)) => return corrupt(format!("a row of format {format}, this build knows {FORMAT}")),
            None => return corrupt("an empty row"),
        };
        match key.split_first() {
            Some((&META, [])) => self.meta(value),
            _ if self.hash.is_none() => corrupt("the first row is not the meta row"),
            Some((&OBJECT, rest)) => self.version(rest, value),
            Some((&OUTCOME, rest)) => self.outcome(rest, value),
            _ => corrupt("a row of no known kind"),
        }
    }

    fn meta(&mut self, value: &[u8]) -> Result<(), CorruptError> {
        let meta: Meta = decode(value)?;
        if meta.compacted > meta.revision {
            return corrupt(format!("compacted to {} but at revision {}", meta.compacted, meta.revision));
        }
        self.state.revision = meta.revision;
        self.state.compacted = meta.compacted;
        self.state.version = meta.version;
        self.state.quota = meta.quota;
        self.state.applied = EntryId { term: meta.applied_term, index: meta.applied_index };
        self.state.proposals_next = meta.proposals_next;
        self.hash = Some(meta.hash);
        Ok(())
    }

    fn version(&mut self, key: &[u8], value: &[u8]) -> Result<(), CorruptError> {
        let (key, revision) = object_key(key)?;
        let version: Version = decode(value)?;
        if self.at_hand.as_ref().is_some_and(|(at_hand, _)| **at_hand != key) {
            self.complete();
        }
        let new = version.header.map(|mut header| {
            header.shrink();
            Arc::new(Record {
                header,
                body: version.body,
                split: version.split,
                managed_fields: version.managed_fields,
                created: version.created,
                revision,
            })
        });
        if revision > self.state.revision {
            return corrupt(format!("{key} is at revision {revision}, the store at {}", self.state.revision));
        }
        let (key, old) = self.at_hand.take().unwrap_or_else(|| (Shared::new(key), None));
        if revision > self.state.compacted {
            let continues = new.as_ref().is_none_or(|new| new.created < revision);
            if continues != old.is_some() {
                return corrupt(format!("{} at revision {revision} does not follow the version before", *key));
            }
            let event = Event { revision, key: Key::clone(&key), old, new: new.clone() };
            self.events.push(Arc::new(event));
        } else if old.is_some() || new.is_none() {
            return corrupt(format!("{} has a version at revision {revision} that was compacted away", *key));
        }
        self.at_hand = Some((key, new));
        Ok(())
    }

    /// All versions of the key at hand have been seen: the newest is the present one.
    fn complete(&mut self) {
        if let Some((key, Some(record))) = self.at_hand.take() {
            self.state.replace(&key, Some(record));
        }
    }

    fn outcome(&mut self, key: &[u8], value: &[u8]) -> Result<(), CorruptError> {
        let number = number(key)?;
        let Proposal { id, outcome } = decode(value)?;
        let Ok(id) = <[u8; 16]>::try_from(id.as_ref()) else {
            return corrupt(format!("outcome {number} has a proposal id of {} bytes", id.len()));
        };
        let id = u128::from_be_bytes(id);
        // It left the table, and who stores has not removed it yet.
        if number.saturating_add(OUTCOMES_MAX as u64) < self.state.proposals_next {
            return Ok(());
        }
        if !self.state.enter_outcome(number, id, outcome) {
            return corrupt(format!("outcome {number} is of a proposal that has one already"));
        }
        Ok(())
    }

    /// The state of all rows. No row at all is the empty state.
    ///
    /// # Errors
    /// [`CorruptError`] if rows are missing.
    pub fn finish(mut self) -> Result<State, CorruptError> {
        self.complete();
        let mut state = self.state;
        self.events.sort_unstable_by_key(|event| event.revision);
        let mut expected = state.compacted;
        for event in &self.events {
            expected += 1;
            if event.revision != expected {
                return corrupt(format!("no row is of revision {expected}"));
            }
            state.record(event);
        }
        if expected != state.revision {
            return corrupt(format!("history ends at revision {expected}, the store is at {}", state.revision));
        }
        if let Some(hash) = self.hash.filter(|hash| **hash != state.hash.to_be_bytes()) {
            return corrupt(format!("the objects have the hash {:032x}, the meta row says {hash:x}", state.hash));
        }
        if crate::mutants::is_chosen("reused-revision") {
            state.forget_last_deletions();
        }
        let outcomes = state.proposals_next.min(OUTCOMES_MAX as u64);
        let first = state.outcomes.get_min().map_or(0, |(number, _)| *number);
        if state.outcomes.len() as u64 != outcomes || first != state.proposals_next - outcomes {
            return corrupt(format!("{} outcomes from {first}, of {}", state.outcomes.len(), state.proposals_next));
        }
        Ok(state)
    }
}

fn decode<M: Message + Default>(value: &[u8]) -> Result<M, CorruptError> {
    M::decode(value).or_else(|error| corrupt(error.to_string()))
}

fn number(bytes: &[u8]) -> Result<u64, CorruptError> {
    match bytes.try_into() {
        Ok(bytes) => Ok(u64::from_be_bytes(bytes)),
        Err(_) => corrupt(format!("a number of {} bytes in a key", bytes.len())),
    }
}

fn object_key(bytes: &[u8]) -> Result<(Key, Revision), CorruptError> {
    let mut rest = bytes;
    let mut part = || {
        let Some(end) = rest.iter().position(|byte| *byte == 0) else { return corrupt("an object's key ends early") };
        let (part, tail) = (&rest[..end], &rest[end + 1..]);
        rest = tail;
        String::from_utf8(part.to_vec()).or_else(|_| corrupt("an object's key is not text"))
    };
    let key = Key { group: part()?, resource: part()?, namespace: part()?, name: part()? };
    Ok((key, number(rest)?))
}
