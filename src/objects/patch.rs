//! The patch types of the API: JSON Patch, merge patch and strategic merge patch.
//!
//! Strategic merge knows which lists merge, and by which key, from one table of types below; what the table does not
//! name merges as a map or is replaced as a list. Directives: `$patch`, `$retainKeys`, `$setElementOrder/<list>`,
//! `$deleteFromPrimitiveList/<list>`.

use serde_json::{Map, Value};

use crate::Kind;

/// A JSON Patch of more operations is refused.
const OPERATIONS_MAX: usize = 10_000;
/// Bytes that the `copy` operations of one JSON Patch copy together: each may double the object.
const COPIED_MAX: usize = 3 << 20;

/// Longer lists are not merged: it takes time that grows with their square.
const MERGED_MAX: usize = 5_000;

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const ELEMENT_ORDER: &str = "$setElementOrder/";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";

/// Why a patch cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// It is no patch (400).
    #[error("{0}")]
    Malformed(String),
    /// It has too many operations (413).
    #[error("the allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {0}")]
    TooMany(usize),
    /// It does not fit this object: a failed `test`, a missing path (422).
    #[error("the server rejected our request due to an error in our request: {0}")]
    Failed(String),
}

fn malformed(message: impl Into<String>) -> PatchError {
    PatchError::Malformed(message.into())
}

/// How one member of a type merges.
enum Member {
    /// A map with members of its own.
    Object(&'static Type),
    /// A list of maps, merged by a key.
    Merge(&'static str, &'static Type),
    /// A list of scalars used as a set.
    Set,
}

/// The members of a type that do not simply merge as maps or replace as lists.
pub(crate) struct Type(&'static [(&'static str, Member)]);

use Member::{Merge, Object, Set};

static PLAIN: Type = Type(&[]);
static META: Type = Type(&[("ownerReferences", Merge("uid", &PLAIN)), ("finalizers", Set)]);
static CONTAINER: Type = Type(&[
    ("ports", Merge("containerPort", &PLAIN)),
    ("env", Merge("name", &PLAIN)),
    ("volumeMounts", Merge("mountPath", &PLAIN)),
    ("volumeDevices", Merge("devicePath", &PLAIN)),
]);
static POD_SPEC: Type = Type(&[
    ("containers", Merge("name", &CONTAINER)),
    ("initContainers", Merge("name", &CONTAINER)),
    ("ephemeralContainers", Merge("name", &CONTAINER)),
    ("volumes", Merge("name", &PLAIN)),
    ("imagePullSecrets", Merge("name", &PLAIN)),
    ("hostAliases", Merge("ip", &PLAIN)),
    ("topologySpreadConstraints", Merge("topologyKey", &PLAIN)),
    ("resourceClaims", Merge("name", &PLAIN)),
    ("schedulingGates", Merge("name", &PLAIN)),
]);
static POD_STATUS: Type = Type(&[
    ("conditions", Merge("type", &PLAIN)),
    ("podIPs", Merge("ip", &PLAIN)),
    ("hostIPs", Merge("ip", &PLAIN)),
    ("resourceClaimStatuses", Merge("name", &PLAIN)),
]);
static TEMPLATE: Type = Type(&[("metadata", Object(&META)), ("spec", Object(&POD_SPEC))]);
static TEMPLATED_SPEC: Type = Type(&[("template", Object(&TEMPLATE))]);
static JOB_TEMPLATE: Type = Type(&[("metadata", Object(&META)), ("spec", Object(&TEMPLATED_SPEC))]);
static CRON_JOB_SPEC: Type = Type(&[("jobTemplate", Object(&JOB_TEMPLATE))]);
static CONDITIONS: Type = Type(&[("conditions", Merge("type", &PLAIN))]);
static NODE_SPEC: Type = Type(&[("podCIDRs", Set)]);
static NODE_STATUS: Type = Type(&[("conditions", Merge("type", &PLAIN)), ("addresses", Merge("type", &PLAIN))]);
static SERVICE_SPEC: Type = Type(&[("ports", Merge("port", &PLAIN))]);

