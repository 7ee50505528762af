//! The schemas of the served kinds, as OpenAPI v3 publishes them: fields, types and descriptions from the typed structs, and
//! how lists and maps merge from the tables that patches and server-side apply go by.
//!
//! Not here: paths and operations. **Invariant:** what is published of a list is what this server does with it.

use std::collections::BTreeSet;

use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::apply::{ListType, Type};
use crate::{Kind, Review, View, meta, patch};

/// Their strategic merge also drops the members that a patch does not retain.
const RETAINING: &[&str] = &["volumes"];

/// What has a schema.
#[derive(Clone, Copy, Debug)]
pub enum Of {
    Kind(&'static Kind),
    View(&'static View),
    Review(&'static Review),
}

impl Of {
    /// Group, version and kind.
    pub fn place(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Of::Kind(kind) => (kind.group, kind.version, kind.kind),
            Of::View(view) => (view.group, view.version, view.kind),
            Of::Review(review) => (review.group, review.version, review.kind),
        }
    }

    fn define(self, generator: &mut SchemaGenerator) -> Option<String> {
        match self {
            Of::Kind(kind) => kind.define(generator),
            Of::View(view) => view.define(generator),
            Of::Review(review) => review.define(generator),
        }
    }

    /// How its lists merge: of what is no stored version, those of the metadata.
    fn merging(self) -> (Type<'static>, &'static patch::Type) {
        match self {
            Of::Kind(kind) => (Type::of(kind), kind.lists()),
            Of::View(_) | Of::Review(_) => (Type::object(), &patch::OBJECT),
        }
    }
}

/// The schemas of these and of all that they refer to, by name: `io.k8s.api.apps.v1.Deployment`.
pub fn schemas(all: impl IntoIterator<Item = Of>) -> Map<String, Value> {
    let mut generator = SchemaSettings::openapi3().into_generator();
    let named: Vec<(Of, String)> = all.into_iter().filter_map(|of| Some((of, of.define(&mut generator)?))).collect();
    let mut definitions = generator.take_definitions(true);
    for (of, name) in named {
        let mut done = BTreeSet::new();
        let (merging, lists) = of.merging();
        annotate(&mut definitions, &name, merging, lists, &mut done);
        if let Some(schema) = definitions.get_mut(&name) {
            let (group, version, kind) = of.place();
            let place = json!([{ "group": group, "version": version, "kind": kind }]);
            meta::set(schema, &["x-kubernetes-group-version-kind"], place);
            // The structs always have it; a client need not send it.
            meta::remove(schema, &["required"]);
        }
    }
    definitions
}

/// Notes in a definition, and in those it refers to, how lists and maps merge.
fn annotate(
    definitions: &mut Map<String, Value>,
    name: &str,
    of: Type<'_>,
    lists: &'static patch::Type,
    done: &mut BTreeSet<String>,
) {
    // A struct has one type, wherever it is referred to.
    if !done.insert(name.to_owned()) {
        return;
    }
    let mut deeper = Vec::new();
    let properties = definitions.get_mut(name).and_then(|schema| schema.get_mut("properties"));
    for (member, schema) in properties.and_then(Value::as_object_mut).into_iter().flatten() {
        let (of, merges) = (of.member(member), lists.merges(member));
        if schema["type"] == "array" {
            let kind = match of.list_type() {
                ListType::Atomic => "atomic",
                ListType::Set => "set",
                ListType::Map(keys) => {
                    schema["x-kubernetes-list-map-keys"] = json!(keys);
                    "map"
                }
            };
            schema["x-kubernetes-list-type"] = kind.into();
            if let Some(key) = merges {
                let strategy = if RETAINING.contains(&member.as_str()) { "merge,retainKeys" } else { "merge" };
                schema["x-kubernetes-patch-strategy"] = strategy.into();
                if let Some(key) = key {
                    schema["x-kubernetes-patch-merge-key"] = key.into();
                }
            }
        } else if of.is_atomic() {
            schema["x-kubernetes-map-type"] = "atomic".into();
        }
        let items = schema["type"] == "array";
        if let Some(name) = reference(if items { &schema["items"] } else { schema }) {
            let of = if items { of.items().map_or(Type::plain(), |items| items.of) } else { of };
            deeper.push((name, of, lists.below(member)));
        }
    }
    for (name, of, lists) in deeper {
        annotate(definitions, &name, of, lists, done);
    }
}

/// The definition that a schema refers to.
fn reference(schema: &Value) -> Option<String> {
    let wrapped = schema.pointer("/allOf/0/$ref").or_else(|| schema.get("$ref"));
    wrapped?.as_str()?.rsplit('/').next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kinds;

    #[test]
    fn every_kind_is_described() {
        let kinds = Kinds::builtin();
        let all: Vec<Of> = kinds
            .all()
            .map(Of::Kind)
            .chain(kinds.views().map(Of::View))
            .chain(kinds.reviews().map(Of::Review))
            .chain([Of::Review(&crate::kinds::reviews::TOKEN_REQUEST)])
            .collect();
        let schemas = schemas(all.iter().copied());
        for of in all {
            let (group, version, kind) = of.place();
            let place = json!([{ "group": group, "version": version, "kind": kind }]);
            let found = schemas.values().find(|schema| schema["x-kubernetes-group-version-kind"] == place);
            let schema = found.unwrap_or_else(|| panic!("{of:?} has a schema"));
            assert!(schema["description"].as_str().is_some_and(|text| !text.is_empty()), "{of:?}");
            assert!(schema["properties"]["metadata"].is_object(), "{of:?}");
        }
        let text = Value::Object(schemas.clone()).to_string();
        for name in text.split("#/components/schemas/").skip(1).filter_map(|rest| rest.split('"').next()) {
            assert!(schemas.contains_key(name), "{name} is referred to");
        }
    }

    #[test]
    fn lists_are_described_as_they_merge() {
        let schemas = schemas(Kinds::builtin().all().map(Of::Kind));
        for (place, member, list, keys, strategy, merge_key) in [
            ("core.v1.PodSpec", "containers", "map", json!(["name"]), json!("merge"), json!("name")),
            ("core.v1.PodSpec", "volumes", "map", json!(["name"]), json!("merge,retainKeys"), json!("name")),
            ("core.v1.PodSpec", "tolerations", "atomic", json!(null), json!(null), json!(null)),
            (
                "core.v1.Container",
                "ports",
                "map",
                json!(["containerPort", "protocol"]),
                json!("merge"),
                json!("containerPort"),
            ),
            ("core.v1.ServiceSpec", "ports", "map", json!(["port", "protocol"]), json!("merge"), json!("port")),
        ] {
            let field = &schemas[&format!("io.k8s.api.{place}")]["properties"][member];
            assert_eq!(field["x-kubernetes-list-type"], list, "{place}.{member}: {field}");
            assert_eq!(field["x-kubernetes-list-map-keys"], keys, "{place}.{member}");
            assert_eq!(field["x-kubernetes-patch-strategy"], strategy, "{place}.{member}");
            assert_eq!(field["x-kubernetes-patch-merge-key"], merge_key, "{place}.{member}");
        }
        let finalizers = &schemas["io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"]["properties"]["finalizers"];
        assert_eq!(finalizers["x-kubernetes-list-type"], "set");
        assert_eq!(finalizers["x-kubernetes-patch-strategy"], "merge");
        let selector = &schemas["io.k8s.api.core.v1.ServiceSpec"]["properties"]["selector"];
        assert_eq!(selector["x-kubernetes-map-type"], "atomic");
    }
}
