//! Event: something that happened to an object, kept for an hour.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use serde_json::Value;

use super::{Column, Fields, Kind, Rules, Typed, printed};
use crate::{At, Errors, meta};

static COLUMNS: &[Column] = &[
    printed::column(
        "Last Seen",
        "string",
        0,
        "The time at which the most recent occurrence of this event was recorded.",
    ),
    printed::column(
        "Type",
        "string",
        0,
        "Type of this event (Normal, Warning), new types could be added in the future",
    ),
    printed::column(
        "Reason",
        "string",
        0,
        "This should be a short, machine understandable string that gives the reason for the transition into the object's current status.",
    ),
    printed::column("Object", "string", 0, "The object that this event is about."),
    printed::column("Subobject", "string", 1, "The part of the object that this event is about."),
    printed::column(
        "Source",
        "string",
        1,
        "The component reporting this event. Should be a short machine understandable string.",
    ),
    printed::column("Message", "string", 0, "A human-readable description of the status of this operation."),
    printed::column("First Seen", "string", 1, "The time at which the event was first recorded."),
    printed::column("Count", "string", 1, "The number of times this event has occurred."),
    Column { priority: 1, ..printed::NAME },
];

pub(super) const KIND: Kind = Kind {
    kind: "Event",
    plural: "events",
    singular: "event",
    short_names: &["ev"],
    create_on_update: true,
    selectable: &[
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "source",
        "type",
    ],
    columns: COLUMNS,
    rules: Rules { typed: Typed::of::<Event>(), validate, fields, row, ..Rules::NONE },
    ..Kind::BASE
};

fn fields(object: &Value, fields: &mut Fields) {
    for field in ["kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath"] {
        fields.insert(format!("involvedObject.{field}"), meta::text(object, &["involvedObject", field]).into());
    }
    let source = match meta::text(object, &["source", "component"]) {
        "" => meta::text(object, &["reportingComponent"]),
        source => source,
    };
    fields.insert("source".into(), source.into());
    for field in ["reason", "reportingComponent", "type"] {
        fields.insert(field.into(), meta::text(object, &[field]).into());
    }
    let seen = last_seen(object).map_or(0, |time| time.as_millisecond());
    fields.insert("last-seen".into(), seen.to_string());
}

fn validate(new: &At<'_>, _old: Option<&At<'_>>, errors: &mut Errors) {
    let involved = new.fields(&["involvedObject", "namespace"]);
    let namespace = new.fields(&["metadata", "namespace"]).text();
    // An Event about something cluster-wide stands in `default`.
    let home = if involved.is_empty() { "default" } else { involved.text() };
    if home != namespace && !(involved.is_empty() && namespace == "kube-system") {
        errors.push(involved.invalid("does not match event.namespace"));
    }
}

fn first_of(object: &Value, paths: &[&[&str]]) -> Option<Timestamp> {
    paths.iter().find_map(|path| meta::time(object, path))
}

fn last_seen(object: &Value) -> Option<Timestamp> {
    first_of(object, &[&["series", "lastObservedTime"], &["lastTimestamp"], &["eventTime"], &["firstTimestamp"]])
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let ago = |time: Option<Timestamp>| match time {
        Some(time) => printed::human_duration(now.duration_since(time).as_secs()),
        None => "<unknown>".to_owned(),
    };
    let first = first_of(object, &[&["firstTimestamp"], &["eventTime"]]);
    let text = |path: &[&str]| meta::text(object, path).to_owned();
    let kind = text(&["involvedObject", "kind"]).to_lowercase();
    let name = text(&["involvedObject", "name"]);
    let about = if kind.is_empty() { name } else { format!("{kind}/{name}") };
    let either = |path: &[&str], other: &[&str]| match text(path) {
        one if one.is_empty() => text(other),
        one => one,
    };
    let component = either(&["source", "component"], &["reportingComponent"]);
    let source = match either(&["source", "host"], &["reportingInstance"]) {
        host if host.is_empty() => component,
        host => format!("{component}, {host}"),
    };
    let count = match meta::int(object, &["series", "count"]) {
        Some(count) => count,
        None => meta::int(object, &["count"]).filter(|n| *n > 0).unwrap_or(1),
    };
    vec![
        ago(last_seen(object).or(first)).into(),
        text(&["type"]).into(),
        text(&["reason"]).into(),
        about.into(),
        text(&["involvedObject", "fieldPath"]).into(),
        source.into(),
        text(&["message"]).trim().into(),
        ago(first).into(),
        count.into(),
        printed::name(object),
    ]
}
