//! Objects to records and back: the one place where an object (`objects`) becomes a stored record (`state`).
//!
//! ```text
//! {"apiVersion":…,"kind":…,"metadata":{"resourceVersion":        body[..split]
//!                                                        "42"    spliced in by Record::write_json
//!                              ,"managedFields":[…]              likewise, where there are some
//!                                                ,"name":…}…}    body[split..]
//! ```
//!
//! Nothing else builds headers or bodies. Secrets are sealed between [`put`] and the store, and opened between the store and
//! [`parse`], by [`crate::seal`].
//!
//! **Invariant:** `parse(put(object))` is the object, but for `resourceVersion`, which is the record's revision.

use objects::{FieldError, Kind, Reason, meta, quota};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use state::{Header, Key, Owner, Put, Record, bounds};

use crate::seal;

/// Builds the Put of a complete JSON object, which names itself in `metadata`. What the store adds (resourceVersion) is
/// left out of the body; managed fields are kept beside it.
///
/// # Errors
/// For an object without name, or a namespaced one without namespace.
pub fn put(kind: &Kind, object: &Value) -> Result<Put, FieldError> {
    let (name, namespace) = (meta::name(object), meta::namespace(object));
    if name.is_empty() {
        return Err(FieldError::new("metadata.name", Reason::Required, "name or generateName is required"));
    }
    if kind.namespaced && namespace.is_empty() {
        return Err(FieldError::new("metadata.namespace", Reason::Required, ""));
    }
    let (body, split) = body(kind, object)
        .map_err(|error| FieldError::new("", Reason::Invalid, format!("cannot be written as JSON: {error}")))?;
    let managed_fields = match meta::at(object, &["metadata", "managedFields"]) {
        Some(fields) if !meta::is_empty(fields) => fields.to_string().into_bytes(),
        _ => Vec::new(),
    };
    Ok(Put {
        key: key(kind, namespace, name),
        header: header(kind, object),
        body: body.into(),
        split,
        managed_fields: managed_fields.into(),
    })
}

/// The largest object, in bytes of its JSON, managed fields among them.
pub const OBJECT_BYTES_MAX: usize = 1536 * 1024;

/// # Errors
/// When the object is larger than one may be, whoever writes it; worded as Kubernetes does.
pub fn check_size(put: &Put) -> Result<(), String> {
    if put.body.len() + put.managed_fields.len() > OBJECT_BYTES_MAX {
        return Err(format!("Request entity too large: limit is {OBJECT_BYTES_MAX}"));
    }
    Ok(())
}

/// The complete object with its resourceVersion.
pub fn parse(record: &Record) -> Value {
    // A body that `put` wrote parses; should a record be damaged, an empty object stands for it rather than a panic.
    serde_json::from_slice(&record.json()).unwrap_or_else(|_| Value::Object(Map::new()))
}

/// The object as a typed struct; `None` where it does not fit.
pub fn typed<T: DeserializeOwned>(record: &Record) -> Option<T> {
    serde_json::from_slice(&record.json()).ok()
}

/// Where an object of this kind stands. The namespace of a cluster-scoped kind does not matter.
pub fn key(kind: &Kind, namespace: &str, name: &str) -> Key {
    Key::new(kind.group, kind.plural, if kind.namespaced { namespace } else { "" }, name)
}

fn fields(kind: &Kind, object: &Value) -> std::collections::BTreeMap<String, String> {
    let mut fields = kind.fields(object);
    if kind.group.is_empty() && kind.plural == "secrets" {
        fields.extend(seal::key_in(object).map(|key| (seal::KEY.to_owned(), key.to_owned())));
    }
    let uses = kind.uses(object);
    fields.extend(uses.amounts.into_iter().map(|(thing, n)| (format!("{}{thing}", bounds::USES), n.to_string())));
    if !uses.class.is_empty() {
        fields.insert(bounds::CLASS.to_owned(), uses.class.join(","));
    }
    if kind.group.is_empty() && kind.plural == "resourcequotas" {
        fields.extend(quota_fields(object));
    }
    fields
}

/// What a ResourceQuota bounds, as `apply` reads it.
fn quota_fields(object: &Value) -> Vec<(String, String)> {
    let limit =
        |limit: quota::Limit| (format!("{}{}", bounds::BOUND, limit.name), format!("{} {}", limit.thing, limit.amount));
    let condition = |condition: quota::Condition| {
        let not = if condition.none { "!" } else { "" };
        format!("{not}{}", condition.words.join("|"))
    };
    let mut fields: Vec<_> = quota::limits(object).into_iter().map(limit).collect();
    let scope: Vec<String> = quota::conditions(object).into_iter().map(condition).collect();
    if !scope.is_empty() {
        fields.push((bounds::SCOPE.to_owned(), scope.join(" ")));
    }
    fields
}

