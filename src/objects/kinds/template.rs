//! What the kinds that make pods share: replicas, a selector, and a pod template that it selects.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Fields, pod, printed};
use crate::selector::{self, LabelSelector};
use crate::{At, Errors, meta, names};

pub(super) fn default(object: &mut Value) {
    meta::set_absent(object, &["spec", "replicas"], json!(1));
    default_template(object, &["spec", "template"]);
}

/// Fills in the pod spec of the template at a path.
pub(super) fn default_template(object: &mut Value, path: &[&str]) {
    let template = path.iter().try_fold(object, |value, name| value.get_mut(*name));
    if let Some(spec) = template.and_then(|template| template.get_mut("spec")) {
        pod::default_spec(spec);
    }
}

/// Everything of a kind that keeps so many pods of one template running. `kind` names it in messages.
pub(super) fn validate(new: &At<'_>, old: Option<&At<'_>>, kind: &str, errors: &mut Errors) {
    let spec = new.field("spec");
    spec.field("replicas").non_negative(errors);
    spec.field("minReadySeconds").non_negative(errors);
    validate_selector(&spec, kind, errors);
    validate_lasting(&spec.field("template"), kind, errors);
    if let Some(old) = old {
        spec.field("selector").immutable(&old.fields(&["spec", "selector"]), errors);
    }
}

/// A selector that selects something, and what the template makes.
pub(super) fn validate_selector(spec: &At<'_>, kind: &str, errors: &mut Errors) {
    let at = spec.field("selector");
    if !at.is_set() {
        errors.push(at.required(""));
        return;
    }
    selector::validate(&at, errors);
    if at.field("matchLabels").len() + at.field("matchExpressions").len() == 0 {
        errors.push(at.invalid(format!("empty selector is invalid for {}", kind.to_lowercase())));
    } else if let Ok(selector) = LabelSelector::from_object(&at) {
        matches(&selector, &spec.field("template"), errors);
    }
}

/// The template's pods are selected.
pub(super) fn matches(selector: &LabelSelector, template: &At<'_>, errors: &mut Errors) {
    let labels = template.fields(&["metadata", "labels"]);
    if !selector.matches(&meta::strings(labels.value, &[])) {
        errors.push(labels.invalid("`selector` does not match template `labels`"));
    }
}

/// A template of pods that run until they are deleted.
pub(super) fn validate_lasting(template: &At<'_>, kind: &str, errors: &mut Errors) {
    validate_template(template, errors);
    let restart = template.fields(&["spec", "restartPolicy"]);
    if !restart.is_empty() && restart.text() != "Always" {
        errors.push(restart.unsupported(&["Always"]));
    }
    let deadline = template.fields(&["spec", "activeDeadlineSeconds"]);
    if deadline.is_set() {
        errors.push(deadline.forbidden(format!("activeDeadlineSeconds in {kind} is not Supported")));
    }
}

/// Any pod template.
pub(super) fn validate_template(template: &At<'_>, errors: &mut Errors) {
    if template.is_empty() {
        errors.push(template.required(""));
        return;
    }
    names::check_labels(&template.fields(&["metadata", "labels"]), errors);
    names::check_annotations(&template.fields(&["metadata", "annotations"]), errors);
    pod::validate_spec(&template.field("spec"), errors);
}

pub(super) fn fields(object: &Value, fields: &mut Fields) {
    count(object, fields);
    demand(object, &["spec", "selector", "matchLabels"], fields);
}

/// The selectable `status.replicas`.
pub(super) fn count(object: &Value, fields: &mut Fields) {
    let replicas = meta::int(object, &["status", "replicas"]).unwrap_or(0);
    fields.insert("status.replicas".into(), replicas.to_string());
}

/// The header field `selector`: the first label pair, `name=value`, that what the object selects must carry; empty where
/// it demands none. By it those who may select an object are found from that object.
pub(super) fn demand(object: &Value, path: &[&str], fields: &mut Fields) {
    let pair = meta::strings(object, path).into_iter().next().map(|(name, value)| format!("{name}={value}"));
    fields.insert("selector".into(), pair.unwrap_or_default());
}

/// The wide cells: containers, images, selector.
pub(super) fn wide_cells(object: &Value) -> [Value; 3] {
    let [names, images] = image_cells(object);
    [names, images, printed::selector(object, &["spec", "selector"])]
}

/// The wide cells of the containers.
pub(super) fn image_cells(object: &Value) -> [Value; 2] {
    let (names, images) = printed::containers(object.pointer("/spec/template/spec").unwrap_or(&Value::Null));
    [names, images]
}

pub(super) const CONTAINERS: super::Column =
    printed::column("Containers", "string", 1, "Names of each container in the template.");
pub(super) const IMAGES: super::Column =
    printed::column("Images", "string", 1, "Images referenced by each container in the template.");
pub(super) const SELECTOR: super::Column = printed::column(
    "Selector",
    "string",
    1,
    "Label selector for pods. Existing pods selected by this will be the ones affected.",
);

/// The cells of what keeps so many pods of one template: wanted, present, ready, and the wide ones.
pub(super) fn replica_row(object: &Value, now: Timestamp, wide: [Value; 3]) -> Vec<Value> {
    let mut row = vec![
        printed::name(object),
        printed::count(object, &["spec", "replicas"]),
        printed::count(object, &["status", "replicas"]),
        printed::count(object, &["status", "readyReplicas"]),
        printed::age(object, now),
    ];
    row.extend(wide);
    row
}
