//! ResourceQuota, LimitRange, PriorityClass and RuntimeClass.

use serde_json::{Value, json};

use super::{check_changes, check_defaults, check_refused, check_rows};

fn limit(limit: Value) -> Value {
    json!({"spec": {"limits": [limit]}})
}

#[test]
fn defaults() {
    let container = limit(json!({"type": "Container", "max": {"cpu": "2"}, "min": {"memory": "1024Ki"}}));
    check_defaults(&[
        ("resourcequotas", json!({"spec": {"hard": {"cpu": "1000m"}}}), "/spec/hard/cpu", json!("1")),
        ("resourcequotas", json!({"status": {"hard": {"cpu": "9"}}}), "/status", json!({})),
        ("limitranges", container.clone(), "/spec/limits/0/default", json!({"cpu": "2"})),
        ("limitranges", container, "/spec/limits/0/defaultRequest", json!({"cpu": "2", "memory": "1Mi"})),
        ("limitranges", limit(json!({"type": "Pod", "max": {"cpu": "2"}})), "/spec/limits/0/default", Value::Null),
        ("priorityclasses", json!({}), "/preemptionPolicy", json!("PreemptLowerPriority")),
        ("priorityclasses", json!({"value": null}), "/value", json!(0)),
        (
            "priorityclasses",
            json!({"metadata": {"name": "system-node-critical"}, "value": 2_000_001_000}),
            "/value",
            json!(2_000_001_000),
        ),
        ("runtimeclasses", json!({"overhead": {"podFixed": {"cpu": "0.5"}}}), "/overhead/podFixed/cpu", json!("500m")),
    ]);
}

#[test]
fn refused() {
    let quota = |spec: Value| json!({ "spec": spec });
    let scope = |expression: Value| quota(json!({"scopeSelector": {"matchExpressions": [expression]}}));
    let container = |amounts: Value| {
        let mut whole = json!({"type": "Container"});
        super::merge(&mut whole, amounts);
        limit(whole)
    };
    check_refused(&[
        (
            "resourcequotas",
            quota(json!({"hard": {"cpus": "1"}})),
            "spec.hard[cpus]: Invalid value: \"cpus\": must be a standard resource for quota",
        ),
        (
            "resourcequotas",
            quota(json!({"hard": {"pods": "1.5"}})),
            "spec.hard[pods]: Invalid value: \"1500m\": must be an integer",
        ),
        (
            "resourcequotas",
            quota(json!({"hard": {"cpu": "-1"}})),
            "spec.hard[cpu]: Invalid value: \"-1\": must be greater than or equal to 0",
        ),
        (
            "resourcequotas",
            quota(json!({"scopes": ["Big"]})),
            "spec.scopes: Invalid value: [\"Big\"]: unsupported scope",
        ),
        (
            "resourcequotas",
            quota(json!({"scopes": ["BestEffort", "NotBestEffort"]})),
            "spec.scopes: Invalid value: [\"BestEffort\",\"NotBestEffort\"]: conflicting scopes",
        ),
        (
            "resourcequotas",
            quota(json!({"scopes": ["BestEffort"], "hard": {"cpu": "1"}})),
            "spec.scopes: Invalid value: [\"BestEffort\"]: unsupported scope applied to resource",
        ),
        (
            "resourcequotas",
            scope(json!({"scopeName": "PriorityClass", "operator": "In"})),
            "spec.scopeSelector.matchExpressions[0].values: Required value: must be at least one value",
        ),
        (
            "resourcequotas",
            scope(json!({"scopeName": "Terminating", "operator": "In", "values": ["a"]})),
            "spec.scopeSelector.matchExpressions[0].operator: Invalid value: \"In\": must be 'Exist' when scope is any of",
        ),
        (
            "limitranges",
            container(json!({"min": {"cpu": "2"}, "max": {"cpu": "1"}})),
            "spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1",
        ),
        (
            "limitranges",
            container(json!({"default": {"cpu": "1"}, "defaultRequest": {"cpu": "2"}})),
            "spec.limits[0].defaultRequest[cpu]: Invalid value: \"2\": default request value 2 is greater than default limit value 1",
        ),
        (
            "limitranges",
            container(json!({"min": {"cpu": "2"}, "default": {"cpu": "1"}})),
            "spec.limits[0].default[cpu]: Invalid value: \"1\": min value 2 is greater than default value 1",
        ),
        (
            "limitranges",
            container(json!({"min": {"cpu": "1"}, "max": {"cpu": "2"}, "maxLimitRequestRatio": {"cpu": "3"}})),
            "spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: \"3\": ratio 3 is greater than max/min",
        ),
        (
            "limitranges",
            container(json!({"maxLimitRequestRatio": {"cpu": "500m"}})),
            "spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: \"500m\": ratio 500m is less than 1",
        ),
        (
            "limitranges",
            limit(json!({"type": "Pod", "default": {"cpu": "1"}})),
            "spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'",
        ),
        (
            "limitranges",
            limit(json!({"type": "PersistentVolumeClaim"})),
            "spec.limits[0]: Required value: either minimum or maximum storage value is required, but neither was provided",
        ),
        (
            "limitranges",
            limit(json!({"type": "Node"})),
            "spec.limits[0].type: Invalid value: \"Node\": must be a standard limit type",
        ),
        (
            "limitranges",
            json!({"spec": {"limits": [{"type": "Pod"}, {"type": "Pod"}]}}),
            "spec.limits[1].type: Duplicate value: \"Pod\"",
        ),
        (
            "priorityclasses",
            json!({"metadata": {"name": "system-mine"}}),
            "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: system-mine is not a known",
        ),
        (
            "priorityclasses",
            json!({"value": 1_000_000_001}),
            "value: Forbidden: maximum allowed value of a user defined priority is 1000000000",
        ),
        ("priorityclasses", json!({"preemptionPolicy": "Maybe"}), "preemptionPolicy: Unsupported value: \"Maybe\""),
        ("runtimeclasses", json!({"handler": null}), "handler: Required value"),
        (
            "runtimeclasses",
            json!({"handler": "Run C"}),
            "handler: Invalid value: \"Run C\": a lowercase RFC 1123 label",
        ),
    ]);
}

