//! Job: pods run until so many of them have succeeded.

mod policy;
mod spec;
mod update;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use serde_json::{Value, json};

use super::{Column, Fields, Kind, Rules, Typed, printed, spec_changed, template};
use crate::selector::{self, LabelSelector};
use crate::{At, Errors, meta, names, patch};

pub(super) use policy::default as default_policy;
pub(super) use spec::validate as validate_spec;

const BACKOFF_LIMIT: i64 = 6;
const CONTROLLER_UID: &str = "batch.kubernetes.io/controller-uid";

static COLUMNS: &[Column] = &[
    printed::NAME,
    printed::column("Status", "string", 0, "Status of the job."),
    printed::column("Completions", "string", 0, "The number of pods which reached phase Succeeded."),
    printed::column("Duration", "string", 0, "Time required to complete the job."),
    printed::AGE,
    template::CONTAINERS,
    template::IMAGES,
    template::SELECTOR,
];

pub(super) const KIND: Kind = Kind {
    group: "batch",
    kind: "Job",
    plural: "jobs",
    singular: "job",
    categories: &["all"],
    status: true,
    selectable: &["status.successful"],
    columns: COLUMNS,
    orphans: true,
    kept_only: true,
    rules: Rules {
        typed: Typed::of::<Job>(),
        default,
        validate,
        create: |object| {
            meta::set(object, &["status"], json!({}));
            select_own_pods(object);
        },
        generation: Some(spec_changed),
        fields,
        row,
        lists: &patch::WORKLOAD,
        ..Rules::NONE
    },
    ..Kind::BASE
};

fn default(object: &mut Value) {
    template::default_template(object, &["spec", "template"]);
    let has = |object: &Value, field| meta::at(object, &["spec", field]).is_some();
    if !has(object, "completions") && !has(object, "parallelism") {
        meta::set(object, &["spec", "completions"], json!(1));
    }
    let backoff = if has(object, "backoffLimitPerIndex") { i64::from(i32::MAX) } else { BACKOFF_LIMIT };
    let replacement = if has(object, "podFailurePolicy") { "Failed" } else { "TerminatingOrFailed" };
    for (field, value) in [
        ("parallelism", json!(1)),
        ("backoffLimit", json!(backoff)),
        ("completionMode", json!("NonIndexed")),
        ("suspend", json!(false)),
        ("podReplacementPolicy", json!(replacement)),
        ("manualSelector", json!(false)),
    ] {
        meta::set_absent(object, &["spec", field], value);
    }
    policy::default(object, &["spec", "podFailurePolicy", "rules"]);
    if let Some(labels) = meta::at(object, &["spec", "template", "metadata", "labels"]).cloned()
        && meta::labels(object).is_empty()
    {
        meta::set(object, &["metadata", "labels"], labels);
    }
}

/// The labels of a job's own pods.
fn own_labels(job: &Value) -> [(&'static str, &str); 4] {
    let (name, uid) = (meta::name(job), meta::uid(job));
    [
        ("batch.kubernetes.io/job-name", name),
        (CONTROLLER_UID, uid),
        // The names of the first days, which tools still select by.
        ("job-name", name),
        ("controller-uid", uid),
    ]
}

/// Unless the client chose a selector itself, a job selects by its own uid. Without a uid there is nothing to select by,
/// and validation says so.
fn select_own_pods(job: &mut Value) {
    if meta::flag(job, &["spec", "manualSelector"]) || meta::uid(job).is_empty() {
        return;
    }
    for (label, value) in own_labels(job).map(|(label, value)| (label, value.to_owned())) {
        meta::set_absent(job, &["spec", "template", "metadata", "labels", label], value.into());
    }
    let uid = meta::uid(job).to_owned();
    meta::set_absent(job, &["spec", "selector", "matchLabels", CONTROLLER_UID], uid.into());
}

fn validate(new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    let spec = new.field("spec");
    validate_spec(&spec, errors);
    validate_selector(new, errors);
    let last = spec.field("completions").int().unwrap_or(0) - 1;
    if spec.field("completionMode").text() == "Indexed" && last >= 0 {
        let name = new.fields(&["metadata", "name"]);
        let longest = format!("{}-{last}", name.text());
        if let Some(message) = names::label(&longest).into_iter().next() {
            errors.push(name.invalid(format!("will not able to create pod with invalid DNS name: {message}")));
        }
    }
    if let Some(old) = old {
        update::validate(&spec, old, errors);
    }
}

fn validate_selector(job: &At<'_>, errors: &mut Errors) {
    let spec = job.field("spec");
    let at = spec.field("selector");
    if !at.is_set() {
        errors.push(at.required(""));
        return;
    }
    selector::validate(&at, errors);
    let Ok(selector) = LabelSelector::from_object(&at) else { return };
    template::matches(&selector, &spec.field("template"), errors);
    if spec.field("manualSelector").bool() {
        return;
    }
    let uid = job.fields(&["metadata", "uid"]);
    if uid.is_empty() {
        errors.push(uid.required(""));
    }
    let labels = spec.fields(&["template", "metadata", "labels"]);
    let own = own_labels(job.value);
    for (label, expected) in own {
        let at = labels.key(label);
        if !at.is_set() {
            errors.push(at.required(format!("must be '{expected}'")));
        } else if at.text() != expected {
            errors.push(at.invalid(format!("must be '{expected}'")));
        }
    }
    if !selector.selects(|key| own.iter().find(|(label, _)| *label == key).map(|(_, value)| *value)) {
        errors.push(at.invalid("`selector` not auto-generated"));
    }
}

fn fields(object: &Value, fields: &mut Fields) {
    let succeeded = meta::int(object, &["status", "succeeded"]).unwrap_or(0);
    fields.insert("status.successful".into(), succeeded.to_string());
    template::demand(object, &["spec", "selector", "matchLabels"], fields);
}

/// What is true of the job, the most final first.
fn status(object: &Value) -> &'static str {
    let is = |kind| {
        meta::list(object, &["status", "conditions"])
            .iter()
            .any(|condition| meta::text(condition, &["type"]) == kind && meta::text(condition, &["status"]) == "True")
    };
    match () {
        () if is("Complete") => "Complete",
        () if is("Failed") => "Failed",
        () if meta::is_deleting(object) => "Terminating",
        () if is("Suspended") => "Suspended",
        () if is("FailureTarget") => "FailureTarget",
        () => "Running",
    }
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let succeeded = meta::int(object, &["status", "succeeded"]).unwrap_or(0);
    let parallelism = meta::int(object, &["spec", "parallelism"]).unwrap_or(0);
    let completions = match meta::int(object, &["spec", "completions"]) {
        Some(completions) => format!("{succeeded}/{completions}"),
        None if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        None => format!("{succeeded}/1"),
    };
    let duration = meta::time(object, &["status", "startTime"]).map_or(String::new(), |start| {
        let end = meta::time(object, &["status", "completionTime"]).unwrap_or(now);
        printed::human_duration(end.duration_since(start).as_secs())
    });
    let [names, images, selector] = template::wide_cells(object);
    vec![
        printed::name(object),
        status(object).into(),
        completions.into(),
        duration.into(),
        printed::age(object, now),
        names,
        images,
        selector,
    ]
}
