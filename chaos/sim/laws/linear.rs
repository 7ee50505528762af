//! Linearizability of one register at a time, by the search of Wing and Gong with Lowe's memory of what was tried: is there
//! an order of all calls in which each takes effect between its beginning and its end and every answer is right?
//!
//! It knows nothing of revisions, so it also judges what `order` takes for granted. A call whose outcome is unknown may
//! take effect at any time after its beginning, or never.

use std::collections::{BTreeMap, HashSet};

use super::{Answer, Call, Operation, Record};

/// Steps of a search after which it is given up; the history then counts as good, and `order` still judges it.
const STEPS_MAX: usize = 4_000_000;

pub fn histories_are_linearizable(record: &Record) -> Vec<String> {
    let written: HashSet<&str> = record.events.values().filter_map(|seen| seen.value.as_deref()).collect();
    let mut histories: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
    for one in &record.operations {
        // An unknown write that no follower ever saw did nothing; leaving it out keeps the search small.
        let vanished = one.answer == Answer::Unknown && one.call.writes().is_some_and(|value| !written.contains(value));
        let reads = matches!(one.call, Call::Read | Call::List);
        if !vanished && one.answer != Answer::Failed && !reads || matches!(one.answer, Answer::Value(..)) {
            histories.entry(&one.name).or_default().push(one);
        }
    }
    histories
        .iter()
        .filter(|(_, history)| !is_linearizable(history))
        .map(|(name, history)| format!("no order explains the {} calls on {name}", history.len()))
        .collect()
}

/// The register after a call, if its answer is right in that state.
fn step<'a>(one: &'a Operation, held: Option<&'a str>) -> Option<Option<&'a str>> {
    let known = one.answer != Answer::Unknown;
    let refused = matches!(one.answer, Answer::Refused(_));
    let after = match &one.call {
        Call::Read | Call::List => match &one.answer {
            Answer::Value(value, _) if value.as_deref() != held => return None,
            _ => return Some(held),
        },
        Call::Write(value) => Some(Some(value.as_str())),
        Call::Create(value) => held.is_none().then_some(Some(value.as_str())),
        Call::Swap(expected, value) => (held == Some(expected)).then_some(Some(value.as_str())),
        Call::Delete => held.is_some().then_some(None),
    };
    match after {
        Some(_) if known && refused => None,
        Some(after) => Some(after),
        // Its condition does not hold: right if that is what it was told, or if it was told nothing.
        None if known && !refused => None,
        None => Some(held),
    }
}

/// One beginning or end of a call, in a list from which linearized calls are lifted out.
struct Moment {
    call: usize,
    /// Where the end of this beginning stands; none for an end.
    end: Option<usize>,
    before: usize,
    after: usize,
}

pub fn is_linearizable(history: &[&Operation]) -> bool {
    let mut times: Vec<(u64, bool, usize)> = Vec::new();
    for (call, one) in history.iter().enumerate() {
        times.push((one.begun, false, call));
        let ended = if one.answer == Answer::Unknown { u64::MAX } else { one.ended.unwrap_or(u64::MAX) };
        times.push((ended, true, call));
    }
    times.sort_unstable();
    // The first is the head of the list, the last its end.
    let last = times.len() + 1;
    let mut list = vec![Moment { call: usize::MAX, end: None, before: 0, after: 1 }];
    let mut ends = vec![0; history.len()];
    for (at, (_, is_end, call)) in times.iter().enumerate() {
        if *is_end {
            ends[*call] = at + 1;
        }
        list.push(Moment { call: *call, end: None, before: at, after: at + 2 });
    }
    list.push(Moment { call: usize::MAX, end: None, before: last - 1, after: last });
    for (at, (_, is_end, call)) in times.iter().enumerate() {
        if !is_end {
            list[at + 1].end = Some(ends[*call]);
        }
    }

    let mut taken = vec![0u64; history.len().div_ceil(64)];
    let mut tried: HashSet<(Vec<u64>, Option<&str>)> = HashSet::new();
    let mut path: Vec<(usize, Option<&str>)> = Vec::new();
    let mut held: Option<&str> = None;
    let mut at = list[0].after;
    for _ in 0..STEPS_MAX {
        if list[0].after == last {
            return true;
        }
        let moment = &list[at];
        let bit = |call: usize| (call / 64, 1u64 << (call % 64));
        match moment.end {
            Some(end) => {
                let call = moment.call;
                let (word, mask) = bit(call);
                if let Some(next) = step(history[call], held) {
                    taken[word] |= mask;
                    if tried.insert((taken.clone(), next)) {
                        path.push((at, held));
                        held = next;
                        lift(&mut list, at);
                        lift(&mut list, end);
                        at = list[0].after;
                        continue;
                    }
                    taken[word] &= !mask;
                }
                at = list[at].after;
            }
            // The end of a call that was not taken yet: some choice before was wrong.
            None => {
                let Some((began, before)) = path.pop() else { return false };
                let call = list[began].call;
                let (word, mask) = bit(call);
                taken[word] &= !mask;
                held = before;
                if let Some(end) = list[began].end {
                    put_back(&mut list, end);
                }
                put_back(&mut list, began);
                at = list[began].after;
            }
        }
    }
    true
}

