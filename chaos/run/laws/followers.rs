//! Followers of watches: each sees changes in the order of revisions and none twice; two followers see the same where both
//! looked; every acknowledged write stands there with its value, at its revision.

use std::collections::{BTreeMap, BTreeSet};

use super::Judged;
use crate::run::history::{Call, Change, Outcome, Record, Revision};

/// Whose objects the followers follow.
const FOLLOWED: [&str; 4] = ["registers", "set", "append", "counter"];

pub fn judge(record: &Record) -> Judged {
    let mut judged = Judged::default();
    // Every change that anybody saw, as the first one saw it.
    let mut known: BTreeMap<Revision, &Change> = BTreeMap::new();
    for (name, followed) in &record.followers {
        for part in &followed.parts {
            let mut last = part.after;
            for change in &part.changes {
                if change.revision <= last {
                    judged.broken.push(format!("{name} saw {} ({}) after {last}", change.revision, change.object));
                }
                last = change.revision;
                let first = *known.entry(change.revision).or_insert(change);
                if first != change {
                    judged.broken.push(format!("{name} saw {change:?}, another {first:?}"));
                }
            }
        }
    }
    judged.checked = known.len();
    for one in &record.operations {
        let (Outcome::Done(revision), true) = (&one.outcome, FOLLOWED.contains(&one.workload)) else { continue };
        let covered = |part: &crate::run::history::Part| (part.after..part.until).contains(&revision.saturating_sub(1));
        match known.get(revision) {
            Some(change) => {
                if let Some(written) = written(&one.call)
                    && (change.object != *written.0.unwrap_or(&one.object) || change.value.as_ref() != written.1)
                {
                    judged.broken.push(format!(
                        "{:?} of {} took revision {revision}, where followers saw {change:?}",
                        one.call, one.object
                    ));
                }
            }
            None if *revision > 0 && record.followers.values().flat_map(|one| &one.parts).any(covered) => {
                judged
                    .broken
                    .push(format!("{:?} of {} took revision {revision}, which no follower saw", one.call, one.object));
            }
            None => {}
        }
    }
    for (name, followed) in &record.followers {
        for part in &followed.parts {
            let own: BTreeSet<Revision> = part.changes.iter().map(|change| change.revision).collect();
            for revision in known.range(part.after + 1..=part.until.max(part.after + 1)).map(|(at, _)| *at) {
                if !own.contains(&revision) && revision <= part.until {
                    judged.broken.push(format!("{name} missed revision {revision}, which another saw"));
                }
            }
        }
    }
    judged
}

/// The object and the value that a call leaves, where its call alone says so.
fn written(call: &Call) -> Option<(Option<&String>, Option<&String>)> {
    match call {
        Call::Write(value) | Call::Swap(_, value) => Some((None, Some(value))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::did;
    use super::*;
    use crate::run::history::{Followed, Operation, Part};

    fn change(revision: Revision, value: &str) -> Change {
        Change { revision, object: "o".into(), value: Some(value.into()) }
    }

    /// After and until which revision it followed, and what it saw.
    type Told<'a> = (u64, u64, &'a [(Revision, &'a str)]);

    fn check(followers: &[Told<'_>], operations: Vec<Operation>, broken: usize) {
        let mut record = Record { operations, ..Record::default() };
        for (number, (after, until, changes)) in followers.iter().enumerate() {
            let changes = changes.iter().map(|(revision, value)| change(*revision, value)).collect();
            let part = Part { after: *after, until: *until, changes };
            record.followers.insert(format!("f{number}"), Followed { parts: vec![part], moves: 0 });
        }
        let judged = judge(&record);
        assert_eq!(judged.broken.len(), broken, "{:?}", judged.broken);
    }

    fn wrote(revision: Revision, value: &str) -> Operation {
        did("registers", "c", "o", (0, 1), Call::Write(value.into()), Outcome::Done(revision))
    }

    #[test]
    fn good_histories_pass() {
        check(&[], vec![wrote(1, "a")], 0);
        check(&[(0, 5, &[(1, "a"), (4, "b")]), (0, 4, &[(1, "a"), (4, "b")])], vec![wrote(1, "a"), wrote(4, "b")], 0);
        // It began later, or has not come so far.
        check(&[(0, 9, &[(1, "a"), (4, "b"), (8, "c")]), (2, 5, &[(4, "b")])], vec![wrote(8, "c")], 0);
        check(&[(0, 5, &[(1, "a")])], vec![wrote(7, "z")], 0);
    }

    #[test]
    fn known_bad_histories_fail() {
        // Out of order, twice, missed, another value, a write nobody saw, a write seen otherwise.
        check(&[(0, 5, &[(4, "b"), (1, "a")])], vec![], 1);
        check(&[(0, 5, &[(1, "a"), (1, "a")])], vec![], 1);
        check(&[(0, 5, &[(1, "a"), (4, "b")]), (0, 5, &[(4, "b")])], vec![], 1);
        check(&[(0, 5, &[(1, "a")]), (0, 5, &[(1, "x")])], vec![], 1);
        check(&[(0, 5, &[(1, "a")])], vec![wrote(3, "b")], 1);
        check(&[(0, 5, &[(1, "a")])], vec![wrote(1, "b")], 1);
    }
}
