//! The laws, as checks of one state, of a quiet state and of a change; used by tests, simulation and chaos. To add one: a
//! function and a row.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use objects::{Kinds, quota};
use serde_json::Value;
use state::{Bounds, Event, Key, Record, Revision, State, bounds};

use crate::controllers::gc;
use crate::{emit, json, record};

/// One broken law.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub law: &'static str,
    pub what: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.law, self.what)
    }
}

type Law<T> = (&'static str, fn(&T) -> Vec<String>);

/// What holds in every state.
const ALWAYS: &[Law<State>] = &[
    ("one object per uid", one_object_per_uid),
    ("a claim has one holder", one_holder_per_claim),
    ("a record says its own revision", revisions_in_bounds),
    ("an object's namespace exists", namespaces_exist),
];

/// What holds once there is nothing left to plan.
const QUIESCENT: &[Law<State>] = &[
    ("a bound pod's node exists", nodes_exist),
    ("a dependent has a living owner", owners_exist),
    ("a ReplicaSet has its pods", replicas_reached),
    ("a Deployment runs its template", deployments_complete),
    ("a ResourceQuota says what is used", quotas_told),
];

/// What holds of every change.
const CHANGES: &[Law<Event>] = &[
    ("a bound pod never moves", pods_stay),
    ("a key changes its uid only by deletion", uids_stay),
    ("a pod's phase never goes back", phases_advance),
    ("a deletion is never taken back", deletions_stay),
];

/// The laws that hold in every state.
pub fn check(root: &State) -> Vec<Violation> {
    judge(ALWAYS, root)
}

/// The laws that hold once nothing is left to plan, all pods are ready and nodes suffice.
pub fn check_quiescent(root: &State) -> Vec<Violation> {
    let mut violations = check(root);
    violations.extend(judge(QUIESCENT, root));
    violations
}

/// The laws of one change.
pub fn check_event(event: &Event) -> Vec<Violation> {
    judge(CHANGES, event)
}

/// The law of changes one after another: none after `since` takes more than the quotas of its namespace leave. Changes made
/// under rules older than [`bounds::VERSION`] do not belong here. Nothing where history no longer reaches back that far.
pub fn check_history(root: &State, since: Revision) -> Vec<Violation> {
    let events: Vec<&Arc<Event>> = root.events_after(since).into_iter().flatten().collect();
    let bounds = |record: &Arc<Record>| Bounds::of(&record.header).is_some();
    let concerned = |event: &Event| {
        root.bounding(&event.key.namespace).next().is_some()
            || [&event.old, &event.new].into_iter().flatten().any(bounds)
    };
    let namespaces: BTreeSet<&str> =
        events.iter().filter(|event| concerned(event)).map(|event| event.key.namespace.as_str()).collect();
    let broken = namespaces.into_iter().flat_map(|namespace| beyond_quota(root, namespace, &events));
    broken.map(|what| Violation { law: "no quota is ever exceeded", what }).collect()
}

/// Goes back to before the events, and through them once more, adding up object by object.
fn beyond_quota(root: &State, namespace: &str, events: &[&Arc<Event>]) -> Vec<String> {
    let namespaced = Kinds::builtin().all().filter(|kind| kind.namespaced);
    let all = namespaced.flat_map(|kind| root.list(kind.group, kind.plural, Some(namespace)));
    let mut objects: BTreeMap<&Key, &Arc<Record>> = all.collect();
    let events: Vec<&&Arc<Event>> = events.iter().filter(|event| event.key.namespace == namespace).collect();
    let put = |objects: &mut BTreeMap<_, _>, key, record| match record {
        Some(record) => objects.insert(key, record),
        None => objects.remove(key),
    };
    for event in events.iter().rev() {
        put(&mut objects, &event.key, event.old.as_ref());
    }
    let mut found = Vec::new();
    for event in events {
        let others = objects.iter().filter(|(by, _)| **by != &event.key);
        let quotas: Vec<_> = others.filter_map(|(by, record)| Some((*by, Bounds::of(&record.header)?))).collect();
        put(&mut objects, &event.key, event.new.as_ref());
        for (by, quota) in quotas {
            let takes = |record: Option<&Arc<Record>>, thing| {
                record.map_or(0, |record| takes(&event.key, record, &quota, thing))
            };
            for bound in &quota.all {
                let thing = bound.thing.as_str();
                if takes(event.new.as_ref(), thing) <= takes(event.old.as_ref(), thing) {
                    continue;
                }
                let taken = taken(&objects, &quota, thing);
                if taken > u128::from(bound.limit) {
                    let (revision, name, limit) = (event.revision, &bound.name, bound.limit);
                    found.push(format!("{by}: {name} at {taken} of {limit} by {} at revision {revision}", event.key));
                }
            }
        }
    }
    found
}

fn takes(key: &Key, record: &Record, quota: &Bounds, thing: &str) -> u128 {
    if !quota.count(bounds::class(&record.header)) {
        return 0;
    }
    let used = bounds::uses(&record.header).find(|(used, _)| *used == thing).map_or(0, |(_, n)| n);
    u128::from(used) + u128::from(bounds::count(key) == thing)
}

fn taken(objects: &BTreeMap<&Key, &Arc<Record>>, quota: &Bounds, thing: &str) -> u128 {
    objects.iter().map(|(key, record)| takes(key, record, quota, thing)).sum()
}

fn quotas_told(root: &State) -> Vec<String> {
    let mut found = Vec::new();
    for (key, present) in root.list("", "resourcequotas", None).filter(|(_, quota)| quota.header.deletion_ms == 0) {
        let (object, all) = (record::parse(present), Bounds::of(&present.header).unwrap_or_default());
        for bound in &all.all {
            let used = quota::quantity(&bound.name, root.taken(&key.namespace, &all, &bound.thing)).to_string();
            let told = json::entry(&object, "status.used", &bound.name);
            if told != Some(used.as_str()) {
                found.push(format!("{key}: {} is {used}, told {told:?}", bound.name));
            }
        }
    }
    found
}

fn judge<T>(laws: &'static [Law<T>], of: &T) -> Vec<Violation> {
    laws.iter().flat_map(|(law, check)| check(of).into_iter().map(|what| Violation { law, what })).collect()
}

fn one_object_per_uid(root: &State) -> Vec<String> {
    let mut holders: BTreeMap<&str, &Key> = BTreeMap::new();
    let mut found = Vec::new();
    for (key, object) in emit::everything(root) {
        let uid = object.header.uid.as_str();
        if uid.is_empty() {
            found.push(format!("{key} has no uid"));
        } else if let Some(other) = holders.insert(uid, key) {
            found.push(format!("{uid} is {other} and {key}"));
        }
    }
    found
}

fn one_holder_per_claim(root: &State) -> Vec<String> {
    let mut holders: BTreeMap<&str, &Key> = BTreeMap::new();
    let mut found = Vec::new();
    for (key, object) in emit::everything(root) {
        for claim in &object.header.claims {
            if let Some(other) = holders.insert(claim, key) {
                found.push(format!("{claim} is held by {other} and {key}"));
            }
            if root.claimed(claim) != Some(key) {
                found.push(format!("{claim} of {key} is indexed for {:?}", root.claimed(claim)));
            }
        }
    }
    found
}

fn revisions_in_bounds(root: &State) -> Vec<String> {
    emit::everything(root)
        .filter(|(_, object)| object.revision > root.revision() || object.created > object.revision)
        .map(|(key, object)| {
            format!("{key} at {} created at {} in a store at {}", object.revision, object.created, root.revision())
        })
        .collect()
}

fn namespaces_exist(root: &State) -> Vec<String> {
    emit::everything(root)
        .filter(|(key, _)| !key.namespace.is_empty() && root.get(&Key::namespace(&key.namespace)).is_none())
        .map(|(key, _)| key.to_string())
        .collect()
}

fn nodes_exist(root: &State) -> Vec<String> {
    root.list("", "pods", None)
        .filter(|(_, pod)| !pod.header.node.is_empty() && root.get(&Key::node(&pod.header.node)).is_none())
        .map(|(key, pod)| format!("{key} on {}", pod.header.node))
        .collect()
}

fn owners_exist(root: &State) -> Vec<String> {
    emit::everything(root)
        .filter(|(_, object)| object.header.deletion_ms == 0 && !object.header.owners.is_empty())
        .filter(|(_, object)| object.header.owners.iter().all(|owner| root.by_uid(&owner.uid).is_none()))
        .filter(|(key, object)| !gc::has_unknown_owner(key, object))
        .map(|(key, _)| key.to_string())
        .collect()
}

fn replicas_reached(root: &State) -> Vec<String> {
    let mut found = Vec::new();
    for (key, present) in root.list("apps", "replicasets", None).filter(|(_, set)| set.header.deletion_ms == 0) {
        let wanted = json::int(&record::parse(present), "spec.replicas").unwrap_or(1);
        let has = root
            .owned_by(&present.header.uid)
            .filter(|key| key.resource == "pods")
            .filter_map(|key| root.get(key))
            .filter(|pod| pod.header.deletion_ms == 0 && !emit::is_finished(pod))
            .count();
        if i64::try_from(has) != Ok(wanted) {
            found.push(format!("{key} has {has} of {wanted}"));
        }
    }
    found
}

fn deployments_complete(root: &State) -> Vec<String> {
    let mut found = Vec::new();
    for (key, present) in root.list("apps", "deployments", None).filter(|(_, d)| d.header.deletion_ms == 0) {
        let deployment: Value = record::parse(present);
        if json::flag(&deployment, "spec.paused") {
            continue;
        }
        let wanted = json::int(&deployment, "spec.replicas").unwrap_or(1);
        let counts = ["replicas", "updatedReplicas", "availableReplicas"]
            .map(|name| json::count(&deployment, &format!("status.{name}")));
        let observed = json::count(&deployment, "status.observedGeneration") == present.header.generation;
        if !observed || counts.iter().any(|count| *count != wanted) {
            found.push(format!("{key} wants {wanted}, has (all, updated, available) {counts:?}"));
        }
    }
    found
}

/// Old and new version of a changed object that stayed the same object.
fn versions(event: &Event) -> Option<(&Record, &Record)> {
    let (old, new) = (event.old.as_ref()?, event.new.as_ref()?);
    (old.header.uid == new.header.uid).then_some((old, new))
}

fn pods_stay(event: &Event) -> Vec<String> {
    versions(event)
        .filter(|(old, new)| !old.header.node.is_empty() && old.header.node != new.header.node)
        .map(|(old, new)| format!("{} from {} to {:?}", event.key, old.header.node, new.header.node))
        .into_iter()
        .collect()
}

fn uids_stay(event: &Event) -> Vec<String> {
    match (&event.old, &event.new) {
        (Some(old), Some(new)) if old.header.uid != new.header.uid => vec![event.key.to_string()],
        _ => Vec::new(),
    }
}

fn phases_advance(event: &Event) -> Vec<String> {
    let finished = |(old, new): &(&Record, &Record)| emit::is_finished(old) && !emit::is_finished(new);
    let pod = event.key.group.is_empty() && event.key.resource == "pods";
    versions(event)
        .filter(|versions| pod && finished(versions))
        .map(|(old, new)| {
            let phase = |pod: &Record| emit::field(pod, "status.phase").to_owned();
            format!("{} from {} to {}", event.key, phase(old), phase(new))
        })
        .into_iter()
        .collect()
}

fn deletions_stay(event: &Event) -> Vec<String> {
    versions(event)
        .filter(|(old, new)| old.header.deletion_ms != 0 && new.header.deletion_ms == 0)
        .map(|_| event.key.to_string())
        .into_iter()
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use state::{Command, EntryId, Op, RaiseVersion, op};

    use super::*;

    #[test]
    fn a_quota_that_was_exceeded_is_found_and_one_set_below_what_is_used_is_not() {
        let raise = |version: u32| Op { kind: Some(op::Kind::RaiseVersion(RaiseVersion { version })) };
        let put = |resource: &str, object: Value| {
            Op::put(record::put(emit::kind("", resource).expect("a kind"), &object).expect("complete"))
        };
        let named = |name: &str| json!({ "metadata": { "name": name, "namespace": "x", "uid": name } });
        let quota = |room: u32| {
            let mut quota = named("q");
            quota["spec"]["hard"]["configmaps"] = room.to_string().into();
            put("resourcequotas", quota)
        };
        // Rules older than quotas let through what is to be found.
        for (version, found) in [(bounds::VERSION, 0), (bounds::VERSION - 1, 1)] {
            let mut root = State::default();
            let ops = [
                raise(version),
                put("namespaces", json!({ "metadata": { "name": "x", "uid": "x" } })),
                quota(2),
                put("configmaps", named("a")),
                put("configmaps", named("b")),
                quota(1),
                put("configmaps", named("c")),
                put("configmaps", named("a")),
            ];
            for op in ops {
                let entry = EntryId { term: 1, index: root.applied().index + 1 };
                root.apply(entry, &Command { ops: vec![op], ..Command::default() });
            }
            let broken = check_history(&root, 0);
            assert_eq!(broken.len(), found, "{broken:?}");
            assert!(
                broken.iter().all(|broken| broken.what.contains("configmaps at 3 of 1 by configmaps/x/c")),
                "{broken:?}"
            );
        }
    }
}
