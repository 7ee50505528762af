//! The table of proposals.

use super::*;
use crate::{OUTCOMES_MAX, ProposalId};

fn proposed(id: ProposalId, ops: Vec<Op>) -> Command {
    Command { proposal: Bytes::copy_from_slice(&id.to_be_bytes()), ..command(ops) }
}

#[test]
fn a_repeated_proposal_gets_its_first_outcome() {
    let mut state = state([vec![thing("@a").put()]]);
    let first = apply(&mut state, &proposed(7, vec![thing("a/x").put()]));
    assert_eq!(first.outcome, accepted(2, &[2]));
    apply(&mut state, &command(vec![delete("a/x")]));
    // The same id again, in a later entry and even with another content: not applied twice.
    let again = apply(&mut state, &proposed(7, vec![thing("a/y").put()]));
    assert_eq!((again.outcome, again.events.len(), again.remembered), (first.outcome, 0, None));
    assert_eq!(state.revision(), 3);
}

#[test]
fn a_refusal_is_remembered_too() {
    let mut state = State::default();
    let create = proposed(7, vec![thing("a/x").put()]);
    let missing = refused(0, Refusal::NamespaceMissing(key("@a")));
    assert_eq!(apply(&mut state, &create).outcome, missing);
    apply(&mut state, &command(vec![thing("@a").put()]));
    assert_eq!(apply(&mut state, &create).outcome, missing);
    assert_eq!(state.outcome_of(7), Some(&missing));
}

#[test]
fn a_command_without_an_id_is_not_remembered() {
    let mut state = State::default();
    assert_eq!(apply(&mut state, &command(vec![thing("@a").put()])).remembered, None);
    assert_eq!(state.outcomes.len(), 0);
}

#[test]
fn the_oldest_leaves_first() {
    let mut state = State::default();
    for id in 1..=OUTCOMES_MAX as ProposalId {
        assert_eq!(apply(&mut state, &proposed(id, vec![])).remembered.and_then(|row| row.evicted), None);
    }
    let row = apply(&mut state, &proposed(1 << 100, vec![])).remembered.expect("has an id");
    assert_eq!((row.number, row.evicted), (OUTCOMES_MAX as u64, Some(0)));
    assert_eq!(state.outcomes.len(), OUTCOMES_MAX);
    assert_eq!((state.outcome_of(1), state.outcome_of(2).is_some()), (None, true));
    let copy = state.clone();
    assert_eq!(
        (copy.outcome_of(1), copy.outcome_of(2).is_some(), copy.outcome_of(1 << 100).is_some()),
        (None, true, true)
    );
}
