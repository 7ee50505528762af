//! Second versions: what they show, and that nothing is lost on the way there and back.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Kinds, created, merge, object};
use crate::kinds::View;
use crate::meta;

fn view(group: &str, plural: &str) -> &'static View {
    match Kinds::builtin().by_version(group, "v1", plural) {
        Some((_, Some(view))) => view,
        _ => panic!("{plural} have no view in {group}/v1"),
    }
}

#[test]
fn versions_are_found() {
    for (group, version, plural, expected) in [
        ("autoscaling", "v2", "horizontalpodautoscalers", Some(false)),
        ("autoscaling", "v1", "horizontalpodautoscalers", Some(true)),
        ("autoscaling", "v3", "horizontalpodautoscalers", None),
        ("", "v1", "events", Some(false)),
        ("events.k8s.io", "v1", "events", Some(true)),
        ("events.k8s.io", "v1", "pods", None),
    ] {
        let found = Kinds::builtin().by_version(group, version, plural);
        assert_eq!(found.map(|(_, view)| view.is_some()), expected, "{group}/{version}");
        assert!(found.is_none_or(|(kind, _)| kind.plural == plural));
    }
}

#[test]
fn an_autoscaler_of_one_number() {
    let view = view("autoscaling", "horizontalpodautoscalers");
    let mut typed = json!({"metadata": {"name": "x", "namespace": "n"},
        "spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 50, "scaleTargetRef": {"kind": "Deployment", "name": "web"}}});
    assert_eq!(view.decode(&mut typed), Ok(Vec::new()));
    assert_eq!(typed["apiVersion"], "autoscaling/v1");
    let mut stored = typed.clone();
    view.store(&mut stored);
    let cpu = json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}});
    assert_eq!(stored["spec"]["metrics"], json!([cpu]));
    let (kind, _) = object("horizontalpodautoscalers", json!({}));
    let (stored, errors) = created(kind, stored);
    assert_eq!(errors, Vec::<String>::new());

    let mut shown = stored.clone();
    merge(
        &mut shown,
        json!({"status": {"currentReplicas": 2, "currentMetrics": [
        {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 12, "averageValue": "120m"}}}]}}),
    );
    view.show(&mut shown);
    assert_eq!(shown["spec"]["targetCPUUtilizationPercentage"], 50);
    assert_eq!(shown["status"]["currentCPUUtilizationPercentage"], 12);
    assert_eq!(view.decode(&mut shown.clone()), Ok(Vec::new()), "v1 knows every field");

    // The client changes the number, and what it does not see stays.
    shown["spec"]["targetCPUUtilizationPercentage"] = json!(70);
    view.store(&mut shown);
    assert_eq!(shown["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 70);
    assert_eq!(shown["status"]["currentMetrics"][0]["resource"]["current"]["averageValue"], "120m");
}

#[test]
fn an_event_of_the_newer_group() {
    let view = view("events.k8s.io", "events");
    let (kind, _) = object("events", json!({}));
    let mut event = json!({"metadata": {"name": "e", "namespace": "n"}, "note": "m", "regarding": {"kind": "Pod", "name": "p", "namespace": "n"},
        "reportingController": "kubelet", "reportingInstance": "a", "deprecatedCount": 3, "eventTime": "2026-01-01T00:00:00.000000Z"});
    assert_eq!(view.decode(&mut event), Ok(Vec::new()));
    let mut stored = event.clone();
    view.store(&mut stored);
    assert_eq!(kind.decode(&mut stored), Ok(Vec::new()), "the stored version knows every field");
    assert_eq!((&stored["message"], &stored["count"]), (&json!("m"), &json!(3)));
    assert_eq!(kind.fields(&stored)[&view.stored_field("regarding.name")], "p");
    assert_eq!(view.stored_field("reportingController"), "reportingComponent");
    assert_eq!(view.stored_field("metadata.name"), "metadata.name");
    view.show(&mut stored);
    assert_eq!(stored, event);
}

fn metric() -> impl Strategy<Value = Value> {
    let cpu = |target: Value| json!({"type": "Resource", "resource": {"name": "cpu", "target": target}});
    prop_oneof![
        (1..100_i64).prop_map(move |n| cpu(json!({"type": "Utilization", "averageUtilization": n}))),
        (1..100_i64).prop_map(move |n| cpu(json!({"type": "AverageValue", "averageValue": n.to_string()}))),
        (1..100_i64).prop_map(|n| json!({"type": "Pods", "pods": {"metric": {"name": "q"}, "target": {"type": "AverageValue", "averageValue": n.to_string()}}})),
    ]
}

proptest! {
    /// There and back is the same, whatever is measured in whatever order.
    #[test]
    fn views_lose_nothing(metrics in proptest::collection::vec(metric(), 1..5), behaved in any::<bool>(), annotated in any::<bool>()) {
        let (kind, mut object) = object("horizontalpodautoscalers", json!({"spec": {"metrics": metrics}}));
        if behaved {
            merge(&mut object, json!({"spec": {"behavior": {"scaleUp": {"selectPolicy": "Min"}}}}));
        }
        if annotated {
            merge(&mut object, json!({"metadata": {"annotations": {"a": "b"}}, "status": {"conditions": [{"type": "AbleToScale", "status": "True"}]}}));
        }
        kind.decode(&mut object).map_err(|e| TestCaseError::fail(e.to_string()))?;
        kind.default(&mut object);
        let view = view("autoscaling", "horizontalpodautoscalers");
        let mut there = object.clone();
        view.show(&mut there);
        prop_assert_eq!(view.decode(&mut there.clone()), Ok(Vec::new()));
        view.store(&mut there);
        meta::set(&mut there, &["apiVersion"], kind.api_version().into());
        prop_assert_eq!(there, object);
    }
}
