//! Reading and writing `metadata` and other well known places of an object held as a JSON value.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

/// The alphabet of generated name suffixes: no vowels and no look-alikes.
const SUFFIX_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX_LENGTH: usize = 5;
/// A generated name keeps this much of `generateName`, so that name and suffix fit a DNS label.
const GENERATE_NAME_BASE_MAX: usize = 63 - SUFFIX_LENGTH;

/// One entry of `metadata.ownerReferences`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnerReference {
    pub api_version: String,
    pub kind: String,
    pub name: String,
    pub uid: String,
    pub controller: bool,
    pub block_owner_deletion: bool,
}

/// The value at a path of member names: `at(pod, &["spec", "nodeName"])`.
pub fn at<'a>(object: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(object, |value, name| value.get(*name)).filter(|value| !value.is_null())
}

/// The string at a path; "" where there is none.
pub fn text<'a>(object: &'a Value, path: &[&str]) -> &'a str {
    at(object, path).and_then(Value::as_str).unwrap_or("")
}

pub fn int(object: &Value, path: &[&str]) -> Option<i64> {
    at(object, path).and_then(Value::as_i64)
}

pub fn flag(object: &Value, path: &[&str]) -> bool {
    at(object, path).and_then(Value::as_bool).unwrap_or(false)
}

/// The list at a path; empty where there is none.
pub fn list<'a>(object: &'a Value, path: &[&str]) -> &'a [Value] {
    at(object, path).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// The list at a path, to be changed; empty where there is none.
pub fn list_mut<'a>(object: &'a mut Value, path: &[&str]) -> &'a mut [Value] {
    match path.iter().try_fold(object, |value, name| value.get_mut(*name)) {
        Some(Value::Array(list)) => list,
        _ => &mut [],
    }
}

/// The map of strings at a path.
pub fn strings(object: &Value, path: &[&str]) -> BTreeMap<String, String> {
    at(object, path)
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}

/// Writes a value at a path, making the maps on the way. A value in the way that is no map is replaced by one.
pub fn set(object: &mut Value, path: &[&str], value: Value) {
    let Some((last, parents)) = path.split_last() else {
        *object = value;
        return;
    };
    let mut here = object;
    for name in parents {
        here = map_mut(here).entry(*name).or_insert(Value::Null);
    }
    map_mut(here).insert((*last).to_owned(), value);
}

/// [`set`] where there is nothing yet.
pub fn set_absent(object: &mut Value, path: &[&str], value: Value) {
    if at(object, path).is_none() {
        set(object, path, value);
    }
}

/// [`set`] where there is nothing yet, or what Go calls the zero value.
pub fn set_empty(object: &mut Value, path: &[&str], value: Value) {
    if at(object, path).is_none_or(is_empty) {
        set(object, path, value);
    }
}

/// Removes the member at a path, keeping the order of the others.
pub fn remove(object: &mut Value, path: &[&str]) -> Option<Value> {
    let (last, parents) = path.split_last()?;
    let parent = parents.iter().try_fold(object, |value, name| value.get_mut(*name))?;
    parent.as_object_mut()?.shift_remove(*last)
}

/// Copies the member at a path from `from`; removes it where `from` has none.
pub fn copy(object: &mut Value, from: &Value, path: &[&str]) {
    match at(from, path) {
        Some(value) => set(object, path, value.clone()),
        None => drop(remove(object, path)),
    }
}

fn map_mut(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        // Made an object just above.
        _ => unreachable!(),
    }
}

/// Null, "", [], {}, false or 0: what Go calls the zero value, and clients send for "not set".
pub fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_i64() == Some(0),
        Value::String(s) => s.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.values().all(is_empty),
    }
}

/// Members that Go holds by value, so that 0 and false are the same as nothing: typed clients leave them out where others
/// write them.
const BY_VALUE: &[&str] = &[
    "hostIPC",
    "hostNetwork",
    "hostPID",
    "hostPort",
    "initialDelaySeconds",
    "minReadySeconds",
    "readOnly",
    "stdin",
    "stdinOnce",
    "tty",
];