fn header(kind: &Kind, object: &Value) -> Header {
    let millis = |path: &[&str]| meta::time(object, path).map_or(0, |time| time.as_millisecond());
    let pod = kind.group.is_empty() && kind.plural == "pods";
    Header {
        uid: meta::uid(object).to_owned(),
        labels: meta::labels(object).into_iter().collect(),
        owners: meta::owners(object)
            .into_iter()
            .map(|owner| Owner {
                uid: owner.uid,
                controller: owner.controller,
                block_deletion: owner.block_owner_deletion,
            })
            .collect(),
        fields: fields(kind, object).into_iter().collect(),
        claims: kind.claims(object),
        node: if pod { meta::text(object, &["spec", "nodeName"]).to_owned() } else { String::new() },
        deletion_ms: millis(&["metadata", "deletionTimestamp"]),
        creation_ms: millis(&["metadata", "creationTimestamp"]),
        generation: meta::generation(object),
        finalizers: meta::finalizers(object),
    }
}

/// The body and where the revision goes. Members stand in the order of their names and nulls are left out, so that equal
/// objects have equal bytes and writing one again changes nothing.
fn body(kind: &Kind, object: &Value) -> Result<(Vec<u8>, u32), serde_json::Error> {
    let mut out = Vec::with_capacity(512);
    out.extend_from_slice(b"{\"apiVersion\":");
    serde_json::to_writer(&mut out, &kind.api_version())?;
    out.extend_from_slice(b",\"kind\":");
    serde_json::to_writer(&mut out, kind.kind)?;
    out.extend_from_slice(b",\"metadata\":{\"resourceVersion\":");
    let split = u32::try_from(out.len()).unwrap_or(u32::MAX);
    if let Some(metadata) = object.get("metadata").and_then(Value::as_object) {
        for (name, value) in members(metadata, &["resourceVersion", "managedFields"]) {
            out.push(b',');
            member(&mut out, name, value)?;
        }
    }
    out.push(b'}');
    if let Some(object) = object.as_object() {
        for (name, value) in members(object, &["apiVersion", "kind", "metadata"]) {
            out.push(b',');
            member(&mut out, name, value)?;
        }
    }
    out.push(b'}');
    Ok((out, split))
}

/// A value as JSON in the form of the bodies: equal values have equal bytes.
pub(crate) fn canonical(value: &Value) -> Result<Vec<u8>, serde_json::Error> {
    let mut out = Vec::new();
    write(&mut out, value)?;
    Ok(out)
}

/// The members but those of `without` and nulls, in the order of their names.
fn members<'a>(map: &'a Map<String, Value>, without: &[&str]) -> Vec<(&'a String, &'a Value)> {
    let mut all: Vec<_> =
        map.iter().filter(|(name, value)| !value.is_null() && !without.contains(&name.as_str())).collect();
    all.sort_unstable_by_key(|(name, _)| *name);
    all
}

fn member(out: &mut Vec<u8>, name: &str, value: &Value) -> Result<(), serde_json::Error> {
    serde_json::to_writer(&mut *out, name)?;
    out.push(b':');
    write(out, value)
}

fn write(out: &mut Vec<u8>, value: &Value) -> Result<(), serde_json::Error> {
    match value {
        Value::Object(map) => {
            out.push(b'{');
            for (i, (name, value)) in members(map, &[]).into_iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                member(out, name, value)?;
            }
            out.push(b'}');
            Ok(())
        }
        Value::Array(list) => {
            out.push(b'[');
            for (i, value) in list.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                write(out, value)?;
            }
            out.push(b']');
            Ok(())
        }
        scalar => serde_json::to_writer(out, scalar),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use objects::Kinds;
    use serde_json::json;

    use super::*;

    fn record(object: &Value, kind: &Kind) -> Arc<Record> {
        let put = put(kind, object).expect("complete");
        Arc::new(Record {
            header: put.header,
            body: put.body,
            split: put.split,
            managed_fields: put.managed_fields,
            created: 7,
            revision: 42,
        })
    }

    #[test]
    fn an_object_survives() {
        let kind = Kinds::builtin().by_resource("", "pods").expect("built in");
        let mut object = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": "a", "namespace": "b", "uid": "u", "resourceVersion": "3",
                "creationTimestamp": "2026-01-02T03:04:05Z", "labels": {"x": "y"},
                "managedFields": [{"manager": "m"}],
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "o", "controller": true}],
            },
            "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "é\"\\"}]},
        });
        let record = record(&object, kind);
        assert_eq!(record.header.node, "n1");
        assert_eq!(record.header.owners, [Owner { uid: "o".into(), controller: true, block_deletion: false }]);
        assert_eq!(record.header.creation_ms, 1_767_323_045_000);
        assert!(!String::from_utf8_lossy(&record.body).contains("managedFields"));
        object["metadata"]["resourceVersion"] = "42".into();
        assert_eq!(parse(&record), object);
    }

    #[test]
    fn equal_objects_have_equal_bytes() {
        let kind = Kinds::builtin().by_resource("", "configmaps").expect("built in");
        let one = json!({"metadata": {"name": "a", "namespace": "b", "uid": "u"}, "data": {"x": "1", "y": "2"}});
        let other =
            json!({"data": {"y": "2", "x": "1", "z": null}, "metadata": {"uid": "u", "namespace": "b", "name": "a"}});
        assert_eq!(record(&one, kind).body, record(&other, kind).body);
    }

    #[test]
    fn nameless_objects_are_refused() {
        let kind = Kinds::builtin().by_resource("", "pods").expect("built in");
        let error = put(kind, &json!({"metadata": {"namespace": "x"}})).expect_err("no name");
        assert_eq!(error.field, "metadata.name");
    }
}
