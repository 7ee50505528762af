//! Linearizability of each register, by the search that the simulation uses too.

use std::collections::BTreeMap;

use super::Judged;
use crate::run::history::{Call, Operation, Outcome, Record};
use crate::sim::laws::{self as search, linear};

pub fn judge(record: &Record) -> Judged {
    let mut histories: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
    for one in record.operations.iter().filter(|one| one.workload == "registers") {
        histories.entry(&one.object).or_default().push(one);
    }
    let mut judged = Judged { checked: histories.len(), ..Judged::default() };
    for (name, history) in histories {
        let translated = translate(&history);
        match linear::words(linear::judge(&translated.iter().collect::<Vec<_>>()), name, translated.len()) {
            None => {}
            Some((true, why)) => judged.broken.push(why),
            Some((false, why)) => judged.unknown.push(why),
        }
    }
    judged
}

/// In the words of the search.
fn translate(history: &[&Operation]) -> Vec<search::Operation> {
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
                Outcome::Unknown(_) => search::Answer::Unknown,
                Outcome::Failed(_) | Outcome::Names(..) => return None,
            };
            let (client, name) = (one.client.clone(), one.object.clone());
            Some(search::Operation { client, name, call, begun: one.begun, ended: one.ended, answer })
        })
        .collect()
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
