//! The `autoscaling/v1` view of an autoscaler: one number for the cpu, everything else in annotations.
//!
//! The annotations hold JSON as v2 writes it. Among the metrics, the cpu's place is kept by an entry without a target.

use serde_json::{Map, Value, json};

use crate::meta;

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
/// What v1 has no field for, and the annotation that holds it.
const ANNOTATED: &[([&str; 2], &str)] = &[
    (["spec", "metrics"], METRICS),
    (["spec", "behavior"], "autoscaling.alpha.kubernetes.io/behavior"),
    (["status", "currentMetrics"], "autoscaling.alpha.kubernetes.io/current-metrics"),
    (["status", "conditions"], "autoscaling.alpha.kubernetes.io/conditions"),
];
const TARGET: &[&str] = &["spec", "targetCPUUtilizationPercentage"];
const CURRENT: &[&str] = &["status", "currentCPUUtilizationPercentage"];

fn is_cpu(metric: &Value) -> bool {
    meta::text(metric, &["type"]) == "Resource" && meta::text(metric, &["resource", "name"]) == "cpu"
}

fn place() -> Value {
    json!({"type": "Resource", "resource": {"name": "cpu"}})
}

fn of_percent(percent: Value) -> Value {
    let mut metric = place();
    meta::set(&mut metric, &["resource", "target"], json!({"type": "Utilization", "averageUtilization": percent}));
    metric
}

pub(in crate::kinds) fn show(object: &mut Value) {
    let utilization = ["resource", "target", "averageUtilization"];
    let metrics = meta::list_mut(object, &["spec", "metrics"]);
    let cpu = metrics.iter_mut().find(|metric| is_cpu(metric) && meta::at(metric, &utilization).is_some());
    if let Some(cpu) = cpu
        && let Some(percent) = meta::at(cpu, &utilization).cloned()
        // A target that says more than the percentage stays where it is.
        && *cpu == of_percent(percent.clone())
    {
        *cpu = place();
        meta::set(object, TARGET, percent);
    }
    if meta::list(object, &["spec", "metrics"]) == [place()] {
        meta::remove(object, &["spec", "metrics"]);
    }
    let current = meta::list(object, &["status", "currentMetrics"]).iter().find(|metric| is_cpu(metric));
    let current = current.and_then(|cpu| meta::at(cpu, &["resource", "current", "averageUtilization"]).cloned());
    for (path, annotation) in ANNOTATED {
        if let Some(value) = meta::remove(object, path) {
            meta::set(object, &["metadata", "annotations", annotation], value.to_string().into());
        }
    }
    if let Some(percent) = current {
        meta::set(object, CURRENT, percent);
    }
}

pub(in crate::kinds) fn store(object: &mut Value) {
    // The current use stands among the current metrics too, where there are any.
    meta::remove(object, CURRENT);
    for (path, annotation) in ANNOTATED {
        let text = meta::annotation(object, annotation);
        // What is no JSON was no view's: it stays an annotation.
        if let Ok(value) = serde_json::from_str::<Value>(text) {
            meta::remove(object, &["metadata", "annotations", annotation]);
            meta::set(object, path, value);
        }
    }
    if meta::at(object, &["metadata", "annotations"]).and_then(Value::as_object).is_some_and(Map::is_empty) {
        meta::remove(object, &["metadata", "annotations"]);
    }
    let percent = meta::remove(object, TARGET).map(of_percent);
    let mut metrics = meta::list(object, &["spec", "metrics"]).to_vec();
    let found = metrics.iter().position(|metric| *metric == place());
    match (found, percent) {
        (Some(at), Some(cpu)) => metrics[at] = cpu,
        (Some(at), None) => drop(metrics.remove(at)),
        (None, Some(cpu)) => metrics.insert(0, cpu),
        (None, None) => {}
    }
    if !metrics.is_empty() {
        meta::set(object, &["spec", "metrics"], metrics.into());
    }
}
