//! HorizontalPodAutoscaler: as many pods as their load asks for, between two bounds.

mod behavior;
mod cells;
mod metrics;
pub(super) mod v1;

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use serde_json::{Value, json};

use super::{Column, Kind, Rules, Typed, printed};
use crate::{At, Errors, meta, names, patch};

const UTILIZATION_PERCENT: i64 = 80;

static COLUMNS: &[Column] = &[
    printed::NAME,
    printed::column("Reference", "string", 0, "scaleTargetRef points to the target resource to scale."),
    printed::column(
        "Targets",
        "string",
        0,
        "metrics contains the specifications for which to use to calculate the desired replica count.",
    ),
    printed::column(
        "MinPods",
        "string",
        0,
        "minReplicas is the lower limit for the number of replicas to which the autoscaler can scale down.",
    ),
    printed::column(
        "MaxPods",
        "string",
        0,
        "maxReplicas is the upper limit for the number of replicas to which the autoscaler can scale up.",
    ),
    printed::column("Replicas", "string", 0, "currentReplicas is current number of replicas of pods."),
    printed::AGE,
];

pub(super) const KIND: Kind = Kind {
    group: "autoscaling",
    version: "v2",
    kind: "HorizontalPodAutoscaler",
    plural: "horizontalpodautoscalers",
    singular: "horizontalpodautoscaler",
    short_names: &["hpa"],
    categories: &["all"],
    status: true,
    columns: COLUMNS,
    kept_only: true,
    rules: Rules {
        typed: Typed::of::<HorizontalPodAutoscaler>(),
        default,
        validate,
        create: |object| meta::set(object, &["status"], json!({"desiredReplicas": 0})),
        row: cells::row,
        lists: &patch::CONDITIONED,
        ..Rules::NONE
    },
    ..Kind::BASE
};

fn default(object: &mut Value) {
    meta::set_absent(object, &["spec", "minReplicas"], json!(1));
    let target = json!({"type": "Utilization", "averageUtilization": UTILIZATION_PERCENT});
    let metrics = json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}]);
    meta::set_empty(object, &["spec", "metrics"], metrics);
    behavior::default(object);
}

fn validate(new: &At<'_>, _old: Option<&At<'_>>, errors: &mut Errors) {
    let spec = new.field("spec");
    let (min, max) = (spec.field("minReplicas"), spec.field("maxReplicas"));
    if min.int().is_some_and(|n| n < 1) {
        errors.push(min.invalid("must be greater than or equal to 1"));
    }
    let most = max.int().unwrap_or(0);
    if most < 1 {
        errors.push(max.invalid_value(most, "must be greater than 0"));
    }
    if min.int().is_some_and(|n| most < n) {
        errors.push(max.invalid_value(most, "must be greater than or equal to `minReplicas`"));
    }
    reference(&spec.field("scaleTargetRef"), errors);
    for metric in spec.field("metrics").items() {
        metrics::validate(&metric, errors);
    }
    behavior::validate(&spec.field("behavior"), errors);
}

/// Kind and name of another object.
fn reference(at: &At<'_>, errors: &mut Errors) {
    for field in ["kind", "name"] {
        let at = at.field(field);
        if at.is_empty() {
            errors.push(at.required(""));
        } else {
            errors.extend(names::path_segment(at.text()).into_iter().map(|message| at.invalid(message)));
        }
    }
    let version = at.field("apiVersion");
    if version.text().matches('/').count() > 1 {
        errors.push(version.invalid(format!("unexpected GroupVersion string: {}", version.text())));
    }
}
