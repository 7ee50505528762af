//! Which ReplicaSet belongs to which template, and the revision numbers that `kubectl rollout history` and `undo` read.
//!
//! **Invariant:** the set of the present template has the highest revision of all, also when it is an old one that a
//! rollback made current again.

use objects::meta;
use serde_json::{Map, Value, json};
use state::Command;

use super::{Set, Sets};
use crate::{Context, emit, json};

pub const REVISION: &str = "deployment.kubernetes.io/revision";
pub const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
pub const MAX: &str = "deployment.kubernetes.io/max-replicas";
pub const HASH_LABEL: &str = "pod-template-hash";
/// Annotations of a Deployment that its sets do not take over.
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED,
    MAX,
    "deprecated.deployment.rollback.to",
];
/// Bytes of the revision history kept in a set's annotation.
const HISTORY_BYTES_MAX: usize = 2000;
const NAME_LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// What makes two templates the same: everything but the hash label and fields that say nothing.
fn essence(template: &Value) -> Value {
    let mut template = template.clone();
    if let Some(labels) = template.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.shift_remove(HASH_LABEL);
    }
    prune(&mut template);
    template
}

/// Drops nulls, empty maps and empty lists out of maps. (Not `false` and 0: they can differ from the default.)
fn prune(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.values_mut().for_each(prune);
            // `emptyDir: {}` and its like say something by being there; equal templates keep them alike.
            map.retain(|_, value| !value.is_null());
            for name in ["metadata", "labels", "annotations", "securityContext", "resources"] {
                if map.get(name).is_some_and(|value| value.as_object().is_some_and(Map::is_empty)) {
                    map.shift_remove(name);
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(prune),
        _ => {}
    }
}

/// The hash of the present template, in letters that fit a name.
pub fn hash(deployment: &Value) -> String {
    let mut text = String::new();
    json::canonical(&essence(json::at(deployment, "spec.template")), &mut text);
    let mut bytes = text.into_bytes();
    if let Some(collisions) = json::int(deployment, "status.collisionCount") {
        bytes.extend_from_slice(&collisions.to_be_bytes());
    }
    let letter = |digit: u8| char::from(NAME_LETTERS[usize::from(digit) % NAME_LETTERS.len()]);
    json::fnv32(&bytes).to_string().bytes().map(letter).collect()
}

/// The oldest set with the present template. A set with the template's hash counts as such too: a later version that
/// writes a default differently must not start a rollout.
pub fn find_new(deployment: &Value, sets: &[Set]) -> Option<usize> {
    let wanted = essence(json::at(deployment, "spec.template"));
    let equal = |set: &Set| essence(json::at(&set.object, "spec.template")) == wanted;
    sets.iter().position(equal).or_else(|| {
        let hash = hash(deployment);
        sets.iter().position(|set| json::entry(&set.object, "metadata.labels", HASH_LABEL) == Some(&hash))
    })
}

/// The ReplicaSet of the present template, of size 0.
pub fn new_set(deployment: &Value, name: &str, hash: &str) -> Value {
    let mut template = json::at(deployment, "spec.template").clone();
    json::set_entry(&mut template, "metadata.labels", HASH_LABEL, hash.into());
    let mut selector = json::at(deployment, "spec.selector").clone();
    json::set_entry(&mut selector, "matchLabels", HASH_LABEL, hash.into());
    let mut set = json!({
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": name,
            "namespace": meta::namespace(deployment),
            "labels": json::at(&template, "metadata.labels"),
            "ownerReferences": [meta::owner_reference(deployment)],
        },
        "spec": { "replicas": 0, "selector": selector, "template": template },
    });
    let min_ready = json::count(deployment, "spec.minReadySeconds");
    if min_ready != 0 {
        json::set(&mut set, "spec.minReadySeconds", min_ready.into());
    }
    set
}

fn revision(object: &Value) -> i64 {
    json::entry(object, "metadata.annotations", REVISION).and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// Brings revision, copied annotations and minReadySeconds of the new set up to date, and the Deployment's revision.
pub fn sync(deployment: &mut Value, sets: &mut Sets, cx: &Context) {
    let highest_old = sets.old.iter().map(|set| revision(&set.object)).max().unwrap_or(0);
    let Some(set) = &mut sets.new else { return };
    if let Some(annotations) = json::at(deployment, "metadata.annotations").as_object() {
        for (key, value) in annotations.iter().filter(|(key, _)| !NOT_COPIED.contains(&key.as_str())) {
            json::set_entry(&mut set.object, "metadata.annotations", key, value.clone());
        }
    }
    let present = revision(&set.object);
    if present < highest_old + 1 {
        let next = (highest_old + 1).to_string();
        json::set_entry(&mut set.object, "metadata.annotations", REVISION, next.into());
        if present > 0 {
            let history = history(&set.object, present);
            json::set_entry(&mut set.object, "metadata.annotations", REVISION_HISTORY, history.into());
        }
    }
    let min_ready = json::count(deployment, "spec.minReadySeconds");
    if json::count(&set.object, "spec.minReadySeconds") != min_ready {
        json::set(&mut set.object, "spec.minReadySeconds", min_ready.into());
    }
    let now_at = revision(&set.object).to_string();
    if json::entry(deployment, "metadata.annotations", REVISION) != Some(&now_at) {
        json::set_entry(deployment, "metadata.annotations", REVISION, now_at.into());
    }
    super::status::note_new_set(deployment, &sets.new, cx);
}

/// The revisions a set had before, with one more.
fn history(set: &Value, revision: i64) -> String {
    let mut list: Vec<String> = json::entry(set, "metadata.annotations", REVISION_HISTORY)
        .map(|text| text.split(',').filter(|part| !part.is_empty()).map(str::to_owned).collect())
        .unwrap_or_default();
    list.push(revision.to_string());
    while list.iter().map(|part| part.len() + 1).sum::<usize>() > HISTORY_BYTES_MAX {
        list.remove(0);
    }
    list.join(",")
}

/// Deletes the old sets beyond `revisionHistoryLimit`, lowest revision first, if they are empty.
pub fn clean_up(deployment: &Value, sets: &Sets) -> Vec<Command> {
    let Some(limit) = json::int(deployment, "spec.revisionHistoryLimit").and_then(|n| usize::try_from(n).ok()) else {
        return Vec::new();
    };
    let mut old: Vec<&Set> = sets
        .old
        .iter()
        .filter(|set| set.record.as_ref().is_some_and(|record| record.header.deletion_ms == 0))
        .collect();
    old.sort_by_key(|set| revision(&set.object));
    let surplus = old.len().saturating_sub(limit);
    old.truncate(surplus);
    old.into_iter()
        .filter(|set| {
            let settled = meta::generation(&set.object) <= json::count(&set.object, "status.observedGeneration");
            set.actual == 0 && set.replicas == 0 && set.before == 0 && settled
        })
        .filter_map(|set| set.record.as_ref().map(|record| emit::remove(&set.key, record)))
        .collect()
}
