//! Job and CronJob.

use serde_json::{Value, json};

use super::{check_changes, check_defaults, check_refused, check_rows, object};

#[test]
fn defaults() {
    check_defaults(&[
        ("jobs", json!({}), "/spec/completions", json!(1)),
        ("jobs", json!({}), "/spec/parallelism", json!(1)),
        ("jobs", json!({"spec": {"parallelism": 3}}), "/spec/completions", Value::Null),
        ("jobs", json!({"spec": {"completions": 3}}), "/spec/parallelism", json!(1)),
        ("jobs", json!({}), "/spec/backoffLimit", json!(6)),
        (
            "jobs",
            json!({"spec": {"completionMode": "Indexed", "completions": 2, "backoffLimitPerIndex": 1}}),
            "/spec/backoffLimit",
            json!(i32::MAX),
        ),
        ("jobs", json!({}), "/spec/completionMode", json!("NonIndexed")),
        ("jobs", json!({}), "/spec/suspend", json!(false)),
        ("jobs", json!({}), "/spec/podReplacementPolicy", json!("TerminatingOrFailed")),
        ("jobs", json!({}), "/metadata/labels", json!({"app": "x"})),
        ("jobs", json!({}), "/spec/selector", json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "u1"}})),
        (
            "jobs",
            json!({}),
            "/spec/template/metadata/labels",
            json!({"app": "x", "batch.kubernetes.io/controller-uid": "u1", "batch.kubernetes.io/job-name": "x",
                "controller-uid": "u1", "job-name": "x"}),
        ),
        (
            "jobs",
            json!({"spec": {"manualSelector": true, "selector": {"matchLabels": {"app": "x"}}}}),
            "/spec/template/metadata/labels",
            json!({"app": "x"}),
        ),
        ("cronjobs", json!({}), "/spec/concurrencyPolicy", json!("Allow")),
        ("cronjobs", json!({}), "/spec/suspend", json!(false)),
        ("cronjobs", json!({}), "/spec/successfulJobsHistoryLimit", json!(3)),
        ("cronjobs", json!({"spec": {"failedJobsHistoryLimit": 0}}), "/spec/failedJobsHistoryLimit", json!(0)),
        ("cronjobs", json!({}), "/spec/jobTemplate/spec/template/spec/dnsPolicy", json!("ClusterFirst")),
        ("cronjobs", json!({}), "/spec/jobTemplate/spec/backoffLimit", Value::Null),
    ]);
}

