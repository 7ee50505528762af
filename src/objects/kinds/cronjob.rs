//! CronJob: a job each time a schedule says so.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::CronJob;
use serde_json::{Value, json};

use super::{Column, Kind, Rules, Typed, job, printed, spec_changed, template};
use crate::schedule::Schedule;
use crate::{At, Errors, meta, names, patch};

/// A job's name is this name and eleven characters more.
const NAME_BYTES_MAX: usize = 52;

static COLUMNS: &[Column] = &[
    printed::NAME,
    printed::column("Schedule", "string", 0, "The schedule in Cron format, see https://en.wikipedia.org/wiki/Cron."),
    printed::column("Timezone", "string", 0, "The time zone name for the given schedule."),
    printed::column("Suspend", "boolean", 0, "This flag tells the controller to suspend subsequent executions."),
    printed::column("Active", "integer", 0, "A list of pointers to currently running jobs."),
    printed::column(
        "Last Schedule",
        "string",
        0,
        "Information when was the last time the job was successfully scheduled.",
    ),
    printed::AGE,
    template::CONTAINERS,
    template::IMAGES,
    template::SELECTOR,
];

pub(super) const KIND: Kind = Kind {
    group: "batch",
    kind: "CronJob",
    plural: "cronjobs",
    singular: "cronjob",
    short_names: &["cj"],
    categories: &["all"],
    status: true,
    kept_only: true,
    columns: COLUMNS,
    rules: Rules {
        typed: Typed::of::<CronJob>(),
        default,
        validate,
        create: |object| meta::set(object, &["status"], json!({})),
        generation: Some(spec_changed),
        row,
        lists: &patch::CRON_JOB,
        ..Rules::NONE
    },
    ..Kind::BASE
};

fn default(object: &mut Value) {
    template::default_template(object, &["spec", "jobTemplate", "spec", "template"]);
    job::default_policy(object, &["spec", "jobTemplate", "spec", "podFailurePolicy", "rules"]);
    meta::set_empty(object, &["spec", "concurrencyPolicy"], json!("Allow"));
    for (field, value) in
        [("suspend", json!(false)), ("successfulJobsHistoryLimit", json!(3)), ("failedJobsHistoryLimit", json!(1))]
    {
        meta::set_absent(object, &["spec", field], value);
    }
}

fn validate(new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    let name = new.fields(&["metadata", "name"]);
    if old.is_none() && name.text().len() > NAME_BYTES_MAX {
        errors.push(name.invalid(format!("must be no more than {NAME_BYTES_MAX} characters")));
    }
    let spec = new.field("spec");
    schedule(&spec, errors);
    spec.field("concurrencyPolicy").one_of(&["Allow", "Forbid", "Replace"], true, errors);
    for field in ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        spec.field(field).non_negative(errors);
    }
    let template = spec.field("jobTemplate");
    names::check_labels(&template.fields(&["metadata", "labels"]), errors);
    names::check_annotations(&template.fields(&["metadata", "annotations"]), errors);
    let job = template.field("spec");
    if job.field("selector").is_set() {
        errors.push(job.field("selector").invalid("`selector` will be auto-generated"));
    }
    if job.field("manualSelector").bool() {
        errors.push(job.field("manualSelector").unsupported(&["nil", "false"]));
    }
    job::validate_spec(&job, errors);
}

fn schedule(spec: &At<'_>, errors: &mut Errors) {
    let (at, zone) = (spec.field("schedule"), spec.field("timeZone"));
    if at.is_empty() {
        errors.push(at.required(""));
    } else if at.text().contains("TZ") {
        errors.push(at.invalid(if zone.is_set() {
            "cannot use both timeZone field and TZ or CRON_TZ in schedule"
        } else {
            "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
        }));
    } else if let Err(message) = Schedule::parse(at.text()) {
        errors.push(at.invalid(message));
    }
    if zone.is_set() {
        time_zone(&zone, errors);
    }
}

/// The form of a zone's name. Which names there are, the database of zones says where the schedule is used.
fn time_zone(zone: &At<'_>, errors: &mut Errors) {
    let text = zone.text();
    let good = |c: u8| c.is_ascii_alphanumeric() || b"_-+".contains(&c);
    if text.is_empty() {
        errors.push(zone.invalid("timeZone must be nil or non-empty string"));
    } else if text.eq_ignore_ascii_case("local") {
        errors
            .push(zone.invalid("timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"));
    } else if !text.split('/').all(|part| !part.is_empty() && part.bytes().all(good)) {
        errors.push(zone.invalid(format!("unknown time zone {text}")));
    }
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let last = match meta::at(object, &["status", "lastScheduleTime"]) {
        Some(_) => printed::since(object, &["status", "lastScheduleTime"], now),
        None => "<none>".to_owned(),
    };
    let suspend = if meta::flag(object, &["spec", "suspend"]) { "True" } else { "False" };
    let job = object.pointer("/spec/jobTemplate/spec").unwrap_or(&Value::Null);
    let (names, images) = printed::containers(job.pointer("/template/spec").unwrap_or(&Value::Null));
    vec![
        printed::name(object),
        meta::text(object, &["spec", "schedule"]).into(),
        printed::text_or(object, &["spec", "timeZone"], "<none>"),
        suspend.into(),
        meta::list(object, &["status", "active"]).len().into(),
        last.into(),
        printed::age(object, now),
        names,
        images,
        printed::selector(job, &["selector"]),
    ]
}
