//! ReplicationController: a ReplicaSet of the first days; its selector is a plain map.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ReplicationController;
use serde_json::{Value, json};

use super::{Column, Kind, Rules, Typed, printed, spec_changed, template};
use crate::selector::LabelSelector;
use crate::{At, Errors, meta, names, patch};

static COLUMNS: &[Column] = &[
    printed::NAME,
    printed::column("Desired", "integer", 0, "Replicas is the number of desired replicas."),
    printed::column("Current", "integer", 0, "Replicas is the most recently observed number of replicas."),
    printed::column("Ready", "integer", 0, "The number of ready replicas for this replication controller."),
    printed::AGE,
    template::CONTAINERS,
    template::IMAGES,
    template::SELECTOR,
];

pub(super) const KIND: Kind = Kind {
    kind: "ReplicationController",
    plural: "replicationcontrollers",
    singular: "replicationcontroller",
    short_names: &["rc"],
    categories: &["all"],
    status: true,
    scale: true,
    selectable: &["status.replicas"],
    orphans: true,
    kept_only: true,
    columns: COLUMNS,
    rules: Rules {
        typed: Typed::of::<ReplicationController>(),
        default,
        validate,
        create: |object| meta::set(object, &["status"], json!({"replicas": 0})),
        generation: Some(spec_changed),
        selector: |object| LabelSelector::from_map(&meta::strings(object, &["spec", "selector"])),
        fields: |object, fields| {
            template::count(object, fields);
            template::demand(object, &["spec", "selector"], fields);
        },
        row,
        lists: &patch::WORKLOAD,
        ..Rules::NONE
    },
    ..Kind::BASE
};

fn default(object: &mut Value) {
    template::default(object);
    // Both are the labels of the template, where nothing else is said.
    if let Some(labels) = meta::at(object, &["spec", "template", "metadata", "labels"]).cloned() {
        for path in [["spec", "selector"], ["metadata", "labels"]] {
            if meta::strings(object, &path).is_empty() {
                meta::set(object, &path, labels.clone());
            }
        }
    }
}

fn validate(new: &At<'_>, _old: Option<&At<'_>>, errors: &mut Errors) {
    let spec = new.field("spec");
    spec.field("replicas").non_negative(errors);
    spec.field("minReadySeconds").non_negative(errors);
    let (at, template) = (spec.field("selector"), spec.field("template"));
    let selector = meta::strings(at.value, &[]);
    if selector.is_empty() {
        errors.push(at.required(""));
    } else if !template.is_empty() {
        template::matches(&LabelSelector::from_map(&selector), &template, errors);
    }
    names::check_labels(&at, errors);
    template::validate_lasting(&template, KIND.kind, errors);
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let [names, images] = template::image_cells(object);
    template::replica_row(object, now, [names, images, printed::pairs(object, &["spec", "selector"])])
}
