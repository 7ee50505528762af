//! Deployment: a pod template rolled out revision by revision.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use serde_json::{Value, json};

use super::{Column, Kind, Part, Rules, Typed, amount, printed, spec_changed, template};
use crate::{At, Errors, meta, patch};

static COLUMNS: &[Column] = &[
    printed::NAME,
    printed::column("Ready", "string", 0, "Number of the pod with ready state"),
    printed::column(
        "Up-to-date",
        "string",
        0,
        "Total number of non-terminated pods targeted by this deployment that have the desired template spec.",
    ),
    printed::column(
        "Available",
        "string",
        0,
        "Total number of available pods (ready for at least minReadySeconds) targeted by this deployment.",
    ),
    printed::AGE,
    template::CONTAINERS,
    template::IMAGES,
    template::SELECTOR,
];

pub(super) const KIND: Kind = Kind {
    group: "apps",
    kind: "Deployment",
    plural: "deployments",
    singular: "deployment",
    short_names: &["deploy"],
    categories: &["all"],
    status: true,
    scale: true,
    columns: COLUMNS,
    rules: Rules {
        typed: Typed::of::<Deployment>(),
        default,
        validate,
        create: |object| meta::set(object, &["status"], json!({})),
        update: |new, old, part| {
            if part == Part::Status {
                meta::copy(new, old, &["metadata", "labels"]);
            }
        },
        // Annotations too: they hold the revision.
        generation: Some(|new, old| spec_changed(new, old) || meta::annotations(new) != meta::annotations(old)),
        fields: template::fields,
        row,
        lists: &patch::WORKLOAD,
        ..Rules::NONE
    },
    ..Kind::BASE
};

fn default(object: &mut Value) {
    template::default(object);
    for (field, value) in [("revisionHistoryLimit", json!(10)), ("progressDeadlineSeconds", json!(600))] {
        meta::set_absent(object, &["spec", field], value);
    }
    meta::set_empty(object, &["spec", "strategy", "type"], "RollingUpdate".into());
    if meta::text(object, &["spec", "strategy", "type"]) == "RollingUpdate" {
        for field in ["maxUnavailable", "maxSurge"] {
            meta::set_absent(object, &["spec", "strategy", "rollingUpdate", field], "25%".into());
        }
    }
}

fn validate(new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    template::validate(new, old, "Deployment", errors);
    let spec = new.field("spec");
    strategy(&spec.field("strategy"), errors);
    spec.field("revisionHistoryLimit").non_negative(errors);
    let deadline = spec.field("progressDeadlineSeconds");
    deadline.non_negative(errors);
    let (seconds, ready) = (deadline.int(), spec.field("minReadySeconds").int().unwrap_or(0));
    if seconds.is_some_and(|seconds| seconds <= ready) {
        errors.push(deadline.invalid("must be greater than minReadySeconds"));
    }
}

fn strategy(strategy: &At<'_>, errors: &mut Errors) {
    let rolling = strategy.field("rollingUpdate");
    match strategy.field("type").text() {
        "Recreate" if rolling.is_set() => {
            errors.push(rolling.forbidden("may not be specified when strategy `type` is 'Recreate'"));
        }
        "Recreate" => {}
        "RollingUpdate" => {
            let (surge, unavailable) = (rolling.field("maxSurge"), rolling.field("maxUnavailable"));
            amount::int_or_percent(&unavailable, errors);
            amount::int_or_percent(&surge, errors);
            if amount::is_zero(&unavailable) && amount::is_zero(&surge) {
                errors.push(unavailable.invalid("may not be 0 when `maxSurge` is 0"));
            }
            amount::at_most_all(&unavailable, errors);
        }
        _ => strategy.field("type").one_of(&["Recreate", "RollingUpdate"], true, errors),
    }
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let count = |path: &[&str]| meta::int(object, path).unwrap_or(0);
    let [names, images, selector] = template::wide_cells(object);
    vec![
        printed::name(object),
        format!("{}/{}", count(&["status", "readyReplicas"]), count(&["spec", "replicas"])).into(),
        printed::count(object, &["status", "updatedReplicas"]),
        printed::count(object, &["status", "availableReplicas"]),
        printed::age(object, now),
        names,
        images,
        selector,
    ]
}
