//! Reading and changing JSON objects by path. Absent and of the wrong type are the same here: stored objects passed
//! validation, and a plan must not fail on the one that somehow did not.

use jiff::Timestamp;
use objects::meta;
use serde_json::{Map, Value};

/// The value at a dotted path; null where there is none.
pub fn at<'a>(value: &'a Value, path: &str) -> &'a Value {
    static NULL: Value = Value::Null;
    path.split('.').try_fold(value, |value, name| value.get(name)).unwrap_or(&NULL)
}

pub fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    at(value, path).as_str().unwrap_or("")
}

pub fn int(value: &Value, path: &str) -> Option<i64> {
    at(value, path).as_i64()
}

pub fn count(value: &Value, path: &str) -> i64 {
    int(value, path).unwrap_or(0)
}

pub fn flag(value: &Value, path: &str) -> bool {
    at(value, path).as_bool().unwrap_or(false)
}

pub fn items<'a>(value: &'a Value, path: &str) -> &'a [Value] {
    at(value, path).as_array().map(Vec::as_slice).unwrap_or_default()
}

/// A time in milliseconds since 1970.
pub fn time_ms(value: &Value, path: &str) -> Option<i64> {
    text(value, path).parse::<Timestamp>().ok().map(Timestamp::as_millisecond)
}

/// The label, annotation or other entry whose key holds dots.
pub fn entry<'a>(value: &'a Value, path: &str, key: &str) -> Option<&'a str> {
    at(value, path).get(key).and_then(Value::as_str)
}

/// Sets the value at a dotted path; maps on the way are made where they are missing.
pub fn set(value: &mut Value, path: &str, to: Value) {
    meta::set(value, &path.split('.').collect::<Vec<_>>(), to);
}

/// Sets one entry, whose key may hold dots, of the map at a dotted path.
pub fn set_entry(value: &mut Value, path: &str, key: &str, to: Value) {
    let path: Vec<&str> = path.split('.').chain([key]).collect();
    meta::set(value, &path, to);
}

/// Removes one entry of the map at a dotted path, and the map with its last one.
pub fn remove_entry(value: &mut Value, path: &str, key: &str) {
    let names: Vec<&str> = path.split('.').collect();
    let entry: Vec<&str> = names.iter().copied().chain([key]).collect();
    if meta::remove(value, &entry).is_some() && at(value, path).as_object().is_some_and(Map::is_empty) {
        meta::remove(value, &names);
    }
}

/// Removes what stands at a dotted path.
pub fn remove(value: &mut Value, path: &str) {
    meta::remove(value, &path.split('.').collect::<Vec<_>>());
}

/// The list at a dotted path, made where it is missing.
pub fn list<'a>(value: &'a mut Value, path: &str) -> &'a mut Vec<Value> {
    if !at(value, path).is_array() {
        set(value, path, Value::Array(Vec::new()));
    }
    let place = path.split('.').fold(value, |place, name| &mut place[name]);
    match place {
        Value::Array(list) => list,
        _ => unreachable!("it is a list, or was just made one"),
    }
}

/// The condition of one type.
pub fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    items(object, "status.conditions").iter().find(|condition| text(condition, "type") == kind)
}

/// The status of a condition; "" where there is none.
pub fn condition_status<'a>(object: &'a Value, kind: &str) -> &'a str {
    condition(object, kind).map_or("", |condition| text(condition, "status"))
}

/// A condition with everything but its times.
pub struct Condition<'a> {
    pub kind: &'a str,
    pub status: &'a str,
    pub reason: &'a str,
    pub message: &'a str,
}

/// Puts a condition in place. `lastTransitionTime` changes only with the status, `second` (lastUpdateTime,
/// lastHeartbeatTime; "" for none) with any change. Returns whether anything changed.
pub fn set_condition(object: &mut Value, wanted: &Condition<'_>, second: &str, now: &str) -> bool {
    let present = condition(object, wanted.kind);
    let mut since = now.to_owned();
    if let Some(present) = present {
        let same_status = text(present, "status") == wanted.status;
        if same_status && text(present, "reason") == wanted.reason && text(present, "message") == wanted.message {
            return false;
        }
        if same_status && !text(present, "lastTransitionTime").is_empty() {
            since = text(present, "lastTransitionTime").to_owned();
        }
    }
    let mut made = Map::new();
    made.insert("type".into(), wanted.kind.into());
    made.insert("status".into(), wanted.status.into());
    if !second.is_empty() {
        made.insert(second.to_owned(), now.into());
    }
    made.insert("lastTransitionTime".into(), since.into());
    if !wanted.reason.is_empty() {
        made.insert("reason".into(), wanted.reason.into());
    }
    if !wanted.message.is_empty() {
        made.insert("message".into(), wanted.message.into());
    }
    let conditions = list(object, "status.conditions");
    match conditions.iter_mut().find(|condition| text(condition, "type") == wanted.kind) {
        Some(place) => *place = Value::Object(made),
        None => conditions.push(Value::Object(made)),
    }
    true
}

/// Drops the condition of one type, if it is there.
pub fn drop_condition(object: &mut Value, kind: &str) {
    if condition(object, kind).is_some() {
        list(object, "status.conditions").retain(|condition| text(condition, "type") != kind);
    }
}

/// The same value in one fixed order of map keys, for hashing.
pub fn canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort_unstable();
            out.push('{');
            for key in keys {
                out.push_str(key);
                out.push(':');
                canonical(&map[key], out);
                out.push(',');
            }
            out.push('}');
        }
        Value::Array(list) => {
            out.push('[');
            for item in list {
                canonical(item, out);
                out.push(',');
            }
            out.push(']');
        }
        other => out.push_str(&other.to_string()),
    }
}

/// FNV-1a over 32 bits.
pub fn fnv32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}
