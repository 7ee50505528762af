//! What API and engines show when the faults are over and nothing is left to do.

use std::collections::BTreeMap;

use super::Judged;
use crate::run::history::Record;

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

pub fn replicas_are_reached(record: &Record) -> Judged {
    let all = record.rest.replicas.iter();
    let short = all.filter(|(_, (wanted, there))| wanted != there);
    let broken = short.map(|(name, (wanted, there))| format!("{name} wants {wanted} pods and has {there}")).collect();
    Judged { checked: record.rest.replicas.len(), broken, ..Judged::default() }
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
