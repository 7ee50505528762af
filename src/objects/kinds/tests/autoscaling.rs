//! HorizontalPodAutoscaler and PodDisruptionBudget.

use serde_json::{Value, json};

use super::{check_changes, check_defaults, check_refused, check_rows};

fn cpu(target: Value) -> Value {
    json!({"spec": {"metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]}})
}

#[test]
fn defaults() {
    let up = json!({"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [
        {"type": "Pods", "value": 4, "periodSeconds": 15}, {"type": "Percent", "value": 100, "periodSeconds": 15}]});
    check_defaults(&[
        ("horizontalpodautoscalers", json!({}), "/spec/minReplicas", json!(1)),
        (
            "horizontalpodautoscalers",
            json!({}),
            "/spec/metrics",
            json!([{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]),
        ),
        ("horizontalpodautoscalers", json!({}), "/spec/behavior", Value::Null),
        (
            "horizontalpodautoscalers",
            json!({"spec": {"behavior": {"scaleDown": {"selectPolicy": "Disabled"}}}}),
            "/spec/behavior/scaleUp",
            up,
        ),
        (
            "horizontalpodautoscalers",
            json!({"spec": {"behavior": {"scaleDown": {"selectPolicy": "Disabled"}}}}),
            "/spec/behavior/scaleDown",
            json!({"selectPolicy": "Disabled", "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]}),
        ),
        (
            "poddisruptionbudgets",
            json!({}),
            "/status",
            json!({"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0}),
        ),
        ("poddisruptionbudgets", json!({}), "/spec/unhealthyPodEvictionPolicy", Value::Null),
    ]);
}

#[test]
fn refused() {
    let spec = |spec: Value| json!({ "spec": spec });
    check_refused(&[
        (
            "horizontalpodautoscalers",
            spec(json!({"minReplicas": 0})),
            "spec.minReplicas: Invalid value: 0: must be greater than or equal to 1",
        ),
        (
            "horizontalpodautoscalers",
            spec(json!({"maxReplicas": null})),
            "spec.maxReplicas: Invalid value: 0: must be greater than 0",
        ),
        (
            "horizontalpodautoscalers",
            spec(json!({"minReplicas": 4})),
            "spec.maxReplicas: Invalid value: 3: must be greater than or equal to `minReplicas`",
        ),
        (
            "horizontalpodautoscalers",
            spec(json!({"scaleTargetRef": {"name": null}})),
            "spec.scaleTargetRef.name: Required value",
        ),
        (
            "horizontalpodautoscalers",
            cpu(json!({"type": "Utilization"})),
            "spec.metrics[0].resource.target.averageUtilization: Required value: must set either a target raw value or a target utilization",
        ),
        (
            "horizontalpodautoscalers",
            cpu(json!({"type": "Sum", "averageUtilization": 1})),
            "spec.metrics[0].resource.target.type: Invalid value: \"Sum\": must be either Utilization, Value, or AverageValue",
        ),
        (
            "horizontalpodautoscalers",
            spec(
                json!({"metrics": [{"type": "Pods", "external": {"metric": {"name": "q"}, "target": {"type": "Value", "value": "1"}}}]}),
            ),
            "spec.metrics[0].pods: Required value: must populate information for the given metric source",
        ),
        (
            "horizontalpodautoscalers",
            spec(
                json!({"metrics": [{"type": "Pods", "external": {"metric": {"name": "q"}, "target": {"type": "Value", "value": "1"}}}]}),
            ),
            "spec.metrics[0].external: Forbidden: must populate the given metric source only",
        ),
        (
            "horizontalpodautoscalers",
            spec(json!({"metrics": [{"type": "Cpu"}]})),
            "spec.metrics[0].type: Unsupported value: \"Cpu\"",
        ),
        (
            "horizontalpodautoscalers",
            spec(json!({"behavior": {"scaleDown": {"stabilizationWindowSeconds": 3601}}})),
            "spec.behavior.scaleDown.stabilizationWindowSeconds: Invalid value: 3601: must be less than or equal to 3600",
        ),
        (
            "horizontalpodautoscalers",
            spec(json!({"behavior": {"scaleUp": {"policies": [{"type": "Pods", "value": 0, "periodSeconds": 1}]}}})),
            "spec.behavior.scaleUp.policies[0].value: Invalid value: 0: must be greater than zero",
        ),
        (
            "poddisruptionbudgets",
            spec(json!({"minAvailable": 1, "maxUnavailable": 1})),
            "spec: Invalid value: {\"minAvailable\":1,\"maxUnavailable\":1}: minAvailable and maxUnavailable cannot be both set",
        ),
        (
            "poddisruptionbudgets",
            spec(json!({"minAvailable": "200%"})),
            "spec.minAvailable: Invalid value: \"200%\": must not be greater than 100%",
        ),
        (
            "poddisruptionbudgets",
            spec(json!({"maxUnavailable": "some"})),
            "spec.maxUnavailable: Invalid value: \"some\": a valid percent string",
        ),
        (
            "poddisruptionbudgets",
            spec(json!({"unhealthyPodEvictionPolicy": "Never"})),
            "spec.unhealthyPodEvictionPolicy: Unsupported value: \"Never\": supported values: \"AlwaysAllow\", \"IfHealthyBudget\"",
        ),
    ]);
}

#[test]
fn changes() {
    check_changes(&[
        ("horizontalpodautoscalers", json!({}), json!({"spec": {"maxReplicas": 9}}), ""),
        ("horizontalpodautoscalers", json!({}), json!({"spec": {"maxReplicas": 0}}), "spec.maxReplicas: Invalid value"),
        ("poddisruptionbudgets", json!({"spec": {"minAvailable": 1}}), json!({"spec": {"minAvailable": "50%"}}), ""),
    ]);
}

#[test]
fn rows() {
    let three = json!({"spec": {"minReplicas": 2, "metrics": [
        {"type": "Resource", "resource": {"name": "cpu", "target": {"averageUtilization": 80}}},
        {"type": "Pods", "pods": {"target": {"averageValue": "1000m"}}},
        {"type": "External", "external": {"target": {"value": "30"}}},
    ]}, "status": {"currentReplicas": 2, "currentMetrics": [{"type": "Resource", "resource": {"current": {"averageUtilization": 12}}}]}});
    check_rows(&[
        ("horizontalpodautoscalers", json!({}), json!(["x", "Deployment/web", "<none>", "<unset>", 3, 0, "60m"])),
        (
            "horizontalpodautoscalers",
            three,
            json!(["x", "Deployment/web", "cpu: 12%/80%, <unknown>/1 + 1 more...", "2", 3, 2, "60m"]),
        ),
        (
            "horizontalpodautoscalers",
            json!({"spec": {"metrics": [{"type": "Object", "object": {"target": {"averageValue": "5"}}}]}}),
            json!(["x", "Deployment/web", "<unknown>/5 (avg)", "<unset>", 3, 0, "60m"]),
        ),
        (
            "poddisruptionbudgets",
            json!({"spec": {"minAvailable": 2}, "status": {"disruptionsAllowed": 1}}),
            json!(["x", "2", "N/A", 1, "60m"]),
        ),
        ("poddisruptionbudgets", json!({"spec": {"maxUnavailable": "10%"}}), json!(["x", "N/A", "10%", 0, "60m"])),
    ]);
}
