//! PodTemplate: a pod template that nobody uses by itself.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PodTemplate;
use serde_json::Value;

use super::{Column, Kind, Rules, Typed, printed, template};
use crate::{meta, patch};

static COLUMNS: &[Column] = &[
    printed::NAME,
    printed::column("Containers", "string", 0, "Names of each container in the template."),
    printed::column("Images", "string", 0, "Images referenced by each container in the template."),
    printed::column("Pod Labels", "string", 0, "The labels for the pod template."),
];

pub(super) const KIND: Kind = Kind {
    kind: "PodTemplate",
    plural: "podtemplates",
    singular: "podtemplate",
    columns: COLUMNS,
    rules: Rules {
        typed: Typed::of::<PodTemplate>(),
        default: |object| template::default_template(object, &["template"]),
        validate: |new, _, errors| template::validate_template(&new.field("template"), errors),
        generation: Some(|new, old| {
            !meta::alike(new.get("template").unwrap_or(&Value::Null), old.get("template").unwrap_or(&Value::Null))
        }),
        row,
        lists: &patch::POD_TEMPLATE,
        ..Rules::NONE
    },
    ..Kind::BASE
};

fn row(object: &Value, _now: Timestamp) -> Vec<Value> {
    let (names, images) = printed::containers(object.pointer("/template/spec").unwrap_or(&Value::Null));
    let labels = printed::pairs(object, &["template", "metadata", "labels"]);
    vec![printed::name(object), names, images, labels]
}