/// A kind of which nothing but metadata has lists that merge.
pub(crate) static OBJECT: Type = Type(&[("metadata", Object(&META))]);
pub(crate) static POD: Type =
    Type(&[("metadata", Object(&META)), ("spec", Object(&POD_SPEC)), ("status", Object(&POD_STATUS))]);
/// Deployment, ReplicaSet and whatever else holds a pod template and conditions.
pub(crate) static WORKLOAD: Type =
    Type(&[("metadata", Object(&META)), ("spec", Object(&TEMPLATED_SPEC)), ("status", Object(&CONDITIONS))]);
pub(crate) static NODE: Type =
    Type(&[("metadata", Object(&META)), ("spec", Object(&NODE_SPEC)), ("status", Object(&NODE_STATUS))]);
pub(crate) static SERVICE: Type =
    Type(&[("metadata", Object(&META)), ("spec", Object(&SERVICE_SPEC)), ("status", Object(&CONDITIONS))]);
/// A kind with conditions, and no other list that merges.
pub(crate) static CONDITIONED: Type = Type(&[("metadata", Object(&META)), ("status", Object(&CONDITIONS))]);
pub(crate) static POD_TEMPLATE: Type = Type(&[("metadata", Object(&META)), ("template", Object(&TEMPLATE))]);
pub(crate) static CRON_JOB: Type = Type(&[("metadata", Object(&META)), ("spec", Object(&CRON_JOB_SPEC))]);
pub(crate) static SERVICE_ACCOUNT: Type = Type(&[("metadata", Object(&META)), ("secrets", Merge("name", &PLAIN))]);

impl Type {
    fn member(&self, name: &str) -> Option<&'static Member> {
        self.0.iter().find(|(member, _)| *member == name).map(|(_, member)| member)
    }

    /// Whether the list `name` merges, and by which key; a set has none.
    pub(crate) fn merges(&self, name: &str) -> Option<Option<&'static str>> {
        match self.member(name)? {
            Merge(key, _) => Some(Some(key)),
            Set => Some(None),
            Object(_) => None,
        }
    }

    /// The type of the map `name`, or of the items of the list.
    pub(crate) fn below(&self, name: &str) -> &'static Type {
        match self.member(name) {
            Some(Object(of) | Merge(_, of)) => of,
            _ => &PLAIN,
        }
    }

    /// The type of the map `name`; of an unknown one nothing special is known.
    fn object(&self, name: &str) -> &'static Type {
        match self.member(name) {
            Some(Object(of)) => of,
            _ => &PLAIN,
        }
    }
}

/// Applies a JSON Patch (RFC 6902): all of it or nothing.
///
/// # Errors
/// See [`PatchError`]; the document is unchanged then.
pub fn json_patch(doc: &mut Value, patch: &Value) -> Result<(), PatchError> {
    let Value::Array(operations) = patch else { return Err(malformed("a JSON patch must be an array of operations")) };
    if operations.len() > OPERATIONS_MAX {
        return Err(PatchError::TooMany(operations.len()));
    }
    let patch: json_patch::Patch =
        serde_json::from_value(patch.clone()).map_err(|e| malformed(format!("error decoding patch: {e}")))?;
    let mut changed = doc.clone();
    let mut copied = 0;
    for operation in &patch.0 {
        if let json_patch::PatchOperation::Copy(copy) = operation {
            copied += changed.pointer(copy.from.as_str()).map_or(0, |value| weight(value, COPIED_MAX));
            if copied > COPIED_MAX {
                return Err(PatchError::Failed("the patch copies more than fits an object".to_owned()));
            }
        }
        json_patch::patch_unsafe(&mut changed, std::slice::from_ref(operation))
            .map_err(|e| PatchError::Failed(e.to_string()))?;
    }
    *doc = changed;
    Ok(())
}

