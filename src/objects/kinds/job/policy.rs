//! When a job gives up or is content early: `podFailurePolicy`, `podReplacementPolicy` and `successPolicy`.

use serde_json::{Value, json};

use crate::{At, Errors, Reason, meta};

const RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;
const PATTERNS_MAX: usize = 20;

/// A pattern of a condition means that it is true.
pub(in crate::kinds) fn default(object: &mut Value, rules: &[&str]) {
    for rule in meta::list_mut(object, rules) {
        for pattern in meta::list_mut(rule, &["onPodConditions"]) {
            meta::set_empty(pattern, &["status"], json!("True"));
        }
    }
}

pub(super) fn validate(spec: &At<'_>, errors: &mut Errors) {
    let failure = spec.field("podFailurePolicy");
    let rules = failure.field("rules");
    too_many(&rules, RULES_MAX, errors);
    for rule in rules.items() {
        failure_rule(spec, &rule, errors);
    }
    let replacement = spec.field("podReplacementPolicy");
    let supported: &[&str] = if failure.is_set() { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
    replacement.one_of(supported, false, errors);
    let success = spec.field("successPolicy");
    if success.is_set() {
        let rules = success.field("rules");
        if rules.is_empty() {
            errors.push(rules.required("at least one rules must be specified when the successPolicy is specified"));
        }
        too_many(&rules, RULES_MAX, errors);
        for rule in rules.items() {
            success_rule(spec, &rule, errors);
        }
    }
}

fn too_many(at: &At<'_>, max: usize, errors: &mut Errors) {
    if at.len() > max {
        errors.push(at.error(Reason::TooMany, format!("must have at most {max} items")).with_value(at.len().into()));
    }
}

fn failure_rule(spec: &At<'_>, rule: &At<'_>, errors: &mut Errors) {
    let action = rule.field("action");
    action.one_of(&["Count", "FailIndex", "FailJob", "Ignore"], true, errors);
    if action.text() == "FailIndex" && !spec.field("backoffLimitPerIndex").is_set() {
        errors.push(action.invalid("requires the backoffLimitPerIndex to be set"));
    }
    let (codes, conditions) = (rule.field("onExitCodes"), rule.field("onPodConditions"));
    match (codes.is_set(), !conditions.is_empty()) {
        (true, true) => {
            errors.push(rule.invalid("specifying both OnExitCodes and OnPodConditions is not supported"));
        }
        (false, false) => errors.push(rule.invalid("specifying one of OnExitCodes and OnPodConditions is required")),
        (true, false) => exit_codes(spec, &codes, errors),
        (false, true) => pod_conditions(&conditions, errors),
    }
}

fn exit_codes(spec: &At<'_>, codes: &At<'_>, errors: &mut Errors) {
    let operator = codes.field("operator");
    operator.one_of(&["In", "NotIn"], true, errors);
    let container = codes.field("containerName");
    let pod = spec.fields(&["template", "spec"]);
    let known = ["containers", "initContainers"]
        .iter()
        .flat_map(|list| pod.field(list).items())
        .any(|one| one.field("name").text() == container.text());
    if container.is_set() && !known {
        errors.push(container.invalid("must be one of the container or initContainer names in the pod template"));
    }
    let values = codes.field("values");
    if values.is_empty() {
        errors.push(values.invalid("at least one value is required"));
    }
    too_many(&values, EXIT_CODES_MAX, errors);
    let mut seen = Vec::new();
    for value in values.items() {
        if operator.text() == "In" && value.int() == Some(0) {
            errors.push(value.invalid("must not be 0 for the In operator"));
        }
        if seen.contains(&value.value) {
            errors.push(value.duplicate(value.value.clone()));
        }
        seen.push(value.value);
    }
}

fn pod_conditions(conditions: &At<'_>, errors: &mut Errors) {
    too_many(conditions, PATTERNS_MAX, errors);
    for pattern in conditions.items() {
        let kind = pattern.field("type");
        if kind.is_empty() {
            errors.push(kind.required(""));
        }
        pattern.field("status").one_of(&["False", "True", "Unknown"], true, errors);
    }
}

fn success_rule(spec: &At<'_>, rule: &At<'_>, errors: &mut Errors) {
    let (indexes, count) = (rule.field("succeededIndexes"), rule.field("succeededCount"));
    if !indexes.is_set() && !count.is_set() {
        errors.push(rule.required("at least one of succeededCount or succeededIndexes must be specified"));
    }
    count.non_negative(errors);
    let completions = spec.field("completions").int().unwrap_or(0);
    if count.int().is_some_and(|n| n > completions) {
        errors.push(
            count.invalid(format!("must be less than or equal to {completions} (the number of specified completions)")),
        );
    }
    if indexes.is_set() && !are_indexes(indexes.text(), completions) {
        errors.push(
            indexes.invalid("error parsing succeededIndexes: must be ascending indexes below completions, like 0,2-4"),
        );
    }
}

/// `0,2-4`: ascending, below the number of completions.
fn are_indexes(text: &str, completions: i64) -> bool {
    let mut next = 0;
    !text.is_empty()
        && text.split(',').all(|interval| {
            let (first, last) = interval.split_once('-').unwrap_or((interval, interval));
            let number = |text: &str| text.parse::<u32>().ok().map(i64::from);
            let (Some(first), Some(last)) = (number(first), number(last)) else { return false };
            let good = first >= next && last >= first && last < completions;
            next = last + 1;
            good
        })
}