#[test]
fn changes() {
    check_changes(&[
        ("resourcequotas", json!({}), json!({"spec": {"hard": {"pods": "5"}}}), ""),
        (
            "resourcequotas",
            json!({}),
            json!({"spec": {"scopes": ["BestEffort"]}}),
            "spec.scopes: Invalid value: [\"BestEffort\"]: field is immutable",
        ),
        ("limitranges", json!({}), limit(json!({"type": "Pod", "max": {"cpu": "1"}})), ""),
        ("priorityclasses", json!({}), json!({"value": 5}), "value: Forbidden: may not be changed in an update."),
        (
            "priorityclasses",
            json!({}),
            json!({"preemptionPolicy": "Never"}),
            "preemptionPolicy: Invalid value: \"Never\": field is immutable",
        ),
        ("priorityclasses", json!({}), json!({"description": "more"}), ""),
        (
            "runtimeclasses",
            json!({}),
            json!({"handler": "kata"}),
            "handler: Invalid value: \"kata\": field is immutable",
        ),
    ]);
}

#[test]
fn rows() {
    check_rows(&[
        (
            "resourcequotas",
            json!({"status": {"hard": {"pods": "4", "limits.cpu": "2", "requests.cpu": "1"}, "used": {"pods": "1", "limits.cpu": "500m"}}}),
            json!(["x", "pods: 1/4, requests.cpu: 0/1", "limits.cpu: 500m/2", "60m"]),
        ),
        ("limitranges", json!({}), json!(["x", "2026-01-01T00:00:00Z"])),
        (
            "priorityclasses",
            json!({"globalDefault": true, "preemptionPolicy": "Never"}),
            json!(["x", 1000, true, "60m", "Never"]),
        ),
        ("runtimeclasses", json!({}), json!(["x", "runc", "60m"])),
    ]);
}
