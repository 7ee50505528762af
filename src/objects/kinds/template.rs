//! What Deployment, ReplicaSet and their like share: replicas, a selector and a pod template that it selects.

use serde_json::{Value, json};

use super::{Fields, pod, printed};
use crate::selector::{self, LabelSelector};
use crate::{At, Errors, meta, names};

pub(super) fn default(object: &mut Value) {
    if meta::at(object, &["spec", "replicas"]).is_none() {
        meta::set(object, &["spec", "replicas"], json!(1));
    }
    if let Some(spec) = object.pointer_mut("/spec/template/spec") {
        pod::default_spec(spec);
    }
}

pub(super) fn validate(new: &At<'_>, old: Option<&At<'_>>, kind: &str, errors: &mut Errors) {
    let spec = new.field("spec");
    spec.field("replicas").non_negative(errors);
    spec.field("minReadySeconds").non_negative(errors);
    let at = spec.field("selector");
    let template = spec.field("template");
    if !at.is_set() {
        errors.push(at.required(""));
    } else {
        selector::validate(&at, errors);
        if at.is_empty() {
            errors.push(at.invalid(format!("empty selector is invalid for {kind}")));
        }
    }
    let labels_at = template.fields(&["metadata", "labels"]);
    if let (false, Ok(selector)) = (at.is_empty(), LabelSelector::from_object(&at))
        && !selector.matches(&meta::strings(labels_at.value, &[]))
    {
        errors.push(labels_at.invalid("`selector` does not match template `labels`"));
    }
    names::check_labels(&labels_at, errors);
    names::check_annotations(&template.fields(&["metadata", "annotations"]), errors);
    let pod_spec = template.field("spec");
    if template.is_empty() {
        errors.push(template.required(""));
    } else {
        pod::validate_spec(&pod_spec, errors);
        let restart = pod_spec.field("restartPolicy");
        if !restart.is_empty() && restart.text() != "Always" {
            errors.push(restart.unsupported(&["Always"]));
        }
    }
    if let Some(old) = old {
        at.immutable(&old.fields(&["spec", "selector"]), errors);
    }
}

pub(super) fn fields(object: &Value, fields: &mut Fields) {
    let replicas = meta::int(object, &["status", "replicas"]).unwrap_or(0);
    fields.insert("status.replicas".into(), replicas.to_string());
    demand(object, &["spec", "selector", "matchLabels"], fields);
}

/// The header field `selector`: the first label pair, `name=value`, that what the object selects must carry; empty where
/// it demands none. By it those who may select an object are found from that object.
pub(super) fn demand(object: &Value, path: &[&str], fields: &mut Fields) {
    let pair = meta::strings(object, path).into_iter().next().map(|(name, value)| format!("{name}={value}"));
    fields.insert("selector".into(), pair.unwrap_or_default());
}

/// The wide cells: containers, images, selector.
pub(super) fn wide_cells(object: &Value) -> [Value; 3] {
    let (names, images) = printed::containers(object.pointer("/spec/template/spec").unwrap_or(&Value::Null));
    [names, images, printed::selector(object, &["spec", "selector"])]
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
