//! Revisions: each acknowledged write took one of its own, and a write that began after another's answer took a higher one,
//! over all objects and masters.

use std::collections::BTreeMap;

use super::Judged;
use crate::run::history::{Operation, Outcome, Record, Revision};

pub fn judge(record: &Record) -> Judged {
    let revision = |one: &Operation| match one.outcome {
        // An answer to a deletion may name none.
        Outcome::Done(revision) if one.call.is_write() && revision > 0 => Some(revision),
        _ => None,
    };
    let mut writes: Vec<(&Operation, Revision)> =
        record.operations.iter().filter_map(|one| Some((one, revision(one)?))).collect();
    let mut judged = Judged { checked: writes.len(), ..Judged::default() };
    let mut taken: BTreeMap<Revision, &Operation> = BTreeMap::new();
    for (one, revision) in &writes {
        if let Some(other) = taken.insert(*revision, one)
            && !same_change(other, one)
        {
            judged.broken.push(format!(
                "revision {revision} is {:?} of {} and {:?} of {}",
                other.call, other.object, one.call, one.object
            ));
        }
    }
    writes.sort_by_key(|(one, _)| one.begun);
    let mut ended: Vec<(u64, Revision)> = writes.iter().map(|(one, revision)| (one.end(), *revision)).collect();
    ended.sort_unstable();
    let (mut highest, mut at) = (0, 0);
    for (one, revision) in &writes {
        while at < ended.len() && ended[at].0 < one.begun {
            highest = highest.max(ended[at].1);
            at += 1;
        }
        // The same object unchanged answers with the revision it has.
        if *revision < highest && !matches!(one.call, crate::run::history::Call::Scale(..)) {
            judged.broken.push(format!(
                "{:?} of {} took revision {revision} after {highest} had been acknowledged",
                one.call, one.object
            ));
        }
    }
    judged
}

/// Writing the same again changes nothing and may name the same revision.
fn same_change(one: &Operation, other: &Operation) -> bool {
    one.object == other.object && one.call == other.call
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check, did};
    use super::*;
    use crate::run::history::Call;

    fn wrote(times: (u64, u64), value: &str, revision: Revision) -> Operation {
        did("registers", "c", "o", times, Call::Write(value.into()), Outcome::Done(revision))
    }

    #[test]
    fn good_and_known_bad_histories() {
        check(judge, vec![], 0);
        check(judge, vec![wrote((0, 1), "a", 5), wrote((2, 3), "b", 6), wrote((2, 3), "d", 0)], 0);
        // Side by side in either order.
        check(judge, vec![wrote((0, 3), "a", 6), wrote((1, 2), "b", 5)], 0);
        check(judge, vec![wrote((0, 3), "a", 5), wrote((1, 2), "b", 5)], 1);
        check(judge, vec![wrote((0, 1), "a", 6), wrote((2, 3), "b", 5)], 1);
    }
}