#[test]
fn refused() {
    let spec = |spec: Value| json!({ "spec": spec });
    let rule = |rule: Value| json!({"spec": {"podFailurePolicy": {"rules": [rule]}}});
    check_refused(&[
        (
            "jobs",
            spec(json!({"template": {"spec": {"restartPolicy": null}}})),
            "spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"",
        ),
        (
            "jobs",
            spec(json!({"backoffLimit": -1})),
            "spec.backoffLimit: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            "jobs",
            spec(json!({"completionMode": "Indexed", "parallelism": 1})),
            "spec.completions: Required value: when completion mode is Indexed",
        ),
        ("jobs", spec(json!({"completionMode": "Sorted"})), "spec.completionMode: Unsupported value: \"Sorted\""),
        (
            "jobs",
            spec(json!({"backoffLimitPerIndex": 1})),
            "spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode",
        ),
        (
            "jobs",
            spec(
                json!({"selector": {"matchLabels": {"app": "x"}}, "manualSelector": false, "template": {"metadata": {"labels": {"job-name": "y"}}}}),
            ),
            "spec.template.metadata.labels[job-name]: Invalid value: \"y\": must be 'x'",
        ),
        (
            "jobs",
            spec(json!({"selector": {"matchLabels": {"app": "x"}}})),
            "spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"x\",\"batch.kubernetes.io/controller-uid\":\"u1\"}}: `selector` not auto-generated",
        ),
        ("jobs", spec(json!({"manualSelector": true})), "spec.selector: Required value"),
        (
            "jobs",
            rule(json!({"action": "Retry", "onExitCodes": {"operator": "In", "values": [1]}})),
            "spec.podFailurePolicy.rules[0].action: Unsupported value: \"Retry\"",
        ),
        (
            "jobs",
            rule(json!({"action": "FailJob"})),
            "spec.podFailurePolicy.rules[0]: Invalid value: {\"action\":\"FailJob\"}: specifying one of OnExitCodes and OnPodConditions is required",
        ),
        (
            "jobs",
            rule(json!({"action": "FailJob", "onExitCodes": {"operator": "In", "values": [0]}})),
            "spec.podFailurePolicy.rules[0].onExitCodes.values[0]: Invalid value: 0: must not be 0 for the In operator",
        ),
        (
            "jobs",
            spec(
                json!({"completionMode": "Indexed", "completions": 3, "successPolicy": {"rules": [{"succeededIndexes": "0,2-4"}]}}),
            ),
            "spec.successPolicy.rules[0].succeededIndexes: Invalid value: \"0,2-4\"",
        ),
        (
            "jobs",
            spec(json!({"managedBy": "me"})),
            "spec.managedBy: Invalid value: \"me\": must be a domain-prefixed path",
        ),
        ("cronjobs", spec(json!({"schedule": ""})), "spec.schedule: Required value"),
        (
            "cronjobs",
            spec(json!({"schedule": "* * * *"})),
            "spec.schedule: Invalid value: \"* * * *\": expected exactly 5 fields, found 4: [* * * *]",
        ),
        (
            "cronjobs",
            spec(json!({"schedule": "TZ=UTC 0 * * * *"})),
            "spec.schedule: Invalid value: \"TZ=UTC 0 * * * *\": cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
        ),
        (
            "cronjobs",
            spec(json!({"timeZone": "Local"})),
            "spec.timeZone: Invalid value: \"Local\": timeZone must be an explicit time zone",
        ),
        (
            "cronjobs",
            spec(json!({"timeZone": "../x"})),
            "spec.timeZone: Invalid value: \"../x\": unknown time zone ../x",
        ),
        (
            "cronjobs",
            spec(json!({"concurrencyPolicy": "Queue"})),
            "spec.concurrencyPolicy: Unsupported value: \"Queue\"",
        ),
        (
            "cronjobs",
            json!({"metadata": {"name": "a".repeat(53)}}),
            &format!("metadata.name: Invalid value: \"{}\": must be no more than 52 characters", "a".repeat(53)),
        ),
        (
            "cronjobs",
            spec(json!({"jobTemplate": {"spec": {"template": {"spec": {"restartPolicy": "Always"}}}}})),
            "spec.jobTemplate.spec.template.spec.restartPolicy: Required value: valid values: ",
        ),
        (
            "cronjobs",
            spec(json!({"jobTemplate": {"spec": {"selector": {}}}})),
            "spec.jobTemplate.spec.selector: Invalid value: {}: `selector` will be auto-generated",
        ),
    ]);
}

/// Without a uid there is nothing to select by.
#[test]
fn a_job_needs_its_uid() {
    let (kind, mut job) = object("jobs", json!({}));
    kind.default(&mut job);
    kind.prepare_create(&mut job);
    assert_eq!(job["spec"].get("selector"), None);
    let fields: Vec<String> = kind.validate(&job, None).into_iter().map(|error| error.field).collect();
    assert_eq!(fields, ["spec.selector"]);
}

