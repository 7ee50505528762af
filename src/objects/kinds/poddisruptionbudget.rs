//! PodDisruptionBudget: how many of the pods it selects an eviction must leave standing.

use jiff::Timestamp;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde_json::{Value, json};

use super::{Column, Kind, Rules, Typed, amount, printed, spec_changed, template};
use crate::{At, Errors, meta, patch, selector};

static COLUMNS: &[Column] = &[
    printed::NAME,
    printed::column("Min Available", "string", 0, "The minimum number of pods that must be available."),
    printed::column("Max Unavailable", "string", 0, "The maximum number of pods that may be unavailable."),
    printed::column(
        "Allowed Disruptions",
        "integer",
        0,
        "Calculated number of pods that may be disrupted at this time.",
    ),
    printed::AGE,
];

pub(super) const KIND: Kind = Kind {
    group: "policy",
    kind: "PodDisruptionBudget",
    plural: "poddisruptionbudgets",
    singular: "poddisruptionbudget",
    short_names: &["pdb"],
    status: true,
    versioned_update: true,
    kept_only: true,
    columns: COLUMNS,
    rules: Rules {
        typed: Typed::of::<PodDisruptionBudget>(),
        validate,
        create: |object| {
            let none = json!({"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0});
            meta::set(object, &["status"], none);
        },
        generation: Some(spec_changed),
        fields: |object, fields| template::demand(object, &["spec", "selector", "matchLabels"], fields),
        row,
        lists: &patch::CONDITIONED,
        ..Rules::NONE
    },
    ..Kind::BASE
};

fn validate(new: &At<'_>, _old: Option<&At<'_>>, errors: &mut Errors) {
    let spec = new.field("spec");
    let amounts = [spec.field("minAvailable"), spec.field("maxUnavailable")];
    if amounts.iter().all(At::is_set) {
        errors.push(spec.invalid("minAvailable and maxUnavailable cannot be both set"));
    }
    for at in amounts {
        amount::int_or_percent(&at, errors);
        amount::at_most_all(&at, errors);
    }
    selector::validate(&spec.field("selector"), errors);
    spec.field("unhealthyPodEvictionPolicy").one_of(&["AlwaysAllow", "IfHealthyBudget"], false, errors);
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let amount = |field| match meta::at(object, &["spec", field]) {
        None => Value::from("N/A"),
        Some(Value::String(percent)) => percent.as_str().into(),
        Some(number) => number.to_string().into(),
    };
    vec![
        printed::name(object),
        amount("minAvailable"),
        amount("maxUnavailable"),
        printed::count(object, &["status", "disruptionsAllowed"]),
        printed::age(object, now),
    ]
}
