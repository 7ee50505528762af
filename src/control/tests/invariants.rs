//! Every law fails on what breaks it, on nothing else, and not on what keeps it: a law that never failed proves nothing.
//!
//! Some bad states `apply` refuses to make. They are made of stored rows, whose objects nobody judges.

use std::sync::Arc;

use control::invariants::{Violation, check, check_event, check_quiescent};
use control::record;
use objects::Kinds;
use serde_json::{Value, json};
use state::{Command, EntryId, Event, Key, Op, Record, Restore, State, codec};

type Object = (&'static str, &'static str, Value);
type Rows = Vec<(Vec<u8>, Vec<u8>)>;

fn put((group, resource, object): &Object) -> state::Put {
    let kind = Kinds::builtin().by_resource(group, resource).expect("a kind");
    record::put(kind, object).expect("complete")
}

fn apply(state: &mut State, op: Op) {
    let entry = EntryId { term: 1, index: state.applied().index + 1 };
    let outcome = state.apply(entry, &Command { ops: vec![op], ..Command::default() }).outcome;
    assert_eq!(outcome.refusal, None);
}

/// A namespace, a node, and these.
fn with(objects: &[Object]) -> State {
    let mut state = State::default();
    for object in [&("", "namespaces", named("default", json!({}))), &("", "nodes", named("n1", json!({})))] {
        apply(&mut state, Op::put(put(object)));
    }
    for object in objects {
        apply(&mut state, Op::put(put(object)));
    }
    state
}

fn without(mut state: State, key: Key) -> State {
    apply(&mut state, Op::delete(key));
    state
}

fn restore(rows: &Rows) -> Result<State, String> {
    let mut restore = Restore::new();
    rows.iter().try_for_each(|(key, value)| restore.row(key, value)).map_err(|error| error.to_string())?;
    restore.finish().map_err(|error| error.to_string())
}

/// The state whose rows are these after a change, with the hash that they then have.
fn altered(state: &State, alter: impl FnOnce(&mut Rows)) -> State {
    let mut rows = codec::dump(state);
    alter(&mut rows);
    let refused = restore(&rows).expect_err("other objects have another hash");
    let hash = refused.split_once("have the hash ").and_then(|(_, rest)| rest.get(..32)).expect(&refused);
    let hash = u128::from_str_radix(hash, 16).expect("hexadecimal");
    replace(&mut rows[0].1, &state.hash().to_be_bytes(), &hash.to_be_bytes());
    restore(&rows).expect("rows of a state")
}

/// Writes `new` over every `old`, which is as long.
fn replace(bytes: &mut [u8], old: &[u8], new: &[u8]) {
    assert_eq!(old.len(), new.len());
    for at in 0..=bytes.len().saturating_sub(old.len()) {
        if bytes[at..].starts_with(old) {
            bytes[at..at + old.len()].copy_from_slice(new);
        }
    }
}

/// Writes one text over another in all rows.
fn reworded(state: &State, old: &str, new: &str) -> State {
    altered(state, |rows| rows.iter_mut().for_each(|(_, value)| replace(value, old.as_bytes(), new.as_bytes())))
}

/// An object whose uid is `uid-NAME`, with `more` in its metadata; the rest is put beside it.
fn object(name: &str, namespace: &str, more: Value, rest: Value) -> Value {
    let mut object = rest;
    object["metadata"] =
        json!({"name": name, "uid": format!("uid-{name}"), "creationTimestamp": "2026-01-02T03:04:05Z"});
    if !namespace.is_empty() {
        object["metadata"]["namespace"] = namespace.into();
    }
    for (key, value) in more.as_object().into_iter().flatten() {
        object["metadata"][key] = value.clone();
    }
    object
}

fn named(name: &str, rest: Value) -> Value {
    object(name, "", json!({}), rest)
}

fn config(name: &str, more: Value) -> Object {
    ("", "configmaps", object(name, "default", more, json!({"data": {"k": "v"}})))
}