/// About how many bytes a value takes; not counted much beyond `limit`.
fn weight(value: &Value, limit: usize) -> usize {
    const EACH: usize = 8;
    let add = |sum: usize, more: usize| if sum > limit { sum } else { sum + more };
    match value {
        Value::String(text) => EACH + text.len(),
        Value::Array(list) => list.iter().fold(EACH, |sum, item| add(sum, weight(item, limit))),
        Value::Object(map) => map.iter().fold(EACH, |sum, (key, item)| add(sum, key.len() + weight(item, limit))),
        _ => EACH,
    }
}

/// Applies a merge patch (RFC 7386).
///
/// # Errors
/// [`PatchError::Malformed`] for a patch that is no object.
pub fn merge(doc: &mut Value, patch: &Value) -> Result<(), PatchError> {
    if !patch.is_object() {
        return Err(malformed("a merge patch must be an object"));
    }
    merge_value(doc, patch);
    Ok(())
}

fn merge_value(doc: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *doc = patch.clone();
        return;
    };
    if !doc.is_object() {
        *doc = Value::Object(Map::new());
    }
    let Value::Object(doc) = doc else { return };
    for (key, value) in patch {
        if value.is_null() {
            doc.shift_remove(key);
        } else {
            merge_value(doc.entry(key.as_str()).or_insert(Value::Null), value);
        }
    }
}

/// Applies a strategic merge patch to an object of `kind`.
///
/// # Errors
/// [`PatchError::Malformed`] for directives or list items that mean nothing; the document is unchanged then.
pub fn strategic(kind: &Kind, doc: &mut Value, patch: &Value) -> Result<(), PatchError> {
    let (Value::Object(original), Value::Object(patch)) = (&*doc, patch) else {
        return Err(malformed("a strategic merge patch must be an object"));
    };
    let merged = merge_map(original.clone(), patch, kind.lists())?;
    *doc = Value::Object(merged);
    Ok(())
}

fn merge_map(
    mut doc: Map<String, Value>,
    patch: &Map<String, Value>,
    of: &Type,
) -> Result<Map<String, Value>, PatchError> {
    match patch.get(DIRECTIVE).map(|directive| directive.as_str().unwrap_or("")) {
        None | Some("merge") => {}
        Some("replace") => return Ok(without_directives(patch)),
        Some("delete") => return Ok(Map::new()),
        Some(other) => return Err(malformed(format!("unknown patch type found: {other}"))),
    }
    if let Some(keys) = patch.get(RETAIN_KEYS) {
        retain_keys(&mut doc, patch, keys)?;
    }
    for (directive, order) in patch.iter().filter(|(key, _)| key.starts_with(ELEMENT_ORDER)) {
        set_element_order(&mut doc, patch, &directive[ELEMENT_ORDER.len()..], order, of)?;
    }
    for (key, value) in patch {
        if let Some(list) = key.strip_prefix(DELETE_FROM) {
            delete_from(&mut doc, list, value)?;
            continue;
        }
        let ordered = patch.contains_key(&format!("{ELEMENT_ORDER}{key}"));
        if key.starts_with('$') || (ordered && value.is_array()) {
            continue;
        }
        merge_member(&mut doc, key, value, of)?;
    }
    Ok(doc)
}

fn merge_member(doc: &mut Map<String, Value>, key: &str, value: &Value, of: &Type) -> Result<(), PatchError> {
    let merged = match value {
        Value::Null => {
            doc.shift_remove(key);
            return Ok(());
        }
        Value::Object(value) => {
            let original = match doc.get(key) {
                Some(Value::Object(original)) => original.clone(),
                _ => Map::new(),
            };
            Value::Object(merge_map(original, value, of.object(key))?)
        }
        Value::Array(value) => {
            let original = doc.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            Value::Array(merge_list(original, value, of.member(key))?)
        }
        scalar => scalar.clone(),
    };
    doc.insert(key.to_owned(), merged);
    Ok(())
}