/// Members that map names of the user's choice, in which an empty value is a value.
const MAPS: &[&str] = &["annotations", "labels", "matchLabels", "nodeSelector", "parameters"];

/// Equal, but for what is empty on one side and absent on the other. Of numbers and booleans, which may stand for
/// pointers, only a few well known ones count as empty.
pub fn alike(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => one.keys().chain(other.keys()).all(|key| {
            members_alike(key, one.get(key).unwrap_or(&Value::Null), other.get(key).unwrap_or(&Value::Null))
        }),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| alike(one, other))
        }
        (Value::Object(map), Value::Null) | (Value::Null, Value::Object(map)) => {
            map.iter().all(|(key, value)| members_alike(key, value, &Value::Null))
        }
        (Value::Array(list), Value::Null) | (Value::Null, Value::Array(list)) => list.is_empty(),
        (Value::String(text), Value::Null) | (Value::Null, Value::String(text)) => text.is_empty(),
        _ => one == other,
    }
}

fn members_alike(key: &str, one: &Value, other: &Value) -> bool {
    let none = |value: &Value| value.as_object().map_or(value.is_null(), Map::is_empty);
    if MAPS.contains(&key) {
        return one == other || (none(one) && none(other));
    }
    alike(one, other) || (BY_VALUE.contains(&key) && is_empty(one) && is_empty(other))
}

pub fn name(object: &Value) -> &str {
    text(object, &["metadata", "name"])
}

pub fn namespace(object: &Value) -> &str {
    text(object, &["metadata", "namespace"])
}

pub fn uid(object: &Value) -> &str {
    text(object, &["metadata", "uid"])
}

pub fn resource_version(object: &Value) -> &str {
    text(object, &["metadata", "resourceVersion"])
}

pub fn generation(object: &Value) -> i64 {
    int(object, &["metadata", "generation"]).unwrap_or(0)
}

pub fn labels(object: &Value) -> BTreeMap<String, String> {
    strings(object, &["metadata", "labels"])
}

pub fn annotations(object: &Value) -> BTreeMap<String, String> {
    strings(object, &["metadata", "annotations"])
}

pub fn annotation<'a>(object: &'a Value, key: &str) -> &'a str {
    text(object, &["metadata", "annotations", key])
}

pub fn finalizers(object: &Value) -> Vec<String> {
    list(object, &["metadata", "finalizers"]).iter().filter_map(|f| f.as_str().map(str::to_owned)).collect()
}

pub fn owners(object: &Value) -> Vec<OwnerReference> {
    list(object, &["metadata", "ownerReferences"])
        .iter()
        .map(|owner| OwnerReference {
            api_version: text(owner, &["apiVersion"]).to_owned(),
            kind: text(owner, &["kind"]).to_owned(),
            name: text(owner, &["name"]).to_owned(),
            uid: text(owner, &["uid"]).to_owned(),
            controller: flag(owner, &["controller"]),
            block_owner_deletion: flag(owner, &["blockOwnerDeletion"]),
        })
        .collect()
}

/// The owner reference that says `controller: true`.
pub fn controller(object: &Value) -> Option<OwnerReference> {
    owners(object).into_iter().find(|owner| owner.controller)
}

/// The reference by which `owner` controls a dependent.
pub fn owner_reference(owner: &Value) -> Value {
    json!({
        "apiVersion": text(owner, &["apiVersion"]),
        "kind": text(owner, &["kind"]),
        "name": name(owner),
        "uid": uid(owner),
        "controller": true,
        "blockOwnerDeletion": true,
    })
}

/// A time as objects hold it.
pub fn time(object: &Value, path: &[&str]) -> Option<Timestamp> {
    text(object, path).parse().ok()
}

pub fn creation(object: &Value) -> Option<Timestamp> {
    time(object, &["metadata", "creationTimestamp"])
}

pub fn deletion(object: &Value) -> Option<Timestamp> {
    time(object, &["metadata", "deletionTimestamp"])
}

pub fn is_deleting(object: &Value) -> bool {
    at(object, &["metadata", "deletionTimestamp"]).is_some()
}

/// A time as Kubernetes prints `metav1.Time`: RFC 3339 in whole seconds.
pub fn format_time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A time as Kubernetes prints `metav1.MicroTime`.
pub fn format_micro_time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

