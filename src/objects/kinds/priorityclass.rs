//! PriorityClass: a name for how much a pod matters beside others.

use jiff::Timestamp;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use serde_json::{Value, json};

use super::{Column, Kind, Rules, Typed, printed};
use crate::{At, Errors, meta};

const SYSTEM_PREFIX: &str = "system-";
/// The classes that the cluster itself needs, with their values.
pub const SYSTEM: &[(&str, i64)] =
    &[("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];
const USER_VALUE_MAX: i64 = 1_000_000_000;

static COLUMNS: &[Column] = &[
    printed::NAME,
    printed::column("Value", "integer", 0, "value represents the integer value of this priority class."),
    printed::column(
        "Global-Default",
        "boolean",
        0,
        "globalDefault specifies whether this PriorityClass should be considered as the default priority for pods that do not have any priority class.",
    ),
    printed::AGE,
    printed::column(
        "PreemptionPolicy",
        "string",
        0,
        "preemptionPolicy is the Policy for preempting pods with lower priority.",
    ),
];

pub(super) const KIND: Kind = Kind {
    group: "scheduling.k8s.io",
    kind: "PriorityClass",
    plural: "priorityclasses",
    singular: "priorityclass",
    short_names: &["pc"],
    namespaced: false,
    columns: COLUMNS,
    rules: Rules {
        typed: Typed::of::<PriorityClass>(),
        default: |object| {
            meta::set_absent(object, &["value"], json!(0));
            meta::set_absent(object, &["preemptionPolicy"], json!("PreemptLowerPriority"));
        },
        validate,
        // What counts in it never changes.
        generation: Some(|_, _| false),
        fields: |class, fields| {
            fields.insert("global-default".into(), meta::flag(class, &["globalDefault"]).to_string());
        },
        row,
        ..Rules::NONE
    },
    ..Kind::BASE
};

fn validate(new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    let (name, value, policy) = (new.fields(&["metadata", "name"]), new.field("value"), new.field("preemptionPolicy"));
    if name.text().starts_with(SYSTEM_PREFIX) {
        if let Err(message) = system(name.text(), value.int().unwrap_or(0), new.field("globalDefault").bool()) {
            errors.push(name.forbidden(format!(
                "priority class names with '{SYSTEM_PREFIX}' prefix are reserved for system use only. error: {message}"
            )));
        }
    } else if value.int().is_some_and(|n| n > USER_VALUE_MAX) {
        errors.push(value.forbidden(format!("maximum allowed value of a user defined priority is {USER_VALUE_MAX}")));
    }
    policy.one_of(&["Never", "PreemptLowerPriority"], true, errors);
    if let Some(old) = old {
        if value.value != old.field("value").value {
            errors.push(value.forbidden("may not be changed in an update."));
        }
        policy.immutable(&old.field("preemptionPolicy"), errors);
    }
}

/// Whether it is one of the cluster's own classes, as it must be.
fn system(name: &str, value: i64, default: bool) -> Result<(), String> {
    match SYSTEM.iter().find(|(known, _)| *known == name) {
        None => Err(format!("{name} is not a known system priority class")),
        Some((_, known)) if *known != value => Err(format!("value of {name} PriorityClass must be {known}")),
        Some(_) if default => Err(format!("globalDefault of {name} PriorityClass must be false")),
        Some(_) => Ok(()),
    }
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        printed::name(object),
        printed::count(object, &["value"]),
        meta::flag(object, &["globalDefault"]).into(),
        printed::age(object, now),
        meta::text(object, &["preemptionPolicy"]).into(),
    ]
}
