//! Answers in YAML. Every reader of YAML, of any version, must take a string for a string: so whatever some of them reads
//! as a time, a number, a boolean or nothing stands in quotes.

use std::fmt::Write;

use serde_json::Value;

/// Turns a JSON document into YAML in block style.
///
/// # Errors
/// When it is no JSON.
pub fn from_json(json: &[u8]) -> serde_json::Result<Vec<u8>> {
    let value: Value = serde_json::from_slice(json)?;
    let mut out = String::with_capacity(json.len() + json.len() / 4);
    write_value(&value, 0, &mut out);
    if out.starts_with('\n') {
        out.remove(0);
    }
    out.push('\n');
    Ok(out.into_bytes())
}

/// A value behind its key or dash: on the same line if it is short, below it with `indent` blanks if not.
fn write_value(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                line(indent, out);
                write_string(key, out);
                out.push(':');
                // A list may stand as far left as its key.
                let below = if value.is_array() { indent } else { indent + 2 };
                write_behind(value, below, out);
            }
        }
        Value::Array(list) if !list.is_empty() => {
            for value in list {
                line(indent, out);
                out.push('-');
                match value {
                    // The first entry follows the dash on its line.
                    Value::Object(map) if !map.is_empty() => {
                        let start = out.len();
                        write_value(value, indent + 2, out);
                        out.replace_range(start..start + 1 + indent + 2, " ");
                    }
                    value => write_behind(value, indent + 2, out),
                }
            }
        }
        Value::String(text) => write_string(text, out),
        // Empty maps and lists, numbers, booleans and null are written as in JSON. Writing into a String cannot fail.
        scalar => drop(write!(out, "{scalar}")),
    }
}

fn write_behind(value: &Value, indent: usize, out: &mut String) {
    let below = match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(list) => !list.is_empty(),
        _ => false,
    };
    if !below {
        out.push(' ');
    }
    write_value(value, indent, out);
}

fn line(indent: usize, out: &mut String) {
    out.push('\n');
    out.extend(std::iter::repeat_n(' ', indent));
}

fn write_string(text: &str, out: &mut String) {
    if is_plain(text) {
        out.push_str(text);
    } else {
        // A string of JSON is one of YAML, but for characters that must not stand there as they are.
        for c in Value::from(text).to_string().chars() {
            match c {
                '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => {
                    let _ = write!(out, "\\u{:04x}", u32::from(c));
                }
                c => out.push(c),
            }
        }
    }
}

/// Whether every reader takes the bare text for a string.
fn is_plain(text: &str) -> bool {
    const WORDS: &[&str] = &["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_./".contains(&c))
        && !WORDS.contains(&text.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn yaml(value: &Value) -> String {
        String::from_utf8(from_json(value.to_string().as_bytes()).expect("JSON")).expect("text")
    }

    #[test]
    fn what_could_be_misread_is_quoted() {
        let object = json!({
            "at": "2026-01-01T00:00:00Z", "day": "2026-01-01", "no": "no", "count": "1e3", "sum": 3, "off": false,
            "time": "12:30:00", "hex": "0x1f", "empty": "", "text": "a b: c\n", "tilde": "~", "image": "docker.io/web:1.2",
            "list": [{"name": "a", "ports": [80, {"x": {}}]}, "plain", [], [["deep"]]], "map": {"k/v": {"a": null}},
        });
        let text = yaml(&object);
        for line in [
            "at: \"2026-01-01T00:00:00Z\"",
            "\"no\": \"no\"",
            "count: \"1e3\"",
            "sum: 3",
            "list:\n- name: a\n  ports:\n  - 80\n  - x: {}\n- plain\n- []\n-\n  -\n    - deep\n",
            "map:\n  k/v:\n    a: null",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert_eq!(serde_yaml::from_str::<Value>(&text).expect("YAML"), object);
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "\\PC{0,8}|[a-z0-9:. -]{0,8}|[\\n\\t\"'#&*!|>%@`{}\\[\\],?~=-]{0,4}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                proptest::collection::btree_map("[a-z0-9./: -]{0,6}", inner, 0..5)
                    .prop_map(|map| map.into_iter().collect::<serde_json::Map<_, _>>().into()),
            ]
        })
    }

    proptest! {
        #[test]
        fn it_reads_back_as_it_was(value in any_value()) {
            let text = yaml(&value);
            prop_assert_eq!(serde_yaml::from_str::<Value>(&text).map_err(|error| format!("{error}\n{text}")), Ok(value));
        }
    }
}