/// A map of a patch that replaces: no directives, no nulls, and its lists without deletions.
fn without_directives(patch: &Map<String, Value>) -> Map<String, Value> {
    let keep = |(key, value): (&String, &Value)| match value {
        _ if key.starts_with('$') => None,
        Value::Null => None,
        Value::Object(map) => Some((key.clone(), Value::Object(without_directives(map)))),
        other => Some((key.clone(), other.clone())),
    };
    patch.iter().filter_map(keep).collect()
}

fn retain_keys(doc: &mut Map<String, Value>, patch: &Map<String, Value>, keys: &Value) -> Result<(), PatchError> {
    let bad =
        || malformed("bad patch format for retainKeys: must be a list that contains all fields present in the patch");
    let keys: Vec<&str> =
        keys.as_array().ok_or_else(bad)?.iter().map(|k| k.as_str().ok_or_else(bad)).collect::<Result<_, _>>()?;
    let named = |key: &str| key.starts_with('$') || keys.contains(&key);
    if patch.iter().any(|(key, value)| !value.is_null() && !named(key)) {
        return Err(bad());
    }
    doc.retain(|key, _| keys.contains(&key.as_str()));
    Ok(())
}

fn delete_from(doc: &mut Map<String, Value>, list: &str, values: &Value) -> Result<(), PatchError> {
    let values = values.as_array().ok_or_else(|| malformed(format!("{DELETE_FROM}{list} must be a list")))?;
    if let Some(Value::Array(present)) = doc.get_mut(list) {
        present.retain(|item| !values.contains(item));
    }
    Ok(())
}

/// Merges the list `key` with the patch's, then puts it in the order the directive gives.
fn set_element_order(
    doc: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    key: &str,
    order: &Value,
    of: &Type,
) -> Result<(), PatchError> {
    let order = order.as_array().ok_or_else(|| malformed(format!("{ELEMENT_ORDER}{key} must be a list")))?;
    mergeable(order.len())?;
    let member = of.member(key);
    let original = doc.get(key).and_then(Value::as_array).cloned();
    let change = patch.get(key).and_then(Value::as_array);
    if original.is_none() && change.is_none() {
        return Ok(());
    }
    let original = original.unwrap_or_default();
    let merged = match change {
        Some(change) => merge_list(&original, change, member)?,
        None => original.clone(),
    };
    let merged = if member.is_some() { in_order(merged, order, &original, merge_key(member)) } else { merged };
    doc.insert(key.to_owned(), Value::Array(merged));
    Ok(())
}

fn merge_key(member: Option<&Member>) -> Option<&'static str> {
    match member {
        Some(Merge(key, _)) => Some(*key),
        _ => None,
    }
}

fn merge_list(original: &[Value], patch: &[Value], member: Option<&Member>) -> Result<Vec<Value>, PatchError> {
    if member.is_some() {
        mergeable(original.len() + patch.len())?;
    }
    match member {
        Some(Merge(key, of)) => {
            let merged = merge_items(original, patch, key, of)?;
            match merged {
                Merged::Replaced(list) => Ok(list),
                Merged::Items(list, changed) => Ok(in_order(list, &changed, original, Some(key))),
            }
        }
        Some(Set) => {
            let mut merged: Vec<Value> = Vec::new();
            for item in original.iter().chain(patch) {
                if !merged.contains(item) {
                    merged.push(item.clone());
                }
            }
            Ok(in_order(merged, patch, original, None))
        }
        _ => Ok(patch.to_vec()),
    }
}

fn mergeable(items: usize) -> Result<(), PatchError> {
    if items <= MERGED_MAX {
        return Ok(());
    }
    Err(malformed(format!("a list of {items} items cannot be merged: at most {MERGED_MAX}")))
}

enum Merged {
    Replaced(Vec<Value>),
    /// The list, and the items of the patch that were merged into it.
    Items(Vec<Value>, Vec<Value>),
}