#[test]
fn changes() {
    let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "i:2"}]}}}});
    let place = json!({"spec": {"template": {"spec": {"nodeSelector": {"disk": "ssd"}}}}});
    let indexed = json!({"spec": {"completionMode": "Indexed", "completions": 2, "parallelism": 2}});
    check_changes(&[
        ("jobs", json!({}), json!({"spec": {"parallelism": 4, "suspend": true}}), ""),
        ("jobs", json!({}), image.clone(), "spec.template: Invalid value: "),
        // A typed client writes what is empty, or leaves out what another wrote.
        (
            "jobs",
            json!({"spec": {"template": {"spec": {"hostNetwork": false}}}}),
            json!({"spec": {"template": {"spec": {"hostNetwork": null, "nodeSelector": {}}}}}),
            "",
        ),
        ("jobs", json!({}), place.clone(), "spec.template: Invalid value: "),
        ("jobs", json!({"spec": {"suspend": true}}), place.clone(), ""),
        (
            "jobs",
            json!({"spec": {"suspend": true}, "status": {"startTime": "2026-01-01T00:00:00Z"}}),
            place,
            "spec.template: Invalid",
        ),
        ("jobs", json!({"spec": {"suspend": true}}), image.clone(), "spec.template: Invalid value: "),
        (
            "jobs",
            json!({}),
            json!({"spec": {"completions": 2}}),
            "spec.completions: Invalid value: 2: field is immutable",
        ),
        ("jobs", indexed.clone(), json!({"spec": {"completions": 3, "parallelism": 3}}), ""),
        (
            "jobs",
            indexed.clone(),
            json!({"spec": {"completions": 3}}),
            "spec.completions: Invalid value: 3: can only be modified in tandem with spec.parallelism",
        ),
        (
            "jobs",
            indexed,
            json!({"spec": {"completionMode": "NonIndexed"}}),
            "spec.completionMode: Invalid value: \"NonIndexed\": field is immutable",
        ),
        ("jobs", json!({}), json!({"spec": {"selector": null}}), "spec.selector: "),
        ("cronjobs", json!({}), json!({"spec": {"schedule": "@daily", "suspend": true}}), ""),
        ("cronjobs", json!({}), json!({"spec": {"jobTemplate": image}}), ""),
        ("cronjobs", json!({}), json!({"spec": {"schedule": "x"}}), "spec.schedule: Invalid value: \"x\""),
    ]);
}

#[test]
fn rows() {
    let condition = |kind: &str| json!([{"type": kind, "status": "True"}]);
    let wide = ["c", "i:1", "<none>"];
    check_rows(&[
        (
            "jobs",
            json!({"spec": {"completions": 1}}),
            json!(["x", "Running", "0/1", "", "60m", wide[0], wide[1], wide[2]]),
        ),
        (
            "jobs",
            json!({"spec": {"completions": 2, "selector": {"matchLabels": {"a": "b"}}}, "status": {"succeeded": 2, "conditions": condition("Complete"),
                "startTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T00:01:30Z"}}),
            json!(["x", "Complete", "2/2", "90s", "60m", "c", "i:1", "a=b"]),
        ),
        (
            "jobs",
            json!({"spec": {"parallelism": 3}, "status": {"startTime": "2026-01-01T00:59:00Z", "conditions": condition("Suspended")}}),
            json!(["x", "Suspended", "0/1 of 3", "60s", "60m", "c", "i:1", "<none>"]),
        ),
        (
            "cronjobs",
            json!({"spec": {"suspend": false}}),
            json!(["x", "*/5 * * * *", "<none>", "False", 0, "<none>", "60m", "c", "i:1", "<none>"]),
        ),
        (
            "cronjobs",
            json!({"spec": {"suspend": true, "timeZone": "Etc/UTC"}, "status": {"active": [{}], "lastScheduleTime": "2026-01-01T00:55:00Z"}}),
            json!(["x", "*/5 * * * *", "Etc/UTC", "True", 1, "5m", "60m", "c", "i:1", "<none>"]),
        ),
    ]);
}

#[test]
fn the_patch_of_a_template_merges() {
    let (kind, mut object) = object("cronjobs", json!({}));
    let containers = json!([{"name": "c", "env": [{"name": "A", "value": "b"}]}]);
    let template = json!({"template": {"spec": {"containers": containers}}});
    let patch = json!({"spec": {"jobTemplate": {"spec": template}}});
    crate::patch::strategic(kind, &mut object, &patch).expect("a patch");
    let merged = object.pointer("/spec/jobTemplate/spec/template/spec/containers/0");
    assert_eq!(merged, Some(&json!({"name": "c", "image": "i:1", "env": [{"name": "A", "value": "b"}]})));
}
