//! The three-way difference of `apply`: what the manifest sets, less what an earlier manifest set and this one no longer does.
//!
//! The result is a merge patch (RFC 7386): lists are replaced whole. Fields only the server or others set stay.

use serde_json::{Map, Value};

/// The annotation that remembers the manifest applied last; kubectl's, so that both may take turns.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The patch that turns `live` into what `manifest` asks for; `None` when nothing changes.
pub fn patch(last: Option<&Value>, manifest: &Value, live: &Value) -> Option<Value> {
    let patch = difference(last, manifest, live);
    (!patch.is_empty()).then_some(Value::Object(patch))
}

fn difference(last: Option<&Value>, manifest: &Value, live: &Value) -> Map<String, Value> {
    let mut patch = Map::new();
    let empty = Map::new();
    let wanted = manifest.as_object().unwrap_or(&empty);
    let live = live.as_object().unwrap_or(&empty);
    for (name, value) in wanted {
        match live.get(name) {
            Some(present) if value.is_object() && present.is_object() => {
                let inner = difference(last.and_then(|last| last.get(name)), value, present);
                if !inner.is_empty() {
                    patch.insert(name.clone(), Value::Object(inner));
                }
            }
            Some(present) if covers(present, value) => {}
            None if value.is_null() => {}
            _ => {
                patch.insert(name.clone(), value.clone());
            }
        }
    }
    for name in last.and_then(Value::as_object).into_iter().flat_map(Map::keys) {
        if !wanted.contains_key(name) && live.contains_key(name) {
            patch.insert(name.clone(), Value::Null);
        }
    }
    patch
}

/// Whether the live value already says all that is wanted; defaults the server added inside of lists are no difference.
fn covers(live: &Value, wanted: &Value) -> bool {
    match (live, wanted) {
        (Value::Array(live), Value::Array(wanted)) => {
            live.len() == wanted.len() && live.iter().zip(wanted).all(|(live, wanted)| covers(live, wanted))
        }
        (Value::Object(live), Value::Object(wanted)) => wanted.iter().all(|(name, value)| match live.get(name) {
            Some(present) => covers(present, value),
            None => value.is_null(),
        }),
        (live, wanted) => live == wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn differences() {
        let cases = [
            // Nothing changes; defaults of the server do not count, not even inside of lists.
            (
                json!({"a": 1}),
                json!({"a": 1, "l": [{"n": "x"}]}),
                json!({"a": 1, "d": 2, "l": [{"n": "x", "p": "TCP"}]}),
                None,
            ),
            // A field set before and no longer wanted goes; one that others set stays.
            (json!({"a": 1, "b": 1}), json!({"a": 1}), json!({"a": 1, "b": 1, "c": 1}), Some(json!({"b": null}))),
            // Nested, and a list replaced whole.
            (
                json!({}),
                json!({"s": {"r": 3}, "l": [1, 2]}),
                json!({"s": {"r": 1, "x": 1}, "l": [1]}),
                Some(json!({"s": {"r": 3}, "l": [1, 2]})),
            ),
            (json!({}), json!({"new": {"x": 1}}), json!({}), Some(json!({"new": {"x": 1}}))),
        ];
        for (last, manifest, live, expected) in cases {
            assert_eq!(patch(Some(&last), &manifest, &live), expected, "{manifest}");
        }
    }
}
