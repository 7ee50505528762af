//! Lists that only grow: all that was ever read of one are beginnings of each other; what was acknowledged is in every later
//! read, in the order of the calls; nothing stands there twice, too early, or that certainly failed.

use std::collections::{BTreeMap, HashMap};

use super::Judged;
use crate::run::history::{Call, Operation, Outcome, Record};

pub fn judge(record: &Record) -> Judged {
    let mut lists: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
    for one in record.operations.iter().filter(|one| one.workload == "append") {
        lists.entry(&one.object).or_default().push(one);
    }
    let mut judged = Judged { checked: lists.len(), ..Judged::default() };
    for (name, history) in lists {
        judged.broken.extend(one_list(&history).into_iter().map(|what| format!("{name}: {what}")));
    }
    judged
}

fn parse(text: Option<&str>) -> Vec<u64> {
    let numbers = text.unwrap_or_default().split(',').filter(|one| !one.is_empty());
    // What is no number was appended by nobody, and is found as that.
    numbers.map(|one| one.parse().unwrap_or(u64::MAX)).collect()
}

fn one_list(history: &[&Operation]) -> Vec<String> {
    let mut found = Vec::new();
    let appends: HashMap<u64, &Operation> = history
        .iter()
        .filter_map(|one| if let Call::Append(number) = one.call { Some((number, *one)) } else { None })
        .collect();
    let mut reads: Vec<(&Operation, Vec<u64>)> = history
        .iter()
        .filter_map(|one| match &one.outcome {
            Outcome::Value(text, _) => Some((*one, parse(text.as_deref()))),
            _ => None,
        })
        .collect();
    reads.sort_by_key(|(_, items)| items.len());
    for pair in reads.windows(2) {
        if !pair[1].1.starts_with(&pair[0].1) {
            found.push(format!("{:?} is no beginning of {:?}", tail(&pair[0].1), tail(&pair[1].1)));
        }
    }
    let Some((_, longest)) = reads.last() else { return found };
    let place: HashMap<u64, usize> = longest.iter().enumerate().map(|(at, number)| (*number, at)).collect();
    if place.len() != longest.len() {
        found.push("a number stands there twice".to_owned());
    }
    for number in longest {
        match appends.get(number).map(|one| &one.outcome) {
            None => found.push(format!("nobody appended {number}")),
            Some(Outcome::Failed(_) | Outcome::Refused(_)) => {
                found.push(format!("{number} was not appended and is there"))
            }
            Some(_) => {}
        }
    }
    for (read, items) in &reads {
        // By their places only the shortest missing one counts.
        for (number, one) in &appends {
            let there = place.get(number).is_some_and(|at| *at < items.len());
            if matches!(one.outcome, Outcome::Done(_)) && one.end() < read.begun && !there {
                found.push(format!("{number} was acknowledged and is missing in a later read on {}", read.on));
            }
            if there && one.begun > read.end() {
                found.push(format!("{number} was read before it was appended"));
            }
        }
    }
    let mut by_begin: Vec<(&Operation, usize)> =
        appends.iter().filter_map(|(number, one)| Some((*one, *place.get(number)?))).collect();
    by_begin.sort_by_key(|(one, _)| one.begun);
    let acknowledged = |one: &Operation| matches!(one.outcome, Outcome::Done(_));
    for (at, (later, behind)) in by_begin.iter().enumerate() {
        let earlier =
            by_begin[..at].iter().find(|(one, place)| acknowledged(one) && one.end() < later.begun && place > behind);
        if let Some((earlier, _)) = earlier {
            found.push(format!(
                "{:?} stands before {:?}, which was acknowledged before it was asked",
                later.call, earlier.call
            ));
        }
    }
    found
}

/// The last numbers of a list, for a message.
fn tail(items: &[u64]) -> &[u64] {
    &items[items.len().saturating_sub(5)..]
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check, did, failed, refused, unknown, value};
    use super::*;

    fn append(times: (u64, u64), number: u64, outcome: Outcome) -> Operation {
        did("append", "c", "l", times, Call::Append(number), outcome)
    }

    fn read(times: (u64, u64), text: &str) -> Operation {
        did("append", "c", "l", times, Call::Read, value(text))
    }

    #[test]
    fn good_histories_pass() {
        check(judge, vec![], 0);
        let usual = vec![
            read((0, 1), ""),
            append((2, 3), 1, Outcome::Done(1)),
            append((4, 9), 2, unknown()),
            append((5, 6), 3, refused()),
            append((7, 8), 4, failed()),
            read((6, 7), "1"),
            read((10, 11), "1,2"),
            append((12, 13), 5, Outcome::Done(3)),
            read((14, 15), "1,2,5"),
        ];
        check(judge, usual, 0);
    }

    #[test]
    fn known_bad_histories_fail() {
        let done = |times, number| append(times, number, Outcome::Done(1));
        // Lost; from two histories; twice; from nowhere; failed and there.
        check(judge, vec![done((0, 1), 1), read((2, 3), "")], 1);
        check(
            judge,
            vec![append((0, 9), 1, unknown()), append((0, 9), 2, unknown()), read((1, 2), "1"), read((3, 4), "2")],
            1,
        );
        check(judge, vec![done((0, 1), 1), read((2, 3), "1,1")], 1);
        check(judge, vec![read((2, 3), "7")], 1);
        check(judge, vec![append((0, 1), 1, failed()), read((2, 3), "1")], 1);
        // In an order that time forbids; before it was asked for.
        check(judge, vec![done((0, 1), 1), done((2, 3), 2), read((4, 5), "2,1")], 1);
        check(judge, vec![read((0, 1), "1"), done((2, 3), 1)], 1);
        // A stale read: shorter than what was acknowledged.
        check(judge, vec![done((0, 1), 1), done((2, 3), 2), read((4, 5), "1"), read((6, 7), "1,2")], 1);
    }
}
