//! ConfigMap: text and bytes by key, at most 1 MiB together, possibly frozen.

use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::Value;

use super::{Column, Kind, Rules, Typed, printed};
use crate::{At, Errors, Reason, meta, names};

/// Of all values of a ConfigMap or Secret together.
pub(super) const BYTES_MAX: usize = 1024 * 1024;

static COLUMNS: &[Column] =
    &[printed::NAME, printed::column("Data", "string", 0, "Number of keys in data and binaryData."), printed::AGE];

pub(super) const KIND: Kind = Kind {
    kind: "ConfigMap",
    plural: "configmaps",
    singular: "configmap",
    short_names: &["cm"],
    columns: COLUMNS,
    rules: Rules {
        typed: Typed::of::<ConfigMap>(),
        validate,
        row: |object, now| {
            let keys = |field| meta::at(object, &[field]).and_then(Value::as_object).map_or(0, serde_json::Map::len);
            vec![printed::name(object), (keys("data") + keys("binaryData")).into(), printed::age(object, now)]
        },
        ..Rules::NONE
    },
    ..Kind::BASE
};

fn validate(new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    let (data, binary) = (new.field("data"), new.field("binaryData"));
    let mut bytes = 0;
    for (key, value) in data.entries() {
        errors.extend(names::config_key(key).into_iter().map(|message| value.invalid_value(key, message)));
        if binary.value.get(key).is_some() {
            errors.push(value.invalid_value(key, "duplicate of key present in binaryData"));
        }
        bytes += value.text().len();
    }
    for (key, value) in binary.entries() {
        errors.extend(names::config_key(key).into_iter().map(|message| value.invalid_value(key, message)));
        bytes += decoded_length(value.text());
    }
    if bytes > BYTES_MAX {
        errors.push(At::new("", new.value).too_long(BYTES_MAX));
    }
    if let Some(old) = old {
        frozen(new, old, &["data", "binaryData"], errors);
    }
}

/// The length of what base64 text stands for.
pub(super) fn decoded_length(text: &str) -> usize {
    text.trim_end_matches('=').len() * 3 / 4
}

/// Once `immutable` is set, neither it nor the data changes.
pub(super) fn frozen(new: &At<'_>, old: &At<'_>, data: &[&str], errors: &mut Errors) {
    if !old.field("immutable").bool() {
        return;
    }
    let immutable = new.field("immutable");
    if !immutable.bool() {
        errors.push(immutable.error(Reason::Forbidden, "field is immutable when `immutable` is set"));
    }
    for field in data {
        let (new, old) = (new.field(field), old.field(field));
        if new.value != old.value && !(new.is_empty() && old.is_empty()) {
            errors.push(new.forbidden("field is immutable when `immutable` is set"));
        }
    }
}