fn lift(list: &mut [Moment], at: usize) {
    let (before, after) = (list[at].before, list[at].after);
    list[before].after = after;
    list[after].before = before;
}

fn put_back(list: &mut [Moment], at: usize) {
    let (before, after) = (list[at].before, list[at].after);
    list[before].after = at;
    list[after].before = at;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calls as `(begun, ended, call, answer)`.
    fn check(history: &[(u64, u64, Call, Answer)], good: bool) {
        let operations: Vec<Operation> = history
            .iter()
            .map(|(begun, ended, call, answer)| Operation {
                client: "c".into(),
                name: "r".into(),
                call: call.clone(),
                begun: *begun,
                ended: Some(*ended),
                answer: answer.clone(),
            })
            .collect();
        let all: Vec<&Operation> = operations.iter().collect();
        assert_eq!(is_linearizable(&all), good, "{history:?}");
    }

    fn write(value: &str) -> Call {
        Call::Write(value.into())
    }

    fn swap(from: &str, to: &str) -> Call {
        Call::Swap(from.into(), to.into())
    }

    fn read(value: &str) -> Answer {
        Answer::Value(if value.is_empty() { None } else { Some(value.into()) }, 0)
    }

    #[test]
    fn good_histories_pass() {
        check(&[], true);
        check(&[(0, 1, write("a"), Answer::Done(0)), (2, 3, Call::Read, read("a"))], true);
        // Side by side: either order.
        check(&[(0, 3, write("a"), Answer::Done(0)), (1, 2, Call::Read, read(""))], true);
        check(&[(0, 3, write("a"), Answer::Done(0)), (1, 2, Call::Read, read("a"))], true);
        // Unknown: seen late, or never.
        check(
            &[(0, 1, write("a"), Answer::Unknown), (2, 3, Call::Read, read("")), (4, 5, Call::Read, read("a"))],
            true,
        );
        check(&[(0, 1, write("a"), Answer::Unknown), (2, 3, Call::Read, read(""))], true);
        check(
            &[(0, 1, Call::Create("a".into()), Answer::Done(0)), (2, 3, Call::Create("b".into()), Answer::Refused(0))],
            true,
        );
        check(
            &[
                (0, 1, write("a"), Answer::Done(0)),
                (2, 5, swap("a", "b"), Answer::Done(0)),
                (3, 4, swap("a", "c"), Answer::Refused(0)),
                (6, 7, Call::Delete, Answer::Done(0)),
                (8, 9, Call::Delete, Answer::Refused(0)),
                (10, 11, Call::Read, read("")),
            ],
            true,
        );
    }

    #[test]
    fn known_bad_histories_fail() {
        // A stale read.
        check(&[(0, 1, write("a"), Answer::Done(0)), (2, 3, Call::Read, read(""))], false);
        // A lost write.
        check(
            &[(0, 1, write("a"), Answer::Done(0)), (2, 3, write("b"), Answer::Done(0)), (4, 5, Call::Read, read("a"))],
            false,
        );
        // Two readers see two orders.
        check(
            &[
                (0, 9, write("a"), Answer::Done(0)),
                (0, 9, write("b"), Answer::Done(0)),
                (1, 2, Call::Read, read("a")),
                (3, 4, Call::Read, read("b")),
                (5, 6, Call::Read, read("a")),
            ],
            false,
        );
        // Two swaps of one value.
        check(
            &[
                (0, 1, write("a"), Answer::Done(0)),
                (2, 5, swap("a", "b"), Answer::Done(0)),
                (3, 4, swap("a", "c"), Answer::Done(0)),
            ],
            false,
        );
        // A value out of thin air, and one that comes back.
        check(&[(0, 1, Call::Read, read("x"))], false);
        check(
            &[
                (0, 1, write("a"), Answer::Done(0)),
                (2, 3, Call::Delete, Answer::Done(0)),
                (4, 5, Call::Read, read("a")),
            ],
            false,
        );
        // Refused though nothing stood in the way.
        check(&[(0, 1, Call::Create("a".into()), Answer::Refused(0))], false);
        // An unknown write takes effect after its beginning, not before.
        check(&[(0, 1, Call::Read, read("a")), (2, 3, write("a"), Answer::Unknown)], false);
    }
}
