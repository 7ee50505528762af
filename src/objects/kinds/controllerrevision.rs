//! ControllerRevision: what a DaemonSet or StatefulSet once was, for rolling back to.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ControllerRevision;
use serde_json::Value;

use super::{Column, Kind, Rules, Typed, printed};
use crate::{At, Errors, meta};

static COLUMNS: &[Column] = &[
    printed::NAME,
    printed::column("Controller", "string", 0, "Controller of the object"),
    printed::column("Revision", "string", 0, "Revision indicates the revision of the state represented by Data."),
    printed::AGE,
];

pub(super) const KIND: Kind = Kind {
    group: "apps",
    kind: "ControllerRevision",
    plural: "controllerrevisions",
    singular: "controllerrevision",
    columns: COLUMNS,
    rules: Rules { typed: Typed::of::<ControllerRevision>(), validate, row, ..Rules::NONE },
    ..Kind::BASE
};

fn validate(new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    let data = new.field("data");
    match data.value {
        Value::Null => errors.push(data.required("data is mandatory")),
        Value::Object(_) => {}
        _ => errors.push(data.invalid("data must be a valid JSON object")),
    }
    new.field("revision").non_negative(errors);
    if let Some(old) = old
        && old.field("data").value != data.value
    {
        errors.push(data.invalid("field is immutable"));
    }
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let controller = meta::controller(object).map_or("<none>".to_owned(), |owner| {
        let group = owner.api_version.split_once('/').map_or(String::new(), |(group, _)| format!(".{group}"));
        format!("{}{group}/{}", owner.kind.to_lowercase(), owner.name)
    });
    let revision = printed::count(object, &["revision"]);
    vec![printed::name(object), controller.into(), revision, printed::age(object, now)]
}
