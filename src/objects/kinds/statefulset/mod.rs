//! StatefulSet: numbered pods that keep their names and their claims.

mod validate;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSet;
use serde_json::{Value, json};

use super::{Column, Kind, Rules, Typed, persistentvolumeclaim, printed, spec_changed, template};
use crate::{meta, names, patch};

static COLUMNS: &[Column] = &[
    printed::NAME,
    printed::column("Ready", "string", 0, "Number of the pod with ready state"),
    printed::AGE,
    template::CONTAINERS,
    template::IMAGES,
];

pub(super) const KIND: Kind = Kind {
    group: "apps",
    kind: "StatefulSet",
    plural: "statefulsets",
    singular: "statefulset",
    short_names: &["sts"],
    categories: &["all"],
    status: true,
    scale: true,
    columns: COLUMNS,
    kept_only: true,
    rules: Rules {
        typed: Typed::of::<StatefulSet>(),
        // Its pods' names begin with it.
        name: names::label,
        default,
        validate: validate::validate,
        create: |object| meta::set(object, &["status"], json!({"replicas": 0, "availableReplicas": 0})),
        generation: Some(spec_changed),
        fields: template::fields,
        row,
        lists: &patch::WORKLOAD,
        ..Rules::NONE
    },
    ..Kind::BASE
};

fn default(object: &mut Value) {
    template::default(object);
    meta::set_absent(object, &["spec", "revisionHistoryLimit"], json!(10));
    meta::set_empty(object, &["spec", "podManagementPolicy"], json!("OrderedReady"));
    meta::set_empty(object, &["spec", "updateStrategy", "type"], json!("RollingUpdate"));
    if meta::text(object, &["spec", "updateStrategy", "type"]) == "RollingUpdate" {
        meta::set_absent(object, &["spec", "updateStrategy", "rollingUpdate", "partition"], json!(0));
    }
    for field in ["whenDeleted", "whenScaled"] {
        meta::set_empty(object, &["spec", "persistentVolumeClaimRetentionPolicy", field], json!("Retain"));
    }
    for claim in meta::list_mut(object, &["spec", "volumeClaimTemplates"]) {
        meta::set_empty(claim, &["apiVersion"], json!("v1"));
        meta::set_empty(claim, &["kind"], json!("PersistentVolumeClaim"));
        persistentvolumeclaim::default(claim);
    }
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let count = |path: &[&str]| meta::int(object, path).unwrap_or(0);
    let [names, images] = template::image_cells(object);
    vec![
        printed::name(object),
        format!("{}/{}", count(&["status", "readyReplicas"]), count(&["spec", "replicas"])).into(),
        printed::age(object, now),
        names,
        images,
    ]
}
