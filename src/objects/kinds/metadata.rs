//! The rules of `metadata`, the same for every kind.

use super::Kind;
use crate::{At, Errors, names};

/// Finalizers that need no domain.
const STANDARD_FINALIZERS: &[&str] = &["kubernetes", "orphan", "foregroundDeletion"];

pub(super) fn validate(kind: &Kind, new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    let metadata = new.field("metadata");
    name(kind, &metadata, errors);
    namespace(kind, &metadata, errors);
    if metadata.field("generation").int().is_some_and(|n| n < 0) {
        errors.push(metadata.field("generation").invalid("must be greater than or equal to 0"));
    }
    names::check_labels(&metadata.field("labels"), errors);
    names::check_annotations(&metadata.field("annotations"), errors);
    owners(&metadata.field("ownerReferences"), errors);
    finalizers(&metadata.field("finalizers"), errors);
    if let Some(old) = old {
        update(&metadata, &old.field("metadata"), errors);
    }
}

fn name(kind: &Kind, metadata: &At<'_>, errors: &mut Errors) {
    let base = metadata.field("generateName");
    if !base.is_empty() {
        // A trailing dash is what generated names are for; it stands for the characters to come.
        let text = base.text();
        let masked = text.strip_suffix('-').map_or_else(|| text.to_owned(), |stem| format!("{stem}a"));
        errors.extend(kind.check_name(&masked).into_iter().map(|message| base.invalid(message)));
    }
    let name = metadata.field("name");
    if name.is_empty() {
        errors.push(name.required("name or generateName is required"));
        return;
    }
    errors.extend(kind.check_name(name.text()).into_iter().map(|message| name.invalid(message)));
}

fn namespace(kind: &Kind, metadata: &At<'_>, errors: &mut Errors) {
    let namespace = metadata.field("namespace");
    match (kind.namespaced, namespace.is_empty()) {
        (true, true) => errors.push(namespace.required("")),
        (true, false) => {
            errors.extend(names::label(namespace.text()).into_iter().map(|message| namespace.invalid(message)));
        }
        (false, false) => errors.push(namespace.forbidden("not allowed on this type")),
        (false, true) => {}
    }
}

fn owners(at: &At<'_>, errors: &mut Errors) {
    let mut controller: Option<String> = None;
    for owner in at.items() {
        for (field, message) in [
            ("apiVersion", "version must not be empty"),
            ("kind", "must not be empty"),
            ("name", "must not be empty"),
            ("uid", "must not be empty"),
        ] {
            if owner.field(field).is_empty() {
                errors.push(owner.field(field).invalid_value("", message));
            }
        }
        if owner.field("controller").bool() {
            let this = format!("{}/{}", owner.field("kind").text(), owner.field("name").text());
            if let Some(first) = &controller {
                errors.push(at.invalid(format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"
                )));
            }
            controller = Some(this);
        }
    }
}

fn finalizers(at: &At<'_>, errors: &mut Errors) {
    for finalizer in at.items() {
        let text = finalizer.text();
        errors.extend(names::qualified_name(text).into_iter().map(|message| at.invalid_value(text, message)));
        if !text.contains('/') && !STANDARD_FINALIZERS.contains(&text) {
            errors.push(at.invalid_value(text, "name is neither a standard finalizer name nor is it fully qualified"));
        }
    }
    let has = |name: &str| at.items().any(|finalizer| finalizer.text() == name);
    if has("orphan") && has("foregroundDeletion") {
        errors.push(at.invalid("finalizer orphan and foregroundDeletion cannot be both set"));
    }
}

fn update(new: &At<'_>, old: &At<'_>, errors: &mut Errors) {
    if old.field("deletionTimestamp").is_set() {
        let before: Vec<&str> = old.field("finalizers").items().map(|f| f.value.as_str().unwrap_or("")).collect();
        let finalizers = new.field("finalizers");
        let added: Vec<&str> = finalizers.items().map(|f| f.text()).filter(|f| !before.contains(f)).collect();
        if !added.is_empty() {
            errors.push(finalizers.forbidden(format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers {added:?}"
            )));
        }
    }
    for field in ["name", "namespace", "uid", "creationTimestamp"] {
        new.field(field).immutable(&old.field(field), errors);
    }
}