fn service(name: &str, ip: &str) -> Object {
    let spec = json!({"type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip], "ports": [{"port": 80}]});
    ("", "services", object(name, "default", json!({}), json!({ "spec": spec })))
}

fn owned_by(name: &str) -> Value {
    json!({"ownerReferences": [
        {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": name, "uid": format!("uid-{name}"), "controller": true}
    ]})
}

fn pod(name: &str, more: Value, node: &str, phase: &str) -> Object {
    let mut pod = json!({"spec": {"containers": []}, "status": {"phase": phase}});
    if !node.is_empty() {
        pod["spec"]["nodeName"] = node.into();
    }
    ("", "pods", object(name, "default", more, pod))
}

fn set(replicas: u64) -> Object {
    let spec = json!({"replicas": replicas, "selector": {"matchLabels": {"app": "a"}}});
    ("apps", "replicasets", object("set", "default", json!({}), json!({ "spec": spec })))
}

fn deployment(more: Value, spec: Value, status: Value) -> Object {
    ("apps", "deployments", object("web", "default", more, json!({"spec": spec, "status": status})))
}

fn laws(found: Vec<Violation>) -> Vec<&'static str> {
    let mut laws: Vec<&str> = found.into_iter().map(|violation| violation.law).collect();
    laws.dedup();
    laws
}

#[test]
fn each_law_of_every_state_fails_on_what_breaks_it() {
    let two_maps = with(&[config("aa", json!({})), config("bb", json!({}))]);
    let two_services = with(&[service("aa", "10.96.0.7"), service("bb", "10.96.0.8")]);
    let younger = altered(&two_maps, |rows| {
        // The last field of a row is the revision that created the key: here one above its own.
        let created = rows.last_mut().and_then(|(_, value)| value.last_mut()).expect("a row");
        *created += 1;
    });
    let table = [
        ("one object per uid", reworded(&two_maps, "uid-bb", "uid-aa"), two_maps.clone()),
        ("one object per uid", with(&[config("aa", json!({"uid": ""}))]), two_maps.clone()),
        ("a claim has one holder", reworded(&two_services, "10.96.0.8", "10.96.0.7"), two_services.clone()),
        ("a record says its own revision", younger, two_maps.clone()),
        (
            "an object's namespace exists",
            without(two_maps.clone(), Key::namespace("default")),
            without(with(&[]), Key::namespace("default")),
        ),
    ];
    for (law, bad, good) in table {
        assert_eq!(laws(check(&bad)), [law]);
        assert_eq!(laws(check(&good)), [""; 0], "{law}");
    }
}

#[test]
fn each_law_of_a_quiet_state_fails_on_what_breaks_it() {
    let (mine, gone) =
        (|| owned_by("set"), json!({"deletionTimestamp": "2026-01-02T03:04:05Z", "finalizers": ["a/b"]}));
    let both = |mut one: Value, other: &Value| {
        one.as_object_mut().expect("an object").extend(other.as_object().expect("an object").clone());
        one
    };
    let counts = |observed: u64, all: u64, updated: u64, available: u64| {
        json!({
            "observedGeneration": observed, "replicas": all, "updatedReplicas": updated, "availableReplicas": available,
        })
    };
    let of = |spec: Value, status: Value| with(&[deployment(json!({"generation": 2}), spec, status)]);
    let two = || json!({"replicas": 2});
    let paused = json!({"replicas": 2, "paused": true});
    let full = || with(&[set(1), pod("aa", mine(), "", "Pending")]);
    let bound = || with(&[pod("aa", json!({}), "n1", "Running")]);
    let template = "a Deployment runs its template";
    let table = [
        ("a bound pod's node exists", without(bound(), Key::node("n1")), bound()),
        (
            "a dependent has a living owner",
            with(&[config("aa", mine())]),
            with(&[set(0), config("aa", mine()), config("bb", both(owned_by("other"), &gone))]),
        ),
        ("a ReplicaSet has its pods", with(&[set(1)]), full()),
        ("a ReplicaSet has its pods", with(&[set(0), pod("aa", mine(), "", "Pending")]), with(&[set(0)])),
        ("a ReplicaSet has its pods", with(&[set(1), pod("aa", mine(), "", "Failed")]), full()),
        ("a ReplicaSet has its pods", with(&[set(1), pod("aa", both(mine(), &gone), "", "Running")]), full()),
        (template, of(two(), counts(1, 2, 2, 2)), of(two(), counts(2, 2, 2, 2))),
        (template, of(two(), counts(2, 3, 2, 2)), of(two(), counts(2, 2, 2, 2))),
        (template, of(two(), counts(2, 2, 1, 2)), of(two(), counts(2, 2, 2, 2))),
        (template, of(two(), counts(2, 2, 2, 1)), of(paused, counts(2, 2, 2, 1))),
    ];
    for (row, (law, bad, good)) in table.into_iter().enumerate() {
        assert_eq!(laws(check_quiescent(&bad)), [law], "row {row}");
        assert_eq!(laws(check(&bad)), [""; 0], "row {row}: it may be so while there is something to plan");
        assert_eq!(laws(check_quiescent(&good)), [""; 0], "row {row}: {law}");
    }
}

#[test]
fn each_law_of_a_change_fails_on_what_breaks_it() {
    let kept = || config("aa", json!({}));
    let renewed = || config("aa", json!({"uid": "uid-other"}));
    let doomed = || config("aa", json!({"deletionTimestamp": "2026-01-02T03:04:05Z", "finalizers": ["a/b"]}));
    let bare = |node: &str, phase: &str| pod("aa", json!({}), node, phase);
    let moved = |node: &str| pod("aa", json!({"uid": "uid-other"}), node, "Pending");
    type Change = (Option<Object>, Option<Object>);
    let table: [(&str, Change, Change); 6] = [
        (
            "a bound pod never moves",
            (Some(bare("n1", "Pending")), Some(bare("n2", "Pending"))),
            (Some(bare("", "Pending")), Some(bare("n1", "Pending"))),
        ),
        (
            "a bound pod never moves",
            (Some(bare("n1", "Pending")), Some(bare("", "Pending"))),
            (Some(bare("n1", "Pending")), None),
        ),
        ("a key changes its uid only by deletion", (Some(kept()), Some(renewed())), (Some(kept()), Some(kept()))),
        (
            "a key changes its uid only by deletion",
            (Some(bare("n1", "Failed")), Some(moved("n2"))),
            (None, Some(moved("n2"))),
        ),
        (
            "a pod's phase never goes back",
            (Some(bare("n1", "Succeeded")), Some(bare("n1", "Running"))),
            (Some(bare("n1", "Running")), Some(bare("n1", "Succeeded"))),
        ),
        ("a deletion is never taken back", (Some(doomed()), Some(kept())), (Some(kept()), Some(doomed()))),
    ];
    for (row, (law, bad, good)) in table.into_iter().enumerate() {
        assert_eq!(laws(check_event(&event(bad))), [law], "row {row}");
        assert_eq!(laws(check_event(&event(good))), [""; 0], "row {row}: {law}");
    }
}

fn event((old, new): (Option<Object>, Option<Object>)) -> Event {
    let key = old.iter().chain(&new).next().map(|object| put(object).key).expect("a change of something");
    let version = |object: &Object| {
        let state::Put { header, body, split, managed_fields, .. } = put(object);
        Arc::new(Record { header, body, split, managed_fields, created: 1, revision: 1 })
    };
    Event { revision: 2, key, old: old.as_ref().map(version), new: new.as_ref().map(version) }
}
