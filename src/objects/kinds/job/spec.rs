//! What the spec of a job must say; the same for a CronJob's template.

use super::policy;
use crate::kinds::template;
use crate::{At, Errors, names};

/// Of a job whose pods are numbered.
const INDEXED_MAX: i64 = 100_000;
const MANAGER_BYTES_MAX: usize = 63;
const INDEXED_ONLY: &str = "requires indexed completion mode";

pub(in crate::kinds) fn validate(spec: &At<'_>, errors: &mut Errors) {
    for field in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        spec.field(field).non_negative(errors);
    }
    indexed(spec, errors);
    manager(&spec.field("managedBy"), errors);
    policy::validate(spec, errors);
    template::validate_template(&spec.field("template"), errors);
    restart(spec, errors);
}

fn indexed(spec: &At<'_>, errors: &mut Errors) {
    let mode = spec.field("completionMode");
    mode.one_of(&["Indexed", "NonIndexed"], false, errors);
    let per_index = spec.field("backoffLimitPerIndex");
    let failed = spec.field("maxFailedIndexes");
    if failed.is_set() && !per_index.is_set() {
        errors.push(per_index.required("when maxFailedIndexes is specified"));
    }
    if mode.text() != "Indexed" {
        let indexed = [per_index, failed, spec.field("successPolicy")];
        errors.extend(indexed.iter().filter(|at| at.is_set()).map(|at| at.invalid(INDEXED_ONLY)));
        return;
    }
    let (completions, parallelism) = (spec.field("completions"), spec.field("parallelism"));
    if !completions.is_set() {
        errors.push(completions.required("when completion mode is Indexed"));
    }
    if parallelism.int().is_some_and(|n| n > INDEXED_MAX) {
        let message = format!("must be less than or equal to {INDEXED_MAX} when completion mode is Indexed");
        errors.push(parallelism.invalid(message));
    }
    if per_index.is_set() && completions.int().is_some_and(|n| n > INDEXED_MAX) {
        errors.push(completions.invalid(format!("must be less than or equal to {INDEXED_MAX}")));
    }
    if failed.int().is_some_and(|n| completions.int().is_some_and(|all| n > all)) {
        errors.push(failed.invalid("must be less than or equal to completions"));
    }
}

fn manager(at: &At<'_>, errors: &mut Errors) {
    if !at.is_set() {
        return;
    }
    errors.extend(names::domain_path(at.text()).into_iter().map(|message| at.invalid(message)));
    if at.text().len() > MANAGER_BYTES_MAX {
        errors.push(at.too_long(MANAGER_BYTES_MAX));
    }
}

/// Pods that always restart never end.
fn restart(spec: &At<'_>, errors: &mut Errors) {
    let at = spec.fields(&["template", "spec", "restartPolicy"]);
    match at.text() {
        "" | "Always" => errors.push(at.required("valid values: \"OnFailure\", \"Never\"")),
        "OnFailure" if spec.field("podFailurePolicy").is_set() => {
            errors.push(at.invalid("only \"Never\" is supported when podFailurePolicy is specified"));
        }
        _ => at.one_of(&["OnFailure", "Never"], true, errors),
    }
}
