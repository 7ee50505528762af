//! Sets: every acknowledged element is in every list that began after its answer, on whichever master; no list holds an
//! element before somebody asked for it, or one that certainly failed.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::Judged;
use crate::run::history::{Call, Micros, Operation, Outcome, Record, Restore};

/// What is known of one element.
#[derive(Default)]
struct Element {
    begun: Micros,
    acknowledged: Option<Micros>,
    possible: bool,
    times: usize,
}

pub fn judge(record: &Record) -> Judged {
    let mut sets: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
    for one in record.operations.iter().filter(|one| one.workload == "set") {
        sets.entry(&one.object).or_default().push(one);
    }
    let mut judged = Judged::default();
    for (set, history) in sets {
        one_set(set, &history, &record.restores, &mut judged);
    }
    judged
}

/// Whether what was acknowledged then may be missing in a list that began at this time.
fn undone(restores: &[Restore], acknowledged: Micros, begun: Micros) -> bool {
    restores.iter().any(|restore| restore.saved <= acknowledged && acknowledged < begun && restore.lost <= begun)
}

fn one_set(set: &str, history: &[&Operation], restores: &[Restore], judged: &mut Judged) {
    let mut elements: BTreeMap<&str, Element> = BTreeMap::new();
    for one in history {
        let Call::Create(name) = &one.call else { continue };
        let element = elements.entry(name).or_insert_with(|| Element { begun: one.begun, ..Element::default() });
        match &one.outcome {
            Outcome::Done(_) => {
                element.times += 1;
                element.acknowledged = Some(element.acknowledged.unwrap_or(Micros::MAX).min(one.end()));
                element.possible = true;
            }
            Outcome::Unknown(_) => element.possible = true,
            _ => {}
        }
    }
    judged.checked += elements.len();
    for (name, element) in elements.iter().filter(|(_, element)| element.times > 1 && restores.is_empty()) {
        judged.broken.push(format!("{name} was created {} times", element.times));
    }
    let mut lost: BTreeMap<&str, String> = BTreeMap::new();
    let mut strange: BTreeSet<String> = BTreeSet::new();
    for list in history {
        let Outcome::Names(names, _) = &list.outcome else { continue };
        let names: HashSet<&str> = names.iter().map(String::as_str).collect();
        for (name, element) in &elements {
            let must = |at: Micros| at < list.begun && !undone(restores, at, list.begun);
            if element.acknowledged.is_some_and(must) && !names.contains(name) {
                let words = || format!("{name} was acknowledged and is missing in a list of {set} on {}", list.on);
                lost.entry(name).or_insert_with(words);
            }
        }
        for name in names {
            match elements.get(name) {
                None => drop(strange.insert(format!("{name} is in {set} and nobody created it"))),
                Some(element) if !element.possible => {
                    strange.insert(format!("{name} certainly failed and is in {set}"));
                }
                Some(element) if element.begun > list.end() => {
                    strange.insert(format!("{name} was in {set} before it was created"));
                }
                Some(_) => {}
            }
        }
    }
    judged.broken.extend(lost.into_values());
    judged.broken.extend(strange);
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check, did, failed, refused, unknown};
    use super::*;

    fn calls(all: &[((u64, u64), &str, Outcome)]) -> Vec<Operation> {
        let call = |name: &str| if name.is_empty() { Call::List } else { Call::Create(name.into()) };
        all.iter().map(|(times, name, outcome)| did("set", "c", "s", *times, call(name), outcome.clone())).collect()
    }

    fn names(all: &[&str]) -> Outcome {
        Outcome::Names(all.iter().map(|name| (*name).to_owned()).collect(), 9)
    }

    #[test]
    fn good_histories_pass() {
        check(judge, vec![], 0);
        let usual = [
            ((0, 1), "a", Outcome::Done(1)),
            ((2, 3), "b", unknown()),
            ((2, 6), "c", Outcome::Done(2)),
            ((4, 5), "", names(&["a", "b"])),
            ((7, 8), "a", refused()),
            ((9, 10), "d", failed()),
            ((11, 12), "", names(&["a", "b", "c"])),
        ];
        check(judge, calls(&usual), 0);
    }

    #[test]
    fn a_restore_takes_back_what_came_after_its_snapshot_only() {
        let all = [
            ((0, 1), "a", Outcome::Done(1)),
            ((4, 5), "b", Outcome::Done(2)),
            ((6, 7), "", names(&["a", "b"])),
            ((20, 21), "", names(&["a"])),
        ];
        let judged = |restores: Vec<Restore>, all: &[((u64, u64), &str, Outcome)]| {
            judge(&Record { operations: calls(all), restores, ..Record::default() }).broken.len()
        };
        assert_eq!(judged(vec![], &all), 1);
        assert_eq!(judged(vec![Restore { saved: 3, lost: 10 }], &all), 0);
        // What the snapshot must have held, and what was gone before anything was lost.
        let early = [((0, 1), "a", Outcome::Done(1)), ((20, 21), "", names(&[]))];
        assert_eq!(judged(vec![Restore { saved: 3, lost: 10 }], &early), 1);
        assert_eq!(judged(vec![Restore { saved: 0, lost: 30 }], &early), 1);
    }

    #[test]
    fn known_bad_histories_fail() {
        check(judge, calls(&[((0, 1), "a", Outcome::Done(1)), ((2, 3), "", names(&[]))]), 1);
        check(judge, calls(&[((0, 1), "a", failed()), ((2, 3), "", names(&["a"]))]), 1);
        check(judge, calls(&[((0, 1), "", names(&["x"]))]), 1);
        check(judge, calls(&[((0, 1), "", names(&["a"])), ((2, 3), "a", Outcome::Done(1))]), 1);
        check(judge, calls(&[((0, 1), "a", Outcome::Done(1)), ((2, 3), "a", Outcome::Done(2))]), 1);
    }
}
