//! Linearizability of each register, by the search that the simulation uses too.

use std::collections::{BTreeMap, HashSet};

use super::Judged;
use crate::run::history::{Call, Operation, Outcome, Record};
use crate::sim::laws::{self as search, linear};

pub fn judge(record: &Record) -> Judged {
    let mut histories: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
    for one in record.operations.iter().filter(|one| one.workload == "registers") {
        histories.entry(&one.object).or_default().push(one);
    }
    let mut judged = Judged { checked: histories.len(), broken: Vec::new() };
    for (name, history) in histories {
        let translated = translate(&history);
        if !linear::is_linearizable(&translated.iter().collect::<Vec<_>>()) {
            judged.broken.push(format!("no order explains the {} calls on {name}", translated.len()));
        }
    }
    judged
}

/// In the words of the search, less what says nothing.
fn translate(history: &[&Operation]) -> Vec<search::Operation> {
    let seen: HashSet<&str> = history
        .iter()
        .flat_map(|one| match (&one.outcome, &one.call) {
            (Outcome::Value(Some(value), _), _) => Some(value.as_str()),
            (_, Call::Swap(from, _)) => Some(from.as_str()),
            _ => None,
        })
        .collect();
    history
        .iter()
        .filter_map(|one| {
            let call = match &one.call {
                Call::Read => search::Call::Read,
                Call::Create(value) => search::Call::Create(value.clone()),
                Call::Write(value) => search::Call::Write(value.clone()),
                Call::Swap(from, to) => search::Call::Swap(from.clone(), to.clone()),
                Call::Delete => search::Call::Delete,
                _ => return None,
            };
            let answer = match &one.outcome {
                Outcome::Done(revision) => search::Answer::Done(*revision),
                Outcome::Value(value, revision) => search::Answer::Value(value.clone(), *revision),
                Outcome::Refused(_) => search::Answer::Refused(0),
                Outcome::Unknown(_) if one.call == Call::Read => return None,
                // Of a swap that took effect the value would be seen, at the latest at the end: whoever changed it next had read it.
                Outcome::Unknown(_) => match &one.call {
                    Call::Swap(_, to) if !seen.contains(to.as_str()) && !overwritten_unseen(history) => return None,
                    _ => search::Answer::Unknown,
                },
                Outcome::Failed(_) | Outcome::Names(..) => return None,
            };
            let (client, name) = (one.client.clone(), one.object.clone());
            Some(search::Operation { client, name, call, begun: one.begun, ended: one.ended, answer })
        })
        .collect()
}

/// Whether some call changes the register without having read it, so that a value may come and go unseen.
fn overwritten_unseen(history: &[&Operation]) -> bool {
    history.iter().any(|one| matches!(one.call, Call::Write(_) | Call::Delete))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check, did, failed, refused, unknown, value};
    use super::*;

    fn calls(all: &[((u64, u64), Call, Outcome)]) -> Vec<Operation> {
        all.iter()
            .map(|(times, call, outcome)| did("registers", "c", "r", *times, call.clone(), outcome.clone()))
            .collect()
    }

    fn create(value: &str) -> Call {
        Call::Create(value.into())
    }

    fn swap(from: &str, to: &str) -> Call {
        Call::Swap(from.into(), to.into())
    }

    #[test]
    fn good_histories_pass() {
        check(judge, vec![], 0);
        let swapped = calls(&[
            ((0, 1), create("1"), Outcome::Done(1)),
            ((2, 5), swap("1", "2"), Outcome::Done(2)),
            ((3, 4), swap("1", "3"), refused()),
            ((6, 7), Call::Read, value("2")),
            ((8, 9), Call::Delete, Outcome::Done(3)),
            ((10, 11), Call::Read, value("")),
        ]);
        check(judge, swapped, 0);
        // Its answer was lost, and it shows later.
        let late = calls(&[
            ((0, 1), create("1"), Outcome::Done(1)),
            ((2, 3), swap("1", "2"), unknown()),
            ((4, 5), Call::Read, value("1")),
            ((6, 7), Call::Read, value("2")),
        ]);
        check(judge, late, 0);
        // It never shows, and what is written without a look may have hidden it.
        let hidden = calls(&[
            ((0, 1), create("1"), Outcome::Done(1)),
            ((2, 3), swap("1", "2"), unknown()),
            ((4, 5), swap("1", "3"), refused()),
            ((6, 7), Call::Write("4".into()), Outcome::Done(3)),
            ((8, 9), Call::Read, value("4")),
        ]);
        check(judge, hidden, 0);
    }

    #[test]
    fn known_bad_histories_fail() {
        let stale = calls(&[
            ((0, 1), create("1"), Outcome::Done(1)),
            ((2, 3), swap("1", "2"), Outcome::Done(2)),
            ((4, 5), Call::Read, value("1")),
        ]);
        check(judge, stale, 1);
        let failed_did_it = calls(&[
            ((0, 1), create("1"), Outcome::Done(1)),
            ((2, 3), swap("1", "2"), failed()),
            ((4, 5), Call::Read, value("2")),
        ]);
        check(judge, failed_did_it, 1);
        let both_won = calls(&[
            ((0, 1), create("1"), Outcome::Done(1)),
            ((2, 5), swap("1", "2"), Outcome::Done(2)),
            ((3, 4), swap("1", "3"), Outcome::Done(3)),
        ]);
        check(judge, both_won, 1);
        let refused_for_nothing = calls(&[
            ((0, 1), create("1"), Outcome::Done(1)),
            ((2, 3), swap("1", "2"), refused()),
            ((4, 5), Call::Read, value("1")),
        ]);
        check(judge, refused_for_nothing, 1);
        let lost = calls(&[((0, 1), create("1"), Outcome::Done(1)), ((2, 3), Call::Read, value(""))]);
        check(judge, lost, 1);
    }
}
