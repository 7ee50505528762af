//! Stored rows: what restoring refuses.

use super::*;
use crate::{CorruptError, Restore, codec};

type Rows = Vec<(Vec<u8>, Vec<u8>)>;
/// What it says, and what was done to the rows.
type Spoilt = (&'static str, fn(&mut Rows));

pub(crate) fn restore(rows: &Rows) -> Result<State, CorruptError> {
    let mut restore = Restore::new();
    for (key, value) in rows {
        restore.row(key, value)?;
    }
    restore.finish()
}

/// Revisions 1 to 6, compacted to 3: rows of all kinds.
fn given() -> State {
    let mut state = state([
        vec![thing("@a").put(), thing("a/x").put()],
        vec![thing("a/y").put(), thing("a/x").body("1").put()],
        vec![delete("a/y"), thing("n1").put(), compact(3)],
    ]);
    for id in 1..=3u128 {
        let proposal = Bytes::copy_from_slice(&id.to_be_bytes());
        apply(&mut state, &Command { proposal, ..command(vec![]) });
    }
    state
}

#[test]
fn restores() {
    let state = given();
    assert_eq!(restore(&codec::dump(&state)), Ok(state));
    assert_eq!(restore(&Vec::new()), Ok(State::default()));
}

#[test]
fn a_key_sorts_as_its_row() {
    let mut keys: Vec<Key> = ["a/x", "a/x-y", "a/x.y", "a-b/x", "a/x0", "@a", "n1", "b/ü"].map(key).to_vec();
    keys.push(Key::new("apps", "deployments", "a", "x"));
    keys.push(Key::new("apps", "deployments", "", "x"));
    let state = State { revision: 99, ..State::default() };
    let rows = |state: &State, key: &Key| {
        let mut state = state.clone();
        state.compacted = 99;
        let (mut record, key) = (thing("n1").0, key.clone());
        record.key = key.clone();
        let record = crate::Record {
            header: record.header,
            body: record.body,
            split: 0,
            managed_fields: Bytes::new(),
            created: 1,
            revision: 1,
        };
        state.replace(&crate::key::Shared::new(key), Some(std::sync::Arc::new(record)));
        codec::dump(&state).swap_remove(1).0
    };
    let mut by_row = keys.clone();
    by_row.sort_by_key(|key| rows(&state, key));
    keys.sort();
    assert_eq!(keys, by_row);
}

#[test]
fn no_lost_row_goes_unnoticed() {
    let state = given();
    let rows = codec::dump(&state);
    // Meta; @a, a/x at 2 and 4, a/y at 3 and 5, n1; three outcomes.
    assert_eq!(rows.len(), 10);
    for lost in 0..rows.len() {
        let mut rows = rows.clone();
        let (key, _) = rows.remove(lost);
        assert!(restore(&rows).is_err(), "row {lost}, {key:?}");
    }
}

#[test]
fn refuses_what_is_not_a_state() {
    let cases: [Spoilt; 9] = [
        ("rows out of order", |rows| rows.swap(2, 3)),
        ("the first row is not the meta row", |rows| drop(rows.remove(0))),
        ("a row of format 9, this build knows 1", |rows| rows[1].1[0] = 9),
        ("an empty row", |rows| rows[1].1.clear()),
        ("no row is of revision 4", |rows| rows.retain(|(key, _)| key.last() != Some(&4))),
        ("a row of no known kind", |rows| rows.push((vec![0x13], vec![1]))),
        ("2 outcomes from 0, of 3", |rows| drop(rows.pop())),
        ("nodes/n1 is at revision 255, the store at 6", |rows| {
            for (key, _) in rows.iter_mut().filter(|(key, _)| key.last() == Some(&6)) {
                *key.last_mut().expect("not empty") = 255;
            }
        }),
        ("an object's key ends early", |rows| rows[1].0.truncate(5)),
    ];
    let good = codec::dump(&given());
    for (expected, spoil) in cases {
        let mut rows = good.clone();
        spoil(&mut rows);
        let error = restore(&rows).expect_err(expected).to_string();
        assert_eq!(error, format!("stored state is corrupt: {expected}"));
    }
}

#[test]
fn rows_without_history() {
    let mut state = state([
        vec![thing("@a").put(), thing("n1").put()],
        vec![thing("a/x").put(), thing("a/y").put()],
        vec![thing("a/x").node("n1").put()],
        vec![delete("a/y")],
    ]);
    let (hash, revision) = (state.hash(), state.revision());
    state.forget_history(crate::EPOCH_AHEAD);
    let rows: Vec<_> = state.present_rows().collect();
    assert_eq!(rows, crate::codec::dump(&state));
    let restored = restore(&rows).expect("restored");
    assert_eq!((restored.hash(), restored.revision()), (hash, revision + crate::EPOCH_AHEAD));
    assert_eq!(restored.compacted(), restored.revision());
    assert_eq!(restored, state);
}
