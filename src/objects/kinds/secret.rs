//! Secret: bytes by key, with the checks of its well known types. `stringData` is write only.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};

use super::configmap::{BYTES_MAX, decoded_length, frozen};
use super::{Column, Kind, Rules, Typed, printed};
use crate::{At, Errors, Reason, meta, names};

static COLUMNS: &[Column] = &[
    printed::NAME,
    printed::column("Type", "string", 0, "Used to facilitate programmatic handling of secret data."),
    printed::column("Data", "string", 0, "Number of keys in data."),
    printed::AGE,
];

pub(super) const KIND: Kind = Kind {
    kind: "Secret",
    plural: "secrets",
    singular: "secret",
    selectable: &["type"],
    columns: COLUMNS,
    rules: Rules {
        typed: Typed::of::<Secret>(),
        default,
        validate,
        update: |new, old, _| {
            if meta::text(new, &["type"]).is_empty() {
                meta::copy(new, old, &["type"]);
            }
        },
        fields: |object, fields| {
            fields.insert("type".into(), meta::text(object, &["type"]).into());
        },
        row: |object, now| {
            let keys = meta::at(object, &["data"]).and_then(Value::as_object).map_or(0, serde_json::Map::len);
            vec![printed::name(object), meta::text(object, &["type"]).into(), keys.into(), printed::age(object, now)]
        },
        ..Rules::NONE
    },
    ..Kind::BASE
};

fn default(object: &mut Value) {
    if meta::text(object, &["type"]).is_empty() {
        meta::set(object, &["type"], "Opaque".into());
    }
    if let Some(Value::Object(strings)) = meta::remove(object, &["stringData"]) {
        for (key, value) in strings {
            let bytes = STANDARD.encode(value.as_str().unwrap_or(""));
            meta::set(object, &["data", &key], json!(bytes));
        }
    }
}

/// The keys a type demands; for some, one of several is enough.
const DEMANDED: &[(&str, &[&str])] = &[
    ("kubernetes.io/dockercfg", &[".dockercfg"]),
    ("kubernetes.io/dockerconfigjson", &[".dockerconfigjson"]),
    ("kubernetes.io/ssh-auth", &["ssh-privatekey"]),
    ("kubernetes.io/tls", &["tls.crt", "tls.key"]),
];

fn validate(new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    let data = new.field("data");
    let mut bytes = 0;
    for (key, value) in data.entries() {
        errors.extend(names::config_key(key).into_iter().map(|message| value.invalid_value(key, message)));
        bytes += decoded_length(value.text());
    }
    if bytes > BYTES_MAX {
        errors.push(data.too_long(BYTES_MAX));
    }
    let kind = new.field("type").text();
    for (_, keys) in DEMANDED.iter().filter(|(demanding, _)| *demanding == kind) {
        for key in keys.iter().filter(|key| data.value.get(**key).is_none()) {
            errors.push(data.key(key).required(""));
        }
    }
    match kind {
        "kubernetes.io/basic-auth" if ["username", "password"].iter().all(|key| data.value.get(*key).is_none()) => {
            errors.push(data.key("username").required(""));
            errors.push(data.key("password").required(""));
        }
        "kubernetes.io/service-account-token" => {
            let annotation = new.fields(&["metadata", "annotations"]).key("kubernetes.io/service-account.name");
            if annotation.is_empty() {
                errors.push(annotation.required(""));
            }
        }
        "kubernetes.io/dockercfg" | "kubernetes.io/dockerconfigjson" => docker_config(&data, errors),
        _ => {}
    }
    if let Some(old) = old {
        new.field("type").immutable(&old.field("type"), errors);
        frozen(new, old, &["data"], errors);
    }
}

fn docker_config(data: &At<'_>, errors: &mut Errors) {
    for (key, value) in data.entries().filter(|(key, _)| key.starts_with(".dockerc")) {
        let decoded = STANDARD.decode(value.text()).ok();
        let json = decoded.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
        if !json.is_some_and(|json| json.is_object()) {
            let at = data.key(key);
            errors.push(
                at.error(Reason::Invalid, "must be a JSON object").with_value("<secret contents redacted>".into()),
            );
        }
    }
}
