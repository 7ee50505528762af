//! What Kubernetes documents of server-side apply, as tables, and the laws as properties.

mod fields;
mod merging;
mod owners;
mod properties;
mod schema;
mod updates;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::managers::UPDATERS_MAX;
use super::*;

/// A second of the tests' time.
fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

/// Writes of one kind by one manager.
#[derive(Clone, Copy)]
struct By {
    api_version: &'static str,
    kind: &'static str,
    manager: &'static str,
    subresource: &'static str,
    second: i64,
}

impl By {
    fn write(&self) -> Write<'static> {
        Write {
            of: Schema::kind(self.api_version, self.kind),
            api_version: self.api_version.to_owned(),
            has_status: !matches!(self.kind, "ConfigMap" | "Secret" | "ServiceAccount"),
            manager: self.manager,
            subresource: self.subresource,
            now: at(self.second),
        }
    }

    fn of(self, subresource: &'static str) -> By {
        By { subresource, ..self }
    }

    fn at(self, second: i64) -> By {
        By { second, ..self }
    }

    /// The configuration with the version, kind and name it needs.
    fn whole(&self, rest: &Value) -> Value {
        let mut object = json!({"apiVersion": self.api_version, "kind": self.kind, "metadata": {"name": "x"}});
        merge_into(&mut object, rest);
        object
    }

    fn tries(&self, live: Option<&Value>, rest: Value) -> Result<Value, ApplyError> {
        apply(live, &self.whole(&rest), &self.write(), false)
    }

    #[track_caller]
    fn applies(&self, live: impl Into<Option<Value>>, rest: Value) -> Value {
        self.tries(live.into().as_ref(), rest).unwrap()
    }

    #[track_caller]
    fn forces(&self, live: &Value, rest: Value) -> Value {
        apply(Some(live), &self.whole(&rest), &self.write(), true).unwrap()
    }

    /// The conflicts of an apply, as messages name them.
    #[track_caller]
    fn conflicts(&self, live: &Value, rest: Value) -> Vec<String> {
        match self.tries(Some(live), rest) {
            Err(ApplyError::Conflicts(list)) => {
                list.iter().map(|c| format!("{}: {}", c.message(), c.field())).collect()
            }
            other => panic!("no conflicts: {other:?}"),
        }
    }

    fn creates(&self, rest: Value) -> Value {
        let mut new = self.whole(&rest);
        meta::set(&mut new, &["metadata", "uid"], "u".into());
        updated(None, &mut new, &self.write());
        new
    }

    /// An update by a merge patch.
    fn patches(&self, live: &Value, patch: Value) -> Value {
        let mut new = live.clone();
        crate::patch::merge(&mut new, &patch).unwrap();
        updated(Some(live), &mut new, &self.write());
        new
    }
}

fn merge_into(object: &mut Value, rest: &Value) {
    match (object, rest) {
        (Value::Object(object), Value::Object(rest)) => {
            for (name, value) in rest {
                merge_into(object.entry(name.as_str()).or_insert(Value::Null), value);
            }
        }
        (object, rest) => *object = rest.clone(),
    }
}

fn config_map(manager: &'static str) -> By {
    By { api_version: "v1", kind: "ConfigMap", manager, subresource: "", second: 0 }
}

fn deployment(manager: &'static str) -> By {
    By { api_version: "apps/v1", kind: "Deployment", ..config_map(manager) }
}

fn service(manager: &'static str) -> By {
    By { kind: "Service", ..config_map(manager) }
}

/// A Deployment's pod template with these containers.
fn containers(containers: Value) -> Value {
    json!({"spec": {"template": {"spec": {"containers": containers}}}})
}

/// The owners of an object: `manager/operation[/subresource]` and the fields as JSON text.
fn owned(object: &Value) -> Vec<(String, String)> {
    let entries = object.pointer("/metadata/managedFields").and_then(Value::as_array).cloned().unwrap_or_default();
    entries
        .iter()
        .map(|entry| {
            let words = ["manager", "operation", "subresource"].map(|name| meta::text(entry, &[name]));
            let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
            (words.join("/"), entry["fieldsV1"].to_string())
        })
        .collect()
}

#[track_caller]
fn check_owned(object: &Value, expect: &[(&str, Value)]) {
    let expect: Vec<(String, String)> =
        expect.iter().map(|(who, fields)| ((*who).to_owned(), fields.to_string())).collect();
    assert_eq!(owned(object), expect);
}