/// The five characters of a generated name, from a seed.
pub fn suffix(seed: u64) -> String {
    let mut mixed = mix(seed);
    (0..SUFFIX_LENGTH)
        .map(|_| {
            let n = SUFFIX_ALPHABET.len() as u64;
            let c = SUFFIX_ALPHABET[(mixed % n) as usize];
            mixed /= n;
            char::from(c)
        })
        .collect()
}

/// The name that `generateName` and a seed make.
pub fn generated_name(base: &str, seed: u64) -> String {
    let mut end = base.len().min(GENERATE_NAME_BASE_MAX);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{}", &base[..end], suffix(seed))
}

/// Gives the object a name out of `metadata.generateName` where it has none.
pub fn generate_name(object: &mut Value, seed: u64) {
    let base = text(object, &["metadata", "generateName"]).to_owned();
    if name(object).is_empty() && !base.is_empty() {
        set(object, &["metadata", "name"], generated_name(&base, seed).into());
    }
}

/// A version 4 UUID made of two seeds.
pub fn uuid(high: u64, low: u64) -> String {
    let high = (mix(high) & 0xffff_ffff_ffff_0fff) | 0x4000;
    let low = (mix(low ^ 0x5bd1_e995_9e37_79b9) & 0x3fff_ffff_ffff_ffff) | 0x8000_0000_0000_0000;
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        high >> 32,
        (high >> 16) & 0xffff,
        high & 0xffff,
        low >> 48,
        low & 0xffff_ffff_ffff
    )
}

/// The finisher of splitmix64: neighbouring seeds give unrelated values.
pub(crate) fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Stamps a new object with what the server owns: uid and creation time; whatever the client sent there is dropped.
pub fn stamp(object: &mut Value, uid: &str, now: Timestamp) {
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "managedFields", "resourceVersion"] {
        remove(object, &["metadata", field]);
    }
    set(object, &["metadata", "uid"], uid.into());
    set(object, &["metadata", "creationTimestamp"], format_time(now).into());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_and_removes_by_path() {
        let mut v = json!({"a": 1});
        set(&mut v, &["metadata", "labels", "x"], "y".into());
        assert_eq!(v, json!({"a": 1, "metadata": {"labels": {"x": "y"}}}));
        assert_eq!(remove(&mut v, &["metadata", "labels", "x"]), Some("y".into()));
        assert_eq!(remove(&mut v, &["nothing", "here"]), None);
    }

    #[test]
    fn what_is_alike() {
        for (one, other, expected) in [
            (json!({"resources": {}, "args": [], "tty": false, "value": ""}), json!({}), true),
            (json!({"securityContext": {"capabilities": {}}}), json!({}), true),
            (json!({"securityContext": {"runAsUser": 0}}), json!({}), false),
            (json!({"automountServiceAccountToken": false}), json!({}), false),
            (json!({"labels": {"a": ""}}), json!({"labels": {}}), false),
            (json!({"labels": {}}), json!({}), true),
            (json!({"containers": [{"name": "a", "stdin": false}]}), json!({"containers": [{"name": "a"}]}), true),
            (json!({"containers": [{"name": "a"}]}), json!({"containers": [{"name": "b"}]}), false),
            (json!({"list": [1]}), json!({"list": []}), false),
            (json!({"tty": true}), json!({}), false),
        ] {
            assert_eq!(alike(&one, &other), expected, "{one} {other}");
            assert_eq!(alike(&other, &one), expected, "{other} {one}");
        }
    }

    #[test]
    fn generated_names_fit_and_differ() {
        let long = "a".repeat(80);
        assert_eq!(generated_name(&long, 1).len(), 63);
        assert_ne!(suffix(1), suffix(2));
        assert!(suffix(7).bytes().all(|c| SUFFIX_ALPHABET.contains(&c)));
    }

    #[test]
    fn uuids_are_version_4() {
        let uid = uuid(1, 2);
        assert_eq!(uid.len(), 36);
        assert_eq!(uid.as_bytes()[14], b'4');
        assert!(b"89ab".contains(&uid.as_bytes()[19]));
    }
}
