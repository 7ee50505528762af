//! Laws that need no search, because every answer names its revision: the revisions are the one order of everything.

use std::collections::BTreeMap;

use state::Revision;

use super::{Answer, Call, Operation, Record, is_listed};

impl Operation {
    /// The revision that the answer speaks of.
    fn revision(&self) -> Option<Revision> {
        match self.answer {
            Answer::Value(_, revision)
            | Answer::All(_, revision)
            | Answer::Done(revision)
            | Answer::Refused(revision) => Some(revision),
            Answer::Saw(_) | Answer::Made | Answer::Declined | Answer::Failed | Answer::Unknown => None,
        }
    }
}

/// The change that a write was told it made is in the history.
pub fn acknowledged_stays(record: &Record) -> Vec<String> {
    let done = record.operations.iter().filter_map(|one| match one.answer {
        Answer::Done(revision) => Some((one, revision)),
        _ => None,
    });
    done.filter(|(one, revision)| {
        record
            .events
            .get(revision)
            .is_none_or(|seen| seen.name != one.name || seen.value.as_deref() != one.call.writes())
    })
    .map(|(one, revision)| format!("{one:?}, but revision {revision} is {:?}", record.events.get(&revision)))
    .collect()
}

pub fn failed_did_nothing(record: &Record) -> Vec<String> {
    let written: BTreeMap<&str, Revision> =
        record.events.values().filter_map(|seen| Some((seen.value.as_deref()?, seen.revision))).collect();
    let did_nothing = |answer: &Answer| matches!(answer, Answer::Failed | Answer::Refused(_) | Answer::Declined);
    let failed = record.operations.iter().filter(|one| did_nothing(&one.answer));
    failed
        .filter_map(|one| Some((one, written.get(one.call.writes()?)?)))
        .map(|(one, revision)| format!("{one:?} took revision {revision}"))
        .collect()
}

/// Every value is written by one call, so no two changes may have it.
pub fn nothing_twice(record: &Record) -> Vec<String> {
    let mut first: BTreeMap<&str, Revision> = BTreeMap::new();
    let mut found = Vec::new();
    for seen in record.events.values() {
        if let Some(value) = &seen.value
            && let Some(earlier) = first.insert(value, seen.revision)
        {
            found.push(format!("{value} at revisions {earlier} and {}", seen.revision));
        }
    }
    found
}

/// A call that begins after another has ended is answered at a later revision: strict serializability over all keys.
pub fn revisions_follow_time(record: &Record) -> Vec<String> {
    enum Moment<'a> {
        Begin(usize),
        End(&'a Operation),
    }
    let mut moments: BTreeMap<u64, Moment<'_>> = BTreeMap::new();
    for (at, one) in record.operations.iter().enumerate() {
        moments.insert(one.begun, Moment::Begin(at));
        if let (Some(ended), Some(_)) = (one.ended, one.revision()) {
            moments.insert(ended, Moment::End(one));
        }
    }
    let mut found = Vec::new();
    let mut latest: (Revision, Option<&Operation>) = (0, None);
    for moment in moments.values() {
        match moment {
            Moment::End(one) => {
                let revision = one.revision().unwrap_or_default();
                if revision > latest.0 {
                    latest = (revision, Some(one));
                }
            }
            Moment::Begin(at) => {
                let one = &record.operations[*at];
                let late = match one.answer {
                    Answer::Done(revision) => revision <= latest.0,
                    _ => one.revision().is_some_and(|revision| revision < latest.0),
                };
                if late {
                    found.push(format!("{one:?} began after the end of {:?}", latest.1));
                }
            }
        }
    }
    found
}

/// The values that a key had, by the revision each took.
type History<'a> = BTreeMap<Revision, Option<&'a str>>;

fn held_at<'a>(history: &History<'a>, revision: Revision) -> Option<&'a str> {
    history.range(..=revision).next_back().and_then(|(_, value)| *value)
}

/// What a read, or a refusal, says of a key is what the history says of it at that revision.
pub fn answers_are_true(record: &Record) -> Vec<String> {
    let mut histories: BTreeMap<&str, History<'_>> = BTreeMap::new();
    for seen in record.events.values() {
        histories.entry(&seen.name).or_default().insert(seen.revision, seen.value.as_deref());
    }
    let mut found = Vec::new();
    for one in &record.operations {
        let Some(revision) = one.revision() else { continue };
        if let Answer::All(listed, _) = &one.answer {
            let shown = histories.iter().filter(|(name, _)| is_listed(&one.name, name));
            let held = shown.filter_map(|(name, history)| Some((*name, held_at(history, revision)?)));
            if !listed.iter().map(|(name, value)| (name.as_str(), value.as_str())).eq(held) {
                found.push(format!("{one:?} is not what was there at that revision"));
            }
            continue;
        }
        let held = histories.get(one.name.as_str()).and_then(|history| held_at(history, revision));
        let is_true = match (&one.call, &one.answer) {
            (_, Answer::Value(value, _)) => value.as_deref() == held,
            (Call::Create(_), Answer::Refused(_)) => held.is_some(),
            (Call::Swap(expected, _), Answer::Refused(_)) => held != Some(expected.as_str()),
            (Call::Delete, Answer::Refused(_)) => held.is_none(),
            (_, Answer::Refused(_)) => false,
            _ => true,
        };
        if !is_true {
            found.push(format!("{one:?}, but it held {held:?} at that revision"));
        }
    }
    found
}

/// The key that leaders write names the term of each: it only grows.
pub fn terms_never_return(record: &Record) -> Vec<String> {
    let mut latest = (0, 0);
    let mut found = Vec::new();
    let of_leaders = record.events.values().filter(|seen| seen.name == super::super::workloads::terms::NAME);
    for seen in of_leaders {
        let Some(term) = seen.value.as_deref().and_then(super::super::workloads::terms::term_of) else { continue };
        if term < latest.0 {
            found.push(format!(
                "revision {} is of term {term}, revision {} of term {}",
                seen.revision, latest.1, latest.0
            ));
        }
        latest = latest.max((term, seen.revision));
    }
    found
}
