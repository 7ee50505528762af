//! The stored form of the state, as rows of one ordered map of bytes.
//!
//! ```text
//!   10                                              meta: revision, compaction, version, entry applied last, hash
//!   11 group 00 resource 00 namespace 00 name 00 r  the version of that key made by revision r, or its deletion
//!   12 n                                            outcome number n of the table of proposals
//! ```
//! Outcomes that have left the table may be stored still: they are those of the lowest numbers.
//!
//! Numbers in keys are 8 bytes, big-endian. Values begin with [`FORMAT`]; the rest is a prost message and append-only.
//! An object's rows are its present version and what history needs: an event is the row of its revision, and its old
//! version is the row before. So nothing is written twice, and [`crate::Restore`] needs one ordered scan.
//!
//! Whoever stores writes the rows of all commands of a log entry and one meta row in one batch: then what is stored is
//! the state after some entry, never between two. This crate does no IO.

use bytes::Bytes;
use prost::{Message, encoding};

use crate::{Applied, Event, Header, Key, Outcome, Record, Revision, State};

/// The first byte of every stored value.
pub const FORMAT: u8 = 1;

/// All rows have keys from this up to but not including [`END`]; other keys are free for whoever stores.
pub const START: &[u8] = &[0x10];
/// See [`START`].
pub const END: &[u8] = &[0x20];

pub(crate) const META: u8 = 0x10;
pub(crate) const OBJECT: u8 = 0x11;
pub(crate) const OUTCOME: u8 = 0x12;

/// One change of what is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Row {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
}

/// The rows that one applied command changes. `meta` must be written too, once per log entry, after its last command.
pub fn rows(applied: &Applied, visit: &mut impl FnMut(Row)) {
    for event in &applied.events {
        visit(version_row(&event.key, event.revision, event.new.as_deref()));
    }
    for event in &applied.forgotten {
        if let Some(old) = &event.old {
            visit(Row::Delete(object_key(&event.key, old.revision)));
        }
        if event.new.is_none() {
            visit(Row::Delete(object_key(&event.key, event.revision)));
        }
    }
    if let Some(row) = &applied.remembered {
        visit(outcome_row(row.number, row.proposal, &applied.outcome));
        if let Some(evicted) = row.evicted {
            visit(Row::Delete(outcome_key(evicted)));
        }
    }
}

/// The one row that changes with every log entry.
pub fn meta(state: &State) -> Row {
    let meta = Meta {
        revision: state.revision,
        compacted: state.compacted,
        version: state.version,
        applied_term: state.applied.term,
        applied_index: state.applied.index,
        proposals_next: state.proposals_next,
        hash: Bytes::copy_from_slice(&state.hash.to_be_bytes()),
        quota: state.quota,
    };
    Row::Put(vec![META], value(&meta))
}

/// All rows of a state, in key order: what the rows of every command so far have left behind.
pub fn dump(state: &State) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut all = vec![meta(state)];
    let before = |event: &&Event| event.old.as_ref().is_some_and(|old| old.revision <= state.compacted);
    for event in state.events.values().map(AsRef::as_ref) {
        all.push(version_row(&event.key, event.revision, event.new.as_deref()));
        if let Some(old) = Some(event).filter(before).and_then(|event| event.old.as_deref()) {
            all.push(version_row(&event.key, old.revision, Some(old)));
        }
    }
    for (key, record) in state.objects.iter().filter(|(_, record)| record.revision <= state.compacted) {
        all.push(version_row(key, record.revision, Some(record)));
    }
    for (number, (proposal, outcome)) in &state.outcomes {
        all.push(outcome_row(*number, *proposal, outcome));
    }
    let mut rows: Vec<_> = all
        .into_iter()
        .filter_map(|row| match row {
            Row::Put(key, value) => Some((key, value)),
            Row::Delete(_) => None,
        })
        .collect();
    rows.sort();
    rows
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Meta {
    #[prost(uint64, tag = "1")]
    pub revision: Revision,
    #[prost(uint64, tag = "2")]
    pub compacted: Revision,
    #[prost(uint32, tag = "3")]
    pub version: u32,
    #[prost(uint64, tag = "4")]
    pub applied_term: u64,
    #[prost(uint64, tag = "5")]
    pub applied_index: u64,
    #[prost(uint64, tag = "6")]
    pub proposals_next: u64,
    /// Of the state that all rows make: 16 bytes, big-endian.
    #[prost(bytes = "bytes", tag = "7")]
    pub hash: Bytes,
    /// See [`State::quota`].
    #[prost(uint64, tag = "8")]
    pub quota: u64,
}

