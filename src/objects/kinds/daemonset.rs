//! DaemonSet: one pod of a template on every node that fits.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::DaemonSet;
use serde_json::{Value, json};

use super::{Column, Kind, Rules, Typed, amount, printed, spec_changed, template};
use crate::{At, Errors, meta, patch};

static COLUMNS: &[Column] = &[
    printed::NAME,
    printed::column(
        "Desired",
        "integer",
        0,
        "The total number of nodes that should be running the daemon pod (including nodes correctly running the daemon pod).",
    ),
    printed::column(
        "Current",
        "integer",
        0,
        "The number of nodes that are running at least 1 daemon pod and are supposed to run the daemon pod.",
    ),
    printed::column(
        "Ready",
        "integer",
        0,
        "numberReady is the number of nodes that should be running the daemon pod and have one or more of the daemon pod running with a Ready Condition.",
    ),
    printed::column("Up-to-date", "integer", 0, "The total number of nodes that are running updated daemon pod"),
    printed::column(
        "Available",
        "integer",
        0,
        "The number of nodes that should be running the daemon pod and have one or more of the daemon pod running and available (ready for at least spec.minReadySeconds)",
    ),
    printed::column(
        "Node Selector",
        "string",
        0,
        "NodeSelector is a selector which must be true for the pod to fit on a node.",
    ),
    printed::AGE,
    template::CONTAINERS,
    template::IMAGES,
    template::SELECTOR,
];

pub(super) const KIND: Kind = Kind {
    group: "apps",
    kind: "DaemonSet",
    plural: "daemonsets",
    singular: "daemonset",
    short_names: &["ds"],
    categories: &["all"],
    status: true,
    kept_only: true,
    columns: COLUMNS,
    rules: Rules {
        typed: Typed::of::<DaemonSet>(),
        default,
        validate,
        create: |object| {
            let none = json!({"currentNumberScheduled": 0, "numberMisscheduled": 0, "desiredNumberScheduled": 0, "numberReady": 0});
            meta::set(object, &["status"], none);
        },
        generation: Some(spec_changed),
        fields: |object, fields| template::demand(object, &["spec", "selector", "matchLabels"], fields),
        row,
        lists: &patch::WORKLOAD,
        ..Rules::NONE
    },
    ..Kind::BASE
};

fn default(object: &mut Value) {
    template::default_template(object, &["spec", "template"]);
    meta::set_absent(object, &["spec", "revisionHistoryLimit"], json!(10));
    meta::set_empty(object, &["spec", "updateStrategy", "type"], json!("RollingUpdate"));
    if meta::text(object, &["spec", "updateStrategy", "type"]) == "RollingUpdate" {
        for (field, nodes) in [("maxUnavailable", 1), ("maxSurge", 0)] {
            meta::set_absent(object, &["spec", "updateStrategy", "rollingUpdate", field], json!(nodes));
        }
    }
}

fn validate(new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    template::validate(new, old, KIND.kind, errors);
    let spec = new.field("spec");
    spec.field("revisionHistoryLimit").non_negative(errors);
    let strategy = spec.field("updateStrategy");
    match strategy.field("type").text() {
        "RollingUpdate" => rolling(&strategy.field("rollingUpdate"), errors),
        "OnDelete" => {}
        _ => strategy.field("type").one_of(&["OnDelete", "RollingUpdate"], true, errors),
    }
}

/// Either a node goes without its pod for a while, or it has two.
fn rolling(rolling: &At<'_>, errors: &mut Errors) {
    let (unavailable, surge) = (rolling.field("maxUnavailable"), rolling.field("maxSurge"));
    for at in [&unavailable, &surge] {
        amount::int_or_percent(at, errors);
        amount::at_most_all(at, errors);
    }
    match (amount::is_zero(&unavailable), amount::is_zero(&surge)) {
        (false, false) => errors.push(surge.invalid("may not be set when maxUnavailable is non-zero")),
        (true, true) => errors.push(unavailable.required("cannot be 0 when maxSurge is 0")),
        _ => {}
    }
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let count = |field| printed::count(object, &["status", field]);
    let [names, images, selector] = template::wide_cells(object);
    vec![
        printed::name(object),
        count("desiredNumberScheduled"),
        count("currentNumberScheduled"),
        count("numberReady"),
        count("updatedNumberScheduled"),
        count("numberAvailable"),
        printed::pairs(object, &["spec", "template", "spec", "nodeSelector"]),
        printed::age(object, now),
        names,
        images,
        selector,
    ]
}
