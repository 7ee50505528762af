//! The three-way difference of `apply`: what the manifest sets, less what an earlier manifest set and this one no longer does.
//!
//! The result is a merge patch (RFC 7386): lists are replaced whole, as kubectl does it with those whose items have no key.
//! Fields only the server or others set stay; inside of a list, until the manifest says something else of that list.

use serde_json::{Map, Value};

/// The annotation that remembers the manifest applied last; kubectl's, so that both may take turns.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The manifest as kubectl remembers it, byte for byte, so that either leaves alone what the other applied: `annotations`
/// even where there are none, without the one that remembers; keys in order; Go's escapes; a newline at the end.
pub fn record(manifest: &mut Value) -> String {
    let annotations = &mut manifest["metadata"]["annotations"];
    match annotations.as_object_mut() {
        Some(annotations) => drop(annotations.shift_remove(LAST_APPLIED)),
        None => *annotations = Value::Object(Map::new()),
    }
    let mut text = sorted(manifest).to_string();
    for (letter, escape) in
        [('<', "\\u003c"), ('>', "\\u003e"), ('&', "\\u0026"), ('\u{2028}', "\\u2028"), ('\u{2029}', "\\u2029")]
    {
        if text.contains(letter) {
            text = text.replace(letter, escape);
        }
    }
    text.push('\n');
    text
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_unstable_by_key(|(name, _)| name.as_str());
            Value::Object(entries.into_iter().map(|(name, value)| (name.clone(), sorted(value))).collect())
        }
        Value::Array(list) => Value::Array(list.iter().map(sorted).collect()),
        // Go writes a whole number without its fraction.
        Value::Number(number) => match number.as_f64().filter(|float| number.is_f64() && float.fract() == 0.0) {
            Some(float) if float.abs() < 9e15 => Value::from(float as i64),
            _ => value.clone(),
        },
        other => other.clone(),
    }
}

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
            Some(present) if covers(present, value) && !differs(last.and_then(|last| last.get(name)), value) => {}
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

/// Whether a list was another one when it was applied last: what went from one of its items may still be there.
fn differs(last: Option<&Value>, wanted: &Value) -> bool {
    last.is_some_and(|last| last.is_array() && wanted.is_array() && *last != sorted(wanted))
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

    /// As `kubectl apply` of 1.33 wrote it.
    #[test]
    fn what_is_remembered_is_what_kubectl_remembers() {
        let mut manifest = json!({
            "kind": "ConfigMap", "apiVersion": "v1",
            "metadata": {"namespace": "default", "name": "c"},
            "data": {"b": "1 < 2 && 3 > 2", "a": "é"},
            "n": 2.0,
        });
        let written = concat!(
            r#"{"apiVersion":"v1","data":{"a":"é","b":"1 \u003c 2 \u0026\u0026 3 \u003e 2"},"kind":"ConfigMap","#,
            r#""metadata":{"annotations":{},"name":"c","namespace":"default"},"n":2}"#,
            "\n"
        );
        assert_eq!(record(&mut manifest), written);
        manifest["metadata"]["annotations"] = json!({LAST_APPLIED: "before", "mine": "x"});
        assert!(record(&mut manifest).contains(r#""annotations":{"mine":"x"}"#));
    }

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
            // A field that went from an item of a list goes with the list.
            (
                json!({"c": [{"n": "x", "r": {"cpu": 1}}]}),
                json!({"c": [{"n": "x"}]}),
                json!({"c": [{"n": "x", "r": {"cpu": 1}, "p": "Always"}]}),
                Some(json!({"c": [{"n": "x"}]})),
            ),
            // Further down, and where the items stand in another order.
            (
                json!({"c": [{"n": "x", "e": [{"k": "1", "v": "2"}]}, {"n": "y"}]}),
                json!({"c": [{"n": "x", "e": [{"k": "1"}]}, {"n": "y"}]}),
                json!({"c": [{"n": "x", "e": [{"k": "1", "v": "2"}]}, {"n": "y"}]}),
                Some(json!({"c": [{"n": "x", "e": [{"k": "1"}]}, {"n": "y"}]})),
            ),
            (
                json!({"c": [{"n": "x", "r": 1}, {"n": "y"}]}),
                json!({"c": [{"n": "y"}, {"n": "x"}]}),
                json!({"c": [{"n": "y"}, {"n": "x", "r": 1}]}),
                Some(json!({"c": [{"n": "y"}, {"n": "x"}]})),
            ),
            // What others added to an item stays while the manifest says what it said, however it writes its numbers.
            (
                json!({"c": [{"n": "x", "w": 2}]}),
                json!({"c": [{"w": 2.0, "n": "x"}]}),
                json!({"c": [{"n": "x", "w": 2.0, "r": {"cpu": 1}}]}),
                None,
            ),
        ];
        for (last, manifest, live, expected) in cases {
            assert_eq!(patch(Some(&last), &manifest, &live), expected, "{manifest}");
        }
    }
}
