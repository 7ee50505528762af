//! Pods as watches showed them.

use std::collections::BTreeMap;

use super::Judged;
use crate::run::history::{PodSeen, Record};

/// Once a pod has a node it keeps it; once it has succeeded or failed, or is to end, that stays so.
pub fn stay(record: &Record) -> Judged {
    let mut pods: BTreeMap<&str, &PodSeen> = BTreeMap::new();
    let mut judged = Judged::default();
    let mut restores = record.restores.iter().map(|restore| restore.lost).peekable();
    for seen in &record.pods {
        // A cluster that began anew binds again what its snapshot had not bound yet.
        while restores.next_if(|lost| *lost <= seen.at).is_some() {
            judged.checked += pods.len();
            pods.clear();
        }
        if let Some(before) = pods.insert(&seen.uid, seen) {
            let who = format!("{} ({})", seen.name, seen.uid);
            if !before.node.is_empty() && before.node != seen.node {
                judged.broken.push(format!("{who} was on {} and then on {:?}", before.node, seen.node));
            }
            if is_final(&before.phase) && before.phase != seen.phase {
                judged.broken.push(format!("{who} was {} and then {}", before.phase, seen.phase));
            }
            if before.ending && !seen.ending {
                judged.broken.push(format!("{who} was to end and then was not"));
            }
        }
    }
    judged.checked += pods.len();
    judged
}

fn is_final(phase: &str) -> bool {
    matches!(phase, "Succeeded" | "Failed")
}

/// No engine ever shows two living sandboxes, or two living containers of a name, of one pod.
pub fn once(record: &Record) -> Judged {
    Judged { checked: record.looks, broken: record.doubles.clone(), ..Judged::default() }
}

/// What is there more than once, in words; containers by pod uid and name.
pub fn doubles(containers: &[(String, String)]) -> Vec<String> {
    let mut counts: BTreeMap<&(String, String), usize> = BTreeMap::new();
    for container in containers {
        *counts.entry(container).or_default() += 1;
    }
    let many = counts.into_iter().filter(|(_, count)| *count > 1);
    many.map(|((uid, name), count)| {
        let what = if name.is_empty() { "the sandbox" } else { name };
        format!("{what} of pod {uid} runs {count} times")
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_twice_is_found() {
        let all = |list: &[(&str, &str)]| -> Vec<(String, String)> {
            list.iter().map(|(uid, name)| ((*uid).to_owned(), (*name).to_owned())).collect()
        };
        assert_eq!(doubles(&all(&[("1", ""), ("1", "web"), ("2", "")])), Vec::<String>::new());
        assert_eq!(doubles(&all(&[("1", ""), ("1", "")])), ["the sandbox of pod 1 runs 2 times"]);
        let record = Record { looks: 3, doubles: vec!["x".into()], ..Record::default() };
        assert_eq!((once(&record).checked, once(&record).broken.len()), (3, 1));
    }

    #[test]
    fn a_pod_that_moves_or_is_unbound_is_found() {
        let seen = |uid: &str, node: &str| PodSeen {
            at: 0,
            uid: uid.into(),
            name: "p".into(),
            node: node.into(),
            phase: "Running".into(),
            ending: false,
        };
        let judge = |pods: Vec<PodSeen>, broken: usize| {
            let record = Record { pods, ..Record::default() };
            assert_eq!(stay(&record).broken.len(), broken, "{:?}", record.pods);
        };
        let check = |all: &[(&str, &str)], broken: usize| {
            judge(all.iter().map(|(uid, node)| seen(uid, node)).collect(), broken);
        };
        let failed = PodSeen { phase: "Failed".into(), ..seen("1", "a") };
        let ending = PodSeen { ending: true, ..seen("1", "a") };
        judge(vec![seen("1", "a"), failed.clone(), failed.clone()], 0);
        judge(vec![failed, seen("1", "a")], 1);
        judge(vec![seen("1", "a"), ending.clone(), ending.clone()], 0);
        judge(vec![ending, seen("1", "a")], 1);
        check(&[("1", ""), ("1", "a"), ("1", "a"), ("2", "b")], 0);
        check(&[("1", "a"), ("1", "b")], 1);
        check(&[("1", "a"), ("1", "")], 1);
    }
}
