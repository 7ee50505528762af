//! How fast an autoscaler may scale up and down.

use serde_json::{Value, json};

use crate::{At, Errors, meta};

const WINDOW_SECONDS_MAX: i64 = 3600;
const PERIOD_SECONDS_MAX: i64 = 1800;

/// Who says something of one direction gets the rest of both.
pub(super) fn default(object: &mut Value) {
    let Some(behavior) = object.pointer_mut("/spec/behavior") else { return };
    let percent = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
    let pods = json!({"type": "Pods", "value": 4, "periodSeconds": 15});
    meta::set_absent(behavior, &["scaleUp", "stabilizationWindowSeconds"], json!(0));
    for (direction, policies) in [("scaleUp", json!([pods, percent])), ("scaleDown", json!([percent]))] {
        meta::set_empty(behavior, &[direction, "selectPolicy"], json!("Max"));
        meta::set_absent(behavior, &[direction, "policies"], policies);
    }
}

pub(super) fn validate(behavior: &At<'_>, errors: &mut Errors) {
    for direction in ["scaleUp", "scaleDown"] {
        let rules = behavior.field(direction);
        if rules.is_set() {
            validate_rules(&rules, errors);
        }
    }
}

fn validate_rules(rules: &At<'_>, errors: &mut Errors) {
    let window = rules.field("stabilizationWindowSeconds");
    if window.int().is_some_and(|n| n < 0) {
        errors.push(window.invalid("must be greater than or equal to zero"));
    }
    if window.int().is_some_and(|n| n > WINDOW_SECONDS_MAX) {
        errors.push(window.invalid(format!("must be less than or equal to {WINDOW_SECONDS_MAX}")));
    }
    rules.field("selectPolicy").one_of(&["Disabled", "Max", "Min"], false, errors);
    let policies = rules.field("policies");
    if policies.is_empty() {
        errors.push(policies.required("must specify at least one Policy"));
    }
    for policy in policies.items() {
        policy.field("type").one_of(&["Percent", "Pods"], true, errors);
        for field in ["value", "periodSeconds"] {
            let at = policy.field(field);
            if at.int().unwrap_or(0) <= 0 {
                errors.push(at.invalid_value(at.int().unwrap_or(0), "must be greater than zero"));
            }
        }
        let period = policy.field("periodSeconds");
        if period.int().is_some_and(|n| n > PERIOD_SECONDS_MAX) {
            errors.push(period.invalid(format!("must be less than or equal to {PERIOD_SECONDS_MAX}")));
        }
    }
}
