//! Counters: each read lies between what was acknowledged before it and what may have been added by its end; reads that
//! follow each other never go back.

use std::collections::BTreeMap;

use super::Judged;
use crate::run::history::{Call, Operation, Outcome, Record};

pub fn judge(record: &Record) -> Judged {
    let mut counters: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
    for one in record.operations.iter().filter(|one| one.workload == "counter") {
        counters.entry(&one.object).or_default().push(one);
    }
    let mut judged = Judged::default();
    for (name, history) in counters {
        let mut reads: Vec<(&Operation, i64)> = Vec::new();
        for one in &history {
            let Outcome::Value(text, _) = &one.outcome else { continue };
            match text.as_deref().unwrap_or("0").parse() {
                Ok(count) => reads.push((one, count)),
                Err(_) => judged.broken.push(format!("{name} holds {text:?}")),
            }
        }
        judged.checked += reads.len();
        for (read, count) in &reads {
            let sum = |counts: &dyn Fn(&Operation) -> bool| -> i64 {
                history
                    .iter()
                    .filter_map(|one| if let Call::Add(more) = one.call { counts(one).then_some(more) } else { None })
                    .sum()
            };
            let least = sum(&|one| matches!(one.outcome, Outcome::Done(_)) && one.end() < read.begun);
            let most =
                sum(&|one| matches!(one.outcome, Outcome::Done(_) | Outcome::Unknown(_)) && one.begun < read.end());
            if !(least..=most).contains(count) {
                let on = &read.on;
                judged.broken.push(format!(
                    "{name} was read as {count} on {on}, which cannot be less than {least} or more than {most}"
                ));
            }
        }
        reads.sort_by_key(|(read, _)| read.begun);
        let mut ended: Vec<(u64, i64)> = reads.iter().map(|(read, count)| (read.end(), *count)).collect();
        ended.sort_unstable();
        let (mut highest, mut at) = (0, 0);
        for (read, count) in reads {
            while at < ended.len() && ended[at].0 < read.begun {
                highest = highest.max(ended[at].1);
                at += 1;
            }
            if count < highest {
                judged.broken.push(format!("{name} was read as {highest}, and later as {count} on {}", read.on));
            }
        }
    }
    judged
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check, did, failed, refused, unknown, value};
    use super::*;

    fn add(times: (u64, u64), more: i64, outcome: Outcome) -> Operation {
        did("counter", "c", "n", times, Call::Add(more), outcome)
    }

    fn read(times: (u64, u64), text: &str) -> Operation {
        did("counter", "c", "n", times, Call::Read, value(text))
    }

    #[test]
    fn good_histories_pass() {
        check(judge, vec![], 0);
        let usual = vec![
            read((0, 1), ""),
            add((2, 3), 5, Outcome::Done(1)),
            add((4, 9), 3, Outcome::Done(2)),
            read((5, 6), "5"),
            read((7, 8), "8"),
            add((10, 11), 7, unknown()),
            add((10, 11), 2, refused()),
            add((10, 11), 2, failed()),
            read((12, 13), "8"),
            read((14, 15), "15"),
        ];
        check(judge, usual, 0);
    }

    #[test]
    fn known_bad_histories_fail() {
        let done = |times, more| add(times, more, Outcome::Done(1));
        check(judge, vec![done((0, 1), 5), read((2, 3), "0")], 1);
        check(judge, vec![done((0, 1), 5), read((2, 3), "10")], 1);
        check(judge, vec![done((0, 1), 5), add((2, 3), 2, failed()), read((4, 5), "7")], 1);
        check(judge, vec![add((0, 9), 5, unknown()), read((1, 2), "5"), read((3, 4), "0")], 1);
        check(judge, vec![done((0, 1), 5), read((2, 3), "x")], 1);
    }
}