fn merge_items(original: &[Value], patch: &[Value], key: &str, of: &Type) -> Result<Merged, PatchError> {
    let mut list = original.to_vec();
    let mut changes = Vec::new();
    let mut replace = false;
    for item in patch {
        let map =
            item.as_object().ok_or_else(|| malformed(format!("items of a list merged by {key} must be objects")))?;
        let directive = map.get(DIRECTIVE).map(|directive| directive.as_str().unwrap_or(""));
        match directive {
            Some("replace") => replace = true,
            Some("delete") => {
                let value = map.get(key).ok_or_else(|| missing_key(item, key))?;
                list.retain(|present| present.get(key) != Some(value));
            }
            Some("merge") | None => changes.push(item.clone()),
            Some(other) => return Err(malformed(format!("unknown patch type found: {other}"))),
        }
    }
    if replace {
        return Ok(Merged::Replaced(changes));
    }
    for item in &changes {
        let value = item.get(key).ok_or_else(|| missing_key(item, key))?;
        let Value::Object(change) = item else { continue };
        match list.iter_mut().find(|present| present.get(key) == Some(value)) {
            Some(Value::Object(present)) => *present = merge_map(std::mem::take(present), change, of)?,
            _ => list.push(Value::Object(merge_map(Map::new(), change, of)?)),
        }
    }
    Ok(Merged::Items(list, changes))
}

fn missing_key(item: &Value, key: &str) -> PatchError {
    malformed(format!("map: {item} does not contain declared merge key: {key}"))
}

/// Orders a merged list: items that `order` names stand in its order; the others keep the server's order among
/// themselves, each standing before the first named item that the server had behind it.
fn in_order(list: Vec<Value>, order: &[Value], server: &[Value], key: Option<&str>) -> Vec<Value> {
    let index = |place: &[Value], item: &Value| place.iter().position(|other| same(other, item, key));
    let (mut named, mut others): (Vec<_>, Vec<_>) = list.into_iter().partition(|item| index(order, item).is_some());
    named.sort_by_cached_key(|item| index(order, item));
    others.sort_by_cached_key(|item| index(server, item).unwrap_or(usize::MAX));
    let mut out = Vec::with_capacity(named.len() + others.len());
    let mut named = named.into_iter().peekable();
    let mut others = others.into_iter().peekable();
    loop {
        let other_first = match (others.peek(), named.peek()) {
            (Some(other), Some(name)) => match (index(server, other), index(server, name)) {
                (Some(other), Some(name)) => other < name,
                _ => false,
            },
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (None, None) => return out,
        };
        out.extend(if other_first { others.next() } else { named.next() });
    }
}

