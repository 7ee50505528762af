//! The times of entries: they change when something else does.

use serde_json::{Map, Value};

use super::MANAGED_FIELDS;
use super::managers::{Entry, Managers};
use crate::meta;

/// Gives the entries of `new` their old times where nothing but times differs from `live`. For the end of a write, when
/// defaults are in and what the server owns is back in place: a write that changes nothing is none.
pub fn keep_times(live: Option<&Value>, new: &mut Value) {
    let Some(live) = live else { return };
    let (Some(old), Some(sent)) = (meta::at(live, MANAGED_FIELDS), meta::at(new, MANAGED_FIELDS)) else { return };
    if same_but_times(old, sent) && same_but_managed(live, new) {
        let old = old.clone();
        meta::set(new, MANAGED_FIELDS, old);
    }
}

/// The order of entries depends on their times.
fn same_but_times(old: &Value, new: &Value) -> bool {
    let timeless = |json: &Value| -> Option<Vec<Entry>> {
        let managers = Managers::from_json(Some(json)).ok()?;
        let mut entries: Vec<Entry> = managers.entries().map(|entry| Entry { time: None, ..entry.clone() }).collect();
        entries.sort_by_key(|entry| (entry.operation, entry.who(), entry.api_version.clone()));
        Some(entries)
    };
    timeless(old).is_some_and(|old| Some(old) == timeless(new))
}

fn same_but_managed(old: &Value, new: &Value) -> bool {
    let (Value::Object(old), Value::Object(new)) = (old, new) else { return old == new };
    let metadata = |object: &Map<String, Value>| {
        let mut metadata = object.get("metadata").cloned().unwrap_or_default();
        meta::remove(&mut metadata, &["managedFields"]);
        metadata
    };
    let rest = |(name, value): (&String, &Value), other: &Map<String, Value>| {
        name == "metadata" || other.get(name) == Some(value)
    };
    old.len() == new.len() && old.iter().all(|member| rest(member, new)) && metadata(old) == metadata(new)
}
