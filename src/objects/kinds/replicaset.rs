//! ReplicaSet: so many pods of one template.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use serde_json::{Value, json};

use super::{Column, Kind, Rules, Typed, printed, spec_changed, template};
use crate::{meta, patch};

static COLUMNS: &[Column] = &[
    printed::NAME,
    printed::column("Desired", "integer", 0, "Replicas is the number of desired pods."),
    printed::column("Current", "integer", 0, "Replicas is the most recently observed number of non-terminating pods."),
    printed::column(
        "Ready",
        "integer",
        0,
        "The number of non-terminating pods targeted by this ReplicaSet with a Ready Condition.",
    ),
    printed::AGE,
    template::CONTAINERS,
    template::IMAGES,
    template::SELECTOR,
];

pub(super) const KIND: Kind = Kind {
    group: "apps",
    kind: "ReplicaSet",
    plural: "replicasets",
    singular: "replicaset",
    short_names: &["rs"],
    categories: &["all"],
    status: true,
    scale: true,
    selectable: &["status.replicas"],
    columns: COLUMNS,
    rules: Rules {
        typed: Typed::of::<ReplicaSet>(),
        default: template::default,
        validate: |new, old, errors| template::validate(new, old, "ReplicaSet", errors),
        create: |object| meta::set(object, &["status"], json!({"replicas": 0})),
        generation: Some(spec_changed),
        fields: template::fields,
        row,
        lists: &patch::WORKLOAD,
        ..Rules::NONE
    },
    ..Kind::BASE
};

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    template::replica_row(object, now, template::wide_cells(object))
}