fn same(a: &Value, b: &Value, key: Option<&str>) -> bool {
    match key {
        Some(key) => a.get(key).is_some() && a.get(key) == b.get(key),
        None => a == b,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::Kinds;

    fn apply(group: &str, plural: &str, mut doc: Value, patch: &Value) -> Result<Value, PatchError> {
        let kind = Kinds::builtin().by_resource(group, plural).expect("a built-in kind");
        strategic(kind, &mut doc, patch)?;
        Ok(doc)
    }

    /// A pod with these containers, of names and images.
    fn containers(all: &[(&str, &str)]) -> Value {
        let list: Vec<Value> = all.iter().map(|(name, image)| json!({"name": name, "image": image})).collect();
        json!({"spec": {"containers": list}})
    }

    /// Merge keys and the list types of server-side apply say the same of a list, but where Kubernetes itself does not.
    #[test]
    fn merge_keys_agree_with_list_types() {
        const APART: &[&str] = &["Pod.status.hostIPs", "Job.status.conditions"];
        fn check(of: &Type, typed: crate::apply::Type<'_>, path: &str) {
            for (name, member) in of.0 {
                let (path, typed) = (format!("{path}.{name}"), typed.descend(name));
                let keys = typed.list_keys();
                match member {
                    _ if APART.contains(&path.as_str()) => assert_eq!(keys, None, "{path}"),
                    Object(of) => check(of, typed, &path),
                    Set => assert_eq!(keys, Some(vec![]), "{path}"),
                    Merge(key, of) => {
                        assert_eq!(keys.and_then(|keys| keys.first().copied()), Some(*key), "{path}");
                        typed.item_type().into_iter().for_each(|items| check(of, items, &path));
                    }
                }
            }
        }
        for kind in Kinds::builtin().all() {
            check(kind.lists(), crate::apply::Type::of(kind), kind.kind);
        }
    }

    #[test]
    fn lists_too_long_to_merge_are_refused() {
        let names: Vec<String> = (0..=MERGED_MAX).map(|n| format!("a.b/{n}")).collect();
        let doc = json!({"metadata": {"finalizers": ["x.y/z"]}});
        for patch in [
            json!({"metadata": {"finalizers": names}}),
            json!({"metadata": {"$setElementOrder/finalizers": names, "finalizers": ["x.y/z"]}}),
        ] {
            assert!(matches!(apply("", "configmaps", doc.clone(), &patch), Err(PatchError::Malformed(_))));
        }
    }

    #[test]
    fn copies_do_not_multiply() {
        let mut doc = json!({"metadata": {"annotations": {"a": "x".repeat(1000)}}});
        let before = doc.clone();
        let double =
            |n| json!({"op": "copy", "from": "/metadata/annotations", "path": format!("/metadata/annotations/{n}")});
        let doubles = |times: u32| (0..times).map(double).collect::<Value>();
        assert!(matches!(json_patch(&mut doc, &doubles(60)), Err(PatchError::Failed(_))));
        assert_eq!(doc, before, "all or nothing");
        assert_eq!(json_patch(&mut doc, &doubles(3)), Ok(()));
    }

    #[test]
    fn strategic_merges() {
        for (what, doc, patch, expected) in [
            (
                "an item is merged by its key",
                containers(&[("a", "1"), ("b", "1")]),
                containers(&[("b", "2")]),
                containers(&[("a", "1"), ("b", "2")]),
            ),
            (
                "a new item goes to the front, as upstream",
                containers(&[("a", "1")]),
                containers(&[("c", "1")]),
                containers(&[("c", "1"), ("a", "1")]),
            ),
            (
                "an item is deleted",
                containers(&[("a", "1"), ("b", "1")]),
                json!({"spec": {"containers": [{"$patch": "delete", "name": "a"}]}}),
                containers(&[("b", "1")]),
            ),
            (
                "a list is replaced",
                containers(&[("a", "1"), ("b", "1")]),
                json!({"spec": {"containers": [{"name": "z", "image": "9"}, {"$patch": "replace"}]}}),
                containers(&[("z", "9")]),
            ),
            (
                "the order is set",
                containers(&[("a", "1"), ("server", "1"), ("b", "1")]),
                json!({"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}}),
                containers(&[("server", "1"), ("b", "1"), ("a", "1")]),
            ),
            (
                "added in order",
                containers(&[("a", "1"), ("b", "1")]),
                json!({"spec": {"$setElementOrder/containers": [{"name": "n"}, {"name": "a"}, {"name": "b"}], "containers": [{"name": "n", "image": "1"}]}}),
                containers(&[("n", "1"), ("a", "1"), ("b", "1")]),
            ),
            (
                "lists inside list items",
                json!({"spec": {"containers": [{"name": "a", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "1"}], "args": ["1", "2"]}]}}),
                json!({"spec": {"containers": [{"name": "a", "env": [{"name": "Y", "value": null}, {"name": "X", "value": "2"}], "args": ["3"]}]}}),
                json!({"spec": {"containers": [{"name": "a", "env": [{"name": "Y"}, {"name": "X", "value": "2"}], "args": ["3"]}]}}),
            ),
            (
                "maps merge and null removes",
                json!({"metadata": {"labels": {"a": "1", "b": "1"}}}),
                json!({"metadata": {"labels": {"a": null, "c": "1"}}}),
                json!({"metadata": {"labels": {"b": "1", "c": "1"}}}),
            ),
            (
                "a map is replaced",
                json!({"metadata": {"labels": {"a": "1", "b": "1"}}}),
                json!({"metadata": {"labels": {"$patch": "replace", "c": "1"}}}),
                json!({"metadata": {"labels": {"c": "1"}}}),
            ),
            (
                "finalizers are a set",
                json!({"metadata": {"finalizers": ["a", "b"]}}),
                json!({"metadata": {"finalizers": ["b", "c"]}}),
                json!({"metadata": {"finalizers": ["a", "b", "c"]}}),
            ),
            (
                "and lose members",
                json!({"metadata": {"finalizers": ["a", "b"]}}),
                json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "$setElementOrder/finalizers": ["b"]}}),
                json!({"metadata": {"finalizers": ["b"]}}),
            ),
            (
                "only retained keys stay",
                json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}),
                json!({"spec": {"volumes": [{"$retainKeys": ["name", "hostPath"], "name": "v", "hostPath": {"path": "/x"}}]}}),
                json!({"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/x"}}]}}),
            ),
            (
                "directives do not stay in what is new",
                json!({}),
                json!({"spec": {"containers": [{"name": "a", "image": null, "$patch": "merge"}, {"$patch": "delete", "name": "b"}], "$setElementOrder/containers": [{"name": "a"}]}}),
                json!({"spec": {"containers": [{"name": "a"}]}}),
            ),
            (
                "conditions merge by type",
                json!({"status": {"conditions": [{"type": "A", "status": "True"}, {"type": "B", "status": "True"}]}}),
                json!({"status": {"$setElementOrder/conditions": [{"type": "A"}, {"type": "B"}], "conditions": [{"type": "B", "status": "False"}]}}),
                json!({"status": {"conditions": [{"type": "A", "status": "True"}, {"type": "B", "status": "False"}]}}),
            ),
        ] {
            assert_eq!(apply("", "pods", doc, &patch), Ok(expected), "{what}");
        }
    }

    #[test]
    fn templates_merge_like_pods() {
        let doc = json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}, "template": {"spec": {"containers": [{"name": "a", "image": "1", "ports": [{"containerPort": 80}]}]}}}});
        let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}, "template": {"spec": {"$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "a", "image": "2"}]}}}});
        let expected = json!({"spec": {"strategy": {"type": "Recreate"}, "template": {"spec": {"containers": [{"name": "a", "image": "2", "ports": [{"containerPort": 80}]}]}}}});
        assert_eq!(apply("apps", "deployments", doc, &patch), Ok(expected));
    }

    #[test]
    fn strategic_errors() {
        for (patch, text) in [
            (json!([]), "must be an object"),
            (json!({"spec": {"containers": [{"image": "x"}]}}), "does not contain declared merge key: name"),
            (json!({"spec": {"containers": ["x"]}}), "must be objects"),
            (json!({"metadata": {"$patch": "explode"}}), "unknown patch type found: explode"),
            (json!({"spec": {"volumes": [{"name": "v", "$retainKeys": ["name"], "emptyDir": {}}]}}), "retainKeys"),
        ] {
            let error = apply("", "pods", containers(&[("a", "1")]), &patch).expect_err(text);
            assert!(error.to_string().contains(text), "{error}");
        }
    }

    #[test]
    fn json_patches() {
        let doc = json!({"a": {"b": 1}, "l": [1, 2]});
        for (patch, expected) in [
            (json!([{"op": "replace", "path": "/a/b", "value": 2}]), Ok(json!({"a": {"b": 2}, "l": [1, 2]}))),
            (json!([{"op": "add", "path": "/l/-", "value": 3}]), Ok(json!({"a": {"b": 1}, "l": [1, 2, 3]}))),
            (json!([{"op": "remove", "path": "/a/x"}]), Err(false)),
            (
                json!([{"op": "replace", "path": "/a/b", "value": 2}, {"op": "test", "path": "/a/b", "value": 1}]),
                Err(false),
            ),
            (json!({"op": "add"}), Err(true)),
            (json!([{"op": "nonsense", "path": "/a"}]), Err(true)),
        ] {
            let mut patched = doc.clone();
            match (json_patch(&mut patched, &patch), expected) {
                (Ok(()), Ok(expected)) => assert_eq!(patched, expected),
                (Err(error), Err(malformed)) => {
                    assert_eq!(matches!(error, PatchError::Malformed(_)), malformed, "{patch}: {error}");
                    assert_eq!(patched, doc, "all or nothing");
                }
                (result, expected) => panic!("{patch}: {result:?} instead of {expected:?}"),
            }
        }
    }

    #[test]
    fn merge_patches() {
        let mut doc = json!({"a": {"b": 1, "c": 2}, "l": [1]});
        merge(&mut doc, &json!({"a": {"b": null, "d": {"e": null, "f": 1}}, "l": [2]})).expect("an object");
        assert_eq!(doc, json!({"a": {"c": 2, "d": {"f": 1}}, "l": [2]}));
    }

    fn names() -> impl Strategy<Value = Vec<String>> {
        proptest::collection::btree_set("[a-f]", 0..5).prop_map(|names| names.into_iter().collect())
    }

    proptest! {
        /// Every kind of patch by an object itself, or by nothing, changes nothing.
        #[test]
        fn identities(names in names(), labels in proptest::collection::btree_map("[a-c]", "[x-z]", 0..3)) {
            let list: Vec<Value> = names.iter().map(|name| json!({"name": name, "args": [name]})).collect();
            let doc = json!({"metadata": {"labels": labels}, "spec": {"containers": list}});
            prop_assert_eq!(apply("", "pods", doc.clone(), &doc), Ok(doc.clone()));
            prop_assert_eq!(apply("", "pods", doc.clone(), &json!({})), Ok(doc.clone()));
            let mut merged = doc.clone();
            prop_assert_eq!(merge(&mut merged, &doc), Ok(()));
            prop_assert_eq!(&merged, &doc);
            prop_assert_eq!(json_patch(&mut merged, &json!([])), Ok(()));
            prop_assert_eq!(&merged, &doc);
        }

        /// A patched list holds each key once, and what the patch names stands in its order.
        #[test]
        fn lists_stay_maps(original in names(), changed in names(), order in Just(()).prop_perturb(|(), mut rng| rng.random::<u64>())) {
            let item = |name: &String| json!({"name": name});
            let mut wanted: Vec<String> = changed.clone();
            if !wanted.is_empty() {
                let by = (order % wanted.len() as u64) as usize;
                wanted.rotate_left(by);
            }
            let list = |names: &[String]| names.iter().map(item).collect::<Vec<_>>();
            let doc = json!({"spec": {"containers": list(&original)}});
            let patch = json!({"spec": {"containers": list(&changed), "$setElementOrder/containers": list(&wanted)}});
            let merged = apply("", "pods", doc, &patch).map_err(|e| TestCaseError::fail(e.to_string()))?;
            let names: Vec<String> = merged["spec"]["containers"].as_array().into_iter().flatten()
                .map(|c| c["name"].as_str().unwrap_or("").to_owned()).collect();
            let mut unique = names.clone();
            unique.sort();
            unique.dedup();
            prop_assert_eq!(unique.len(), names.len());
            let named: Vec<String> = names.iter().filter(|name| wanted.contains(name)).cloned().collect();
            prop_assert_eq!(named, wanted);
            prop_assert!(original.iter().all(|name| names.contains(name)));
        }
    }
}
