//! Roles and bindings in a state, and requests, in a line each.

use objects::selector::FieldSelector;
use serde_json::{Value, json};
use state::{Command, EntryId, Header, Key, Op, Put, State};

use super::{CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, GROUP, ROLE_BINDINGS, ROLES};
use crate::authz::Attributes;

/// `group|resource|subresource|namespace|name|field selector`, or `:path`.
pub fn asked(verb: &str, what: &str) -> Attributes {
    if let Some(path) = what.strip_prefix(':') {
        return Attributes { verb: verb.into(), path: path.into(), ..Attributes::default() };
    }
    let mut parts = what.split('|').map(str::to_owned);
    let mut next = || parts.next().unwrap_or_default();
    Attributes {
        verb: verb.into(),
        group: next(),
        resource: next(),
        subresource: next(),
        namespace: next(),
        name: next(),
        fields: FieldSelector::parse(&next()).expect("a field selector"),
        ..Attributes::default()
    }
}

/// `resource/name` or `resource/namespace/name` of this group.
pub fn key(path: &str) -> Key {
    match path.split('/').collect::<Vec<_>>()[..] {
        [resource, name] => Key::new(GROUP, resource, "", name),
        [resource, namespace, name] => Key::new(GROUP, resource, namespace, name),
        _ => panic!("{path} is no key"),
    }
}

/// Stores an object under its key, whatever kinds are known.
pub fn put(root: &mut State, path: &str, mut object: Value) {
    let key = key(path);
    if !key.namespace.is_empty() && root.get(&Key::namespace(key.namespace.as_str())).is_none() {
        let header = Header { uid: format!("uid of {}", key.namespace), ..Header::default() };
        let namespace = Put { key: Key::namespace(key.namespace.as_str()), header, ..Put::default() };
        apply(root, Op::put(namespace));
    }
    let kind = match key.resource.as_str() {
        ROLES => "Role",
        CLUSTER_ROLES => "ClusterRole",
        ROLE_BINDINGS => "RoleBinding",
        CLUSTER_ROLE_BINDINGS => "ClusterRoleBinding",
        other => panic!("{other} is none of this group"),
    };
    let labels = objects::meta::labels(&object).into_iter().collect();
    let mut metadata = object["metadata"].take();
    if !metadata.is_object() {
        metadata = json!({});
    }
    metadata["name"] = key.name.clone().into();
    metadata["uid"] = format!("uid of {path}").into();
    if !key.namespace.is_empty() {
        metadata["namespace"] = key.namespace.clone().into();
    }
    object.as_object_mut().expect("an object").remove("metadata");
    // As `record` writes bodies: the revision goes in behind `split`.
    let head = format!("{{\"apiVersion\":\"{GROUP}/v1\",\"kind\":\"{kind}\",\"metadata\":{{\"resourceVersion\":");
    let rest: String =
        object.as_object().expect("one").iter().map(|(name, value)| format!(",\"{name}\":{value}")).collect();
    let body = format!("{head},{}{rest}}}", &metadata.to_string()[1..]);
    let header = Header { uid: format!("uid of {path}"), labels, ..Header::default() };
    let split = u32::try_from(head.len()).expect("short");
    apply(root, Op::put(Put { key, header, body: body.into(), split, ..Put::default() }));
}

pub fn remove(root: &mut State, path: &str) {
    apply(root, Op::delete(key(path)));
}

pub fn apply(root: &mut State, op: Op) {
    let entry = EntryId { term: 1, index: root.applied().index + 1 };
    let applied = root.apply(entry, &Command { ops: vec![op], ..Command::default() });
    assert_eq!(applied.outcome.refusal, None);
}

/// `kind:name` or `ServiceAccount:namespace/name`.
pub fn subject(text: &str) -> Value {
    let (kind, name) = text.split_once(':').expect("kind:name");
    match name.split_once('/').filter(|_| kind == "ServiceAccount") {
        Some((namespace, name)) => json!({"kind": kind, "namespace": namespace, "name": name}),
        None => json!({"apiGroup": GROUP, "kind": kind, "name": name}),
    }
}

/// The body of a binding.
pub fn binding(role: &str, subjects: &[&str]) -> Value {
    let (kind, name) = role.split_once(':').expect("kind:name");
    let subjects: Vec<Value> = subjects.iter().map(|text| subject(text)).collect();
    json!({"roleRef": {"apiGroup": GROUP, "kind": kind, "name": name}, "subjects": subjects})
}

/// The body of a role.
pub fn role(rules: Value) -> Value {
    json!({"rules": rules})
}
