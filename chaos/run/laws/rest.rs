//! What API and engines show when the faults are over and nothing is left to do.

use std::collections::{BTreeMap, BTreeSet};

use super::Judged;
use crate::run::history::{Call, Outcome, Record};

/// Every master lists the same objects at the same revisions.
pub fn views_are_equal(record: &Record) -> Judged {
    let mut judged = Judged { checked: record.rest.views.len(), ..Judged::default() };
    let mut views = record.rest.views.iter();
    let Some((first, expected)) = views.next() else { return judged };
    for (master, view) in views {
        let differs = |name: &&String| expected.get(*name) != view.get(*name);
        for name in expected.keys().chain(view.keys().filter(|name| !expected.contains_key(*name))).filter(differs) {
            let (here, there) = (expected.get(name), view.get(name));
            judged.broken.push(format!("{name}: {first} shows {here:?}, {master} {there:?}"));
        }
    }
    judged
}

/// Every Deployment that a client was told it has is there, wants what was asked of it last, and has it.
pub fn replicas_are_reached(record: &Record) -> Judged {
    let rest = &record.rest.replicas;
    let short = rest.iter().filter(|(_, (wanted, there))| wanted != there);
    let mut broken: Vec<String> =
        short.map(|(name, (wanted, there))| format!("{name} wants {wanted} pods and has {there}")).collect();
    for (name, asked) in asked(record) {
        match rest.get(name) {
            None if asked.certainly_there => broken.push(format!("{name} was acknowledged, and is not there")),
            Some((wanted, _)) if !asked.replicas.contains(wanted) => {
                broken.push(format!("{name} wants {wanted} pods, where {:?} were asked for", asked.replicas));
            }
            _ => {}
        }
    }
    Judged { checked: rest.len(), broken, ..Judged::default() }
}

/// What may stand in a Deployment.
#[derive(Default)]
struct Asked {
    replicas: BTreeSet<u64>,
    certainly_there: bool,
}

/// By Deployment, from the calls of the one client that has it. After a restore nothing of before can be told.
fn asked(record: &Record) -> BTreeMap<&str, Asked> {
    let mut all: BTreeMap<&str, Asked> = BTreeMap::new();
    if !record.restores.is_empty() {
        return all;
    }
    for one in &record.operations {
        let Call::Scale(replicas, _) = one.call else { continue };
        let asked = all.entry(&one.object).or_default();
        match one.outcome {
            Outcome::Done(_) => *asked = Asked { replicas: [u64::from(replicas)].into(), certainly_there: true },
            Outcome::Unknown(_) => {
                asked.replicas.insert(u64::from(replicas));
            }
            _ => {}
        }
    }
    all
}

/// No container without a pod, no pod without a sandbox, no sandbox or container twice.
pub fn no_orphans(record: &Record) -> Judged {
    let rest = &record.rest;
    let mut judged = Judged { checked: rest.containers.len(), ..Judged::default() };
    if !rest.engines {
        return judged;
    }
    let mut counts: BTreeMap<&(String, String), usize> = BTreeMap::new();
    for container in &rest.containers {
        *counts.entry(container).or_default() += 1;
    }
    for ((uid, name), count) in counts {
        let what = if name.is_empty() { "a sandbox".to_owned() } else { format!("the container {name}") };
        match rest.pods.get(uid) {
            None => judged.broken.push(format!("{what} of a pod that is not there: {uid}")),
            Some(pod) if count > 1 => judged.broken.push(format!("{what} of {pod} runs {count} times")),
            Some(_) => {}
        }
    }
    for (uid, pod) in &rest.pods {
        if !rest.containers.iter().any(|(of, name)| of == uid && name.is_empty()) {
            judged.broken.push(format!("{pod} runs and has no sandbox"));
        }
    }
    judged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::history::Rest;

    fn record(rest: Rest) -> Record {
        Record { rest, ..Record::default() }
    }

    #[test]
    fn different_views_are_found() {
        let check = |views: &[&[(&str, &str)]], broken: usize| {
            let view = |entries: &&[(&str, &str)]| {
                entries.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
            };
            let views = views.iter().enumerate().map(|(at, entries)| (format!("m{at}"), view(entries))).collect();
            let judged = views_are_equal(&record(Rest { views, ..Rest::default() }));
            assert_eq!(judged.broken.len(), broken, "{:?}", judged.broken);
        };
        check(&[], 0);
        check(&[&[("a", "1"), ("b", "2")], &[("a", "1"), ("b", "2")]], 0);
        check(&[&[("a", "1"), ("b", "2")], &[("a", "1"), ("b", "3")]], 1);
        check(&[&[("a", "1")], &[("b", "1")]], 2);
    }

    #[test]
    fn missing_replicas_are_found() {
        let check = |wanted: u64, there: u64, broken: usize| {
            let replicas = [("d".to_owned(), (wanted, there))].into();
            assert_eq!(replicas_are_reached(&record(Rest { replicas, ..Rest::default() })).broken.len(), broken);
        };
        check(3, 3, 0);
        check(3, 2, 1);
        check(3, 4, 1);
    }

    #[test]
    fn replicas_are_those_that_were_asked_for() {
        use super::super::testing::{did, refused, unknown};
        let scale = |replicas, outcome| did("deployments", "c", "d", (0, 1), Call::Scale(replicas, 1), outcome);
        let check = |operations: Vec<_>, there: Option<u64>, broken: usize| {
            let replicas = there.map(|there| ("d".to_owned(), (there, there))).into_iter().collect();
            let rest = Rest { replicas, ..Rest::default() };
            let judged = replicas_are_reached(&Record { operations, rest, ..Record::default() });
            assert_eq!(judged.broken.len(), broken, "{:?}", judged.broken);
        };
        check(vec![scale(2, unknown())], None, 0);
        check(vec![scale(2, Outcome::Done(1)), scale(3, refused())], Some(2), 0);
        check(vec![scale(2, Outcome::Done(1)), scale(3, unknown())], Some(3), 0);
        check(vec![scale(2, Outcome::Done(1)), scale(3, Outcome::Done(2))], Some(2), 1);
        check(vec![scale(2, Outcome::Done(1))], None, 1);
    }

    #[test]
    fn orphans_and_doubles_are_found() {
        let check = |pods: &[&str], containers: &[(&str, &str)], broken: usize| {
            let pods = pods.iter().map(|uid| ((*uid).to_owned(), format!("pod-{uid}"))).collect();
            let containers = containers.iter().map(|(uid, name)| ((*uid).to_owned(), (*name).to_owned())).collect();
            let rest = Rest { pods, containers, engines: true, ..Rest::default() };
            let judged = no_orphans(&record(rest));
            assert_eq!(judged.broken.len(), broken, "{:?}", judged.broken);
        };
        check(&["1"], &[("1", ""), ("1", "web")], 0);
        check(&[], &[("1", ""), ("1", "web")], 2);
        check(&["1"], &[("1", ""), ("1", ""), ("1", "web")], 1);
        check(&["1"], &[("1", ""), ("1", "web"), ("1", "web")], 1);
        check(&["1", "2"], &[("1", ""), ("1", "web")], 1);
    }
}