/// One version of an object; its key and revision stand in the row's key.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Version {
    /// Absent: the object was deleted by this revision.
    #[prost(message, optional, tag = "1")]
    pub header: Option<Header>,
    #[prost(bytes = "bytes", tag = "2")]
    pub body: Bytes,
    #[prost(uint32, tag = "3")]
    pub split: u32,
    #[prost(bytes = "bytes", tag = "4")]
    pub managed_fields: Bytes,
    #[prost(uint64, tag = "5")]
    pub created: Revision,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Proposal {
    /// 16 bytes, big-endian.
    #[prost(bytes = "bytes", tag = "1")]
    pub id: Bytes,
    #[prost(message, required, tag = "2")]
    pub outcome: Outcome,
}

/// A [`Version`], without a copy of what it is made of.
pub(crate) fn version_row(key: &Key, revision: Revision, record: Option<&Record>) -> Row {
    let Some(record) = record else { return Row::Put(object_key(key, revision), vec![FORMAT]) };
    let Record { header, body, split, managed_fields, created, .. } = record;
    let mut out = Vec::with_capacity(32 + header.encoded_len() + body.len() + managed_fields.len());
    out.push(FORMAT);
    encoding::message::encode(1, header, &mut out);
    if !body.is_empty() {
        encoding::bytes::encode(2, body, &mut out);
    }
    if *split != 0 {
        encoding::uint32::encode(3, split, &mut out);
    }
    if !managed_fields.is_empty() {
        encoding::bytes::encode(4, managed_fields, &mut out);
    }
    if *created != 0 {
        encoding::uint64::encode(5, created, &mut out);
    }
    Row::Put(object_key(key, revision), out)
}

pub(crate) fn outcome_row(number: u64, proposal: u128, outcome: &Outcome) -> Row {
    let id = Bytes::copy_from_slice(&proposal.to_be_bytes());
    Row::Put(outcome_key(number), value(&Proposal { id, outcome: outcome.clone() }))
}

fn value(message: &impl Message) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + message.encoded_len());
    bytes.push(FORMAT);
    message.encode_raw(&mut bytes);
    bytes
}

fn object_key(key: &Key, revision: Revision) -> Vec<u8> {
    let parts = [&key.group, &key.resource, &key.namespace, &key.name];
    let mut bytes = Vec::with_capacity(1 + parts.iter().map(|part| part.len() + 1).sum::<usize>() + 8);
    bytes.push(OBJECT);
    for part in parts {
        bytes.extend_from_slice(part.as_bytes());
        bytes.push(0);
    }
    bytes.extend_from_slice(&revision.to_be_bytes());
    bytes
}

/// No row of the table of proposals comes before this.
pub const FIRST_OUTCOME: &[u8] = &[OUTCOME];

/// The key of the first outcome that a state still remembers; none while no outcome has left it.
pub fn first_outcome(state: &State) -> Option<Vec<u8>> {
    let (first, _) = state.outcomes.get_min()?;
    (*first > 0).then(|| outcome_key(*first))
}

/// Whether a row is one of the table of proposals.
pub fn is_outcome(key: &[u8]) -> bool {
    key.first() == Some(&OUTCOME)
}

fn outcome_key(number: u64) -> Vec<u8> {
    let mut bytes = vec![OUTCOME];
    bytes.extend_from_slice(&number.to_be_bytes());
    bytes
}
