//! Linearizability of lists over many keys: a list is a cut through the histories of all that it shows. The order of one key's
//! values is that of the revisions that followers saw; what a list says of its own revision does not count. Cuts and calls that do not overlap in time have that order, and of any two cuts one is before the other.

use std::collections::{BTreeMap, BTreeSet};

use super::{Answer, Call, Operation, Record, is_listed};

/// Which version of each key a list saw: how many changes that key had had.
struct Cut<'a> {
    of: &'a Operation,
    versions: BTreeMap<&'a str, usize>,
}

pub fn lists_are_linearizable(record: &Record) -> Vec<String> {
    let lists = record.operations.iter().filter(|one| one.call == Call::List);
    let scopes: BTreeSet<&str> = lists.map(|one| one.name.as_str()).collect();
    scopes.into_iter().flat_map(|scope| judge(record, scope)).collect()
}

/// The lists of one scope.
fn judge(record: &Record, scope: &str) -> Vec<String> {
    // The order of one key's values, and the place of each in it; 0 stands for the time before the first.
    let mut changes: BTreeMap<&str, usize> = BTreeMap::new();
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    let mut gone: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for seen in record.events.values().filter(|seen| is_listed(scope, &seen.name)) {
        let number = changes.entry(&seen.name).or_default();
        *number += 1;
        match &seen.value {
            Some(value) => {
                places.insert(value, *number);
            }
            None => gone.entry(&seen.name).or_default().push(*number),
        }
    }
    let mut found = Vec::new();
    let mut cuts: Vec<Cut<'_>> = Vec::new();
    for one in record.operations.iter().filter(|one| one.name == scope) {
        let Answer::All(listed, _) = &one.answer else { continue };
        let mut versions = BTreeMap::new();
        for (name, value) in listed {
            match places.get(value.as_str()) {
                Some(place) => drop(versions.insert(name.as_str(), *place)),
                None => found.push(format!("{one:?} lists {value}, which nobody ever saw written")),
            }
        }
        cuts.push(Cut { of: one, versions });
    }
    for pair in 0..cuts.len() {
        // In order of their beginnings: each must be comparable with the next few, which overlap it or follow it.
        for other in cuts[pair + 1..].iter().take(NEAR) {
            found.extend(disagree(&cuts[pair], other));
        }
    }
    // A write that had ended before a list began is in it, or was overwritten.
    let mut written: Vec<(u64, &str, usize)> = Vec::new();
    for one in record.operations.iter().filter(|one| is_listed(scope, &one.name)) {
        if let (Answer::Done(_), Some(ended), Some(value)) = (&one.answer, one.ended, one.call.writes())
            && let Some(place) = places.get(value)
        {
            written.push((ended, one.name.as_str(), *place));
        }
    }
    written.sort_unstable();
    let mut latest: BTreeMap<&str, usize> = BTreeMap::new();
    let mut written = written.into_iter().peekable();
    for cut in &cuts {
        while let Some((_, name, place)) = written.next_if(|(ended, ..)| *ended < cut.of.begun) {
            let known = latest.entry(name).or_default();
            *known = place.max(*known);
        }
        for (name, place) in &latest {
            match cut.versions.get(name) {
                Some(seen) if seen < place => {
                    found.push(format!("{:?} lists version {seen} of {name}, though {place} was acknowledged", cut.of));
                }
                None if !gone.get(name).is_some_and(|gone| gone.iter().any(|at| at > place)) => {
                    found.push(format!("{:?} lacks {name}, which was written and never deleted since", cut.of));
                }
                _ => {}
            }
        }
    }
    found
}

/// Lists after one that are compared with it.
const NEAR: usize = 16;

/// Of two cuts one is before the other; and the one that ended before the other began is.
fn disagree(one: &Cut<'_>, other: &Cut<'_>) -> Option<String> {
    let both = || one.versions.iter().filter_map(|(name, place)| Some((place, other.versions.get(name)?)));
    let (is_before, is_after) = (both().any(|(a, b)| a < b), both().any(|(a, b)| a > b));
    let apart = one.of.ended.is_some_and(|ended| ended < other.of.begun);
    if is_after && (is_before || apart) {
        return Some(format!("no order explains {:?} and {:?}", one.of, other.of));
    }
    None
}
