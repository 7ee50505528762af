//! Locks: from the answer that gave it a lock until it asks to give it back, a client holds it alone.

use std::collections::BTreeMap;

use super::Judged;
use crate::run::history::{Call, Micros, Operation, Outcome, Record};

/// One certain time of holding.
#[derive(Debug)]
struct Held<'a> {
    client: &'a str,
    from: Micros,
    to: Micros,
}

pub fn judge(record: &Record) -> Judged {
    let mut locks: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
    for one in record.operations.iter().filter(|one| one.workload == "leases") {
        locks.entry(&one.object).or_default().push(one);
    }
    let mut judged = Judged::default();
    for (lock, mut history) in locks {
        history.sort_by_key(|one| one.begun);
        let mut held = holdings(&history);
        held.sort_by_key(|one| one.from);
        judged.checked += held.len();
        let mut last: Option<&Held> = None;
        for one in &held {
            if let Some(before) = last
                && before.to > one.from
                && before.client != one.client
            {
                judged.broken.push(format!(
                    "{lock} was held by {} and {} at once, {} ms into the run",
                    before.client,
                    one.client,
                    one.from / 1000
                ));
            }
            if last.is_none_or(|before| before.to < one.to) {
                last = Some(one);
            }
        }
    }
    judged
}

/// A holding begins with the answer that says so, of the acquisition or of a read, and ends when its client asks for the
/// release; what a client does not know it does not count as held.
fn holdings<'a>(history: &[&'a Operation]) -> Vec<Held<'a>> {
    let mut open: BTreeMap<&str, Micros> = BTreeMap::new();
    let mut held = Vec::new();
    for one in history {
        let client = one.client.as_str();
        match (&one.call, &one.outcome) {
            (Call::Acquire, Outcome::Done(_)) => drop(open.entry(client).or_insert(one.end())),
            (Call::Read, Outcome::Value(Some(holder), _)) if holder == client => {
                open.entry(client).or_insert(one.end());
            }
            (Call::Release, _) => {
                if let Some(from) = open.remove(client) {
                    held.push(Held { client, from, to: one.begun });
                }
            }
            _ => {}
        }
    }
    held.extend(open.into_iter().map(|(client, from)| Held { client, from, to: Micros::MAX }));
    held
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check, did, refused, unknown, value};
    use super::*;

    fn call(client: &str, times: (u64, u64), call: Call, outcome: Outcome) -> Operation {
        did("leases", client, "l", times, call, outcome)
    }

    #[test]
    fn good_histories_pass() {
        check(judge, vec![], 0);
        let usual = vec![
            call("a", (0, 1), Call::Acquire, Outcome::Done(1)),
            call("b", (0, 2), Call::Acquire, refused()),
            call("a", (3, 6), Call::Release, Outcome::Done(2)),
            // Taken as soon as the release began.
            call("b", (4, 5), Call::Acquire, unknown()),
            call("b", (7, 8), Call::Read, value("b")),
            call("b", (9, 10), Call::Release, unknown()),
            call("a", (11, 12), Call::Acquire, Outcome::Done(5)),
        ];
        check(judge, usual, 0);
    }

    #[test]
    fn known_bad_histories_fail() {
        let both = vec![
            call("a", (0, 1), Call::Acquire, Outcome::Done(1)),
            call("b", (2, 3), Call::Acquire, Outcome::Done(2)),
            call("a", (4, 5), Call::Release, refused()),
        ];
        check(judge, both, 1);
        let shown = vec![
            call("a", (0, 1), Call::Acquire, Outcome::Done(1)),
            call("b", (2, 3), Call::Read, value("b")),
            call("a", (4, 5), Call::Release, Outcome::Done(2)),
        ];
        check(judge, shown, 1);
        let never_given_back = vec![
            call("a", (0, 1), Call::Acquire, Outcome::Done(1)),
            call("b", (20, 30), Call::Acquire, Outcome::Done(2)),
            call("b", (40, 50), Call::Release, Outcome::Done(2)),
        ];
        check(judge, never_given_back, 1);
    }
}
