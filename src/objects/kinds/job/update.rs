//! What of a job may change: how many pods run at once, whether it is suspended, and while it has not started where its
//! pods may go.

use crate::{At, Errors, meta};

const IMMUTABLE: &[&str] =
    &["selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"];

/// Where pods may go: open to whoever starts the job.
const PLACEMENT: &[&[&str]] = &[
    &["metadata", "labels"],
    &["metadata", "annotations"],
    &["spec", "affinity", "nodeAffinity"],
    &["spec", "nodeSelector"],
    &["spec", "tolerations"],
    &["spec", "schedulingGates"],
];

pub(super) fn validate(spec: &At<'_>, old: &At<'_>, errors: &mut Errors) {
    let before = old.field("spec");
    completions(spec, &before, errors);
    for field in IMMUTABLE {
        spec.field(field).immutable(&before.field(field), errors);
    }
    let template = spec.field("template");
    let mut same = before.field("template").value.clone();
    let waiting = before.field("suspend").bool() && !old.fields(&["status", "startTime"]).is_set();
    if waiting {
        for path in PLACEMENT {
            meta::copy(&mut same, template.value, path);
        }
    }
    if !meta::alike(template.value, &same) {
        errors.push(template.invalid("field is immutable"));
    }
}

/// A job of numbered pods grows and shrinks; any other is as long as it was.
fn completions(spec: &At<'_>, before: &At<'_>, errors: &mut Errors) {
    let (new, old) = (spec.field("completions"), before.field("completions"));
    if new.value == old.value {
        return;
    }
    if spec.field("completionMode").text() != "Indexed" || !new.is_set() || !old.is_set() {
        errors.push(new.invalid("field is immutable"));
    } else if spec.field("parallelism").value != new.value {
        errors.push(new.invalid("can only be modified in tandem with spec.parallelism"));
    }
}
