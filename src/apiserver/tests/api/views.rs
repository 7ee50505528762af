//! Second versions of resources: read, written and watched as their own, and the same object as the stored version.

use http::StatusCode;
use serde_json::{Value, json};

use super::{Api, brief, frames};

const V1: &str = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers";
const V2: &str = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
const CORE: &str = "/api/v1/namespaces/default/events";
const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/default/events";

fn autoscaler(cpu: i64) -> Value {
    json!({
        "apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "web"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "minReplicas": 1, "maxReplicas": 3, "targetCPUUtilizationPercentage": cpu,
        },
    })
}

fn target(stored: &Value) -> &Value {
    &stored["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"]
}

#[tokio::test]
async fn an_autoscaler_is_the_same_in_both_versions() {
    let api = Api::new().await;
    let made = api.post(V1, autoscaler(50)).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    assert_eq!(made.body["apiVersion"], "autoscaling/v1");
    assert_eq!(made.body["spec"]["targetCPUUtilizationPercentage"], 50);
    let one = format!("{V1}/web");
    let stored = api.get(&format!("{V2}/web")).await.body;
    assert_eq!((&stored["apiVersion"], target(&stored)), (&json!("autoscaling/v2"), &json!(50)));
    assert_eq!(stored["metadata"]["resourceVersion"], made.body["metadata"]["resourceVersion"]);

    let patched = api.patch(&one, "merge-patch+json", json!({"spec": {"targetCPUUtilizationPercentage": 60}})).await;
    assert_eq!(patched.body["spec"]["targetCPUUtilizationPercentage"], 60, "{}", patched.text);
    let patched = api.patch(&one, "strategic-merge-patch+json", json!({"spec": {"maxReplicas": 9}})).await;
    assert_eq!(patched.body["spec"]["maxReplicas"], 9, "{}", patched.text);
    let mut whole = api.get(&one).await.body;
    assert_eq!(whole["spec"]["targetCPUUtilizationPercentage"], 60);
    whole["spec"]["targetCPUUtilizationPercentage"] = 70.into();
    let put = api.put(&one, whole).await;
    assert_eq!((put.status, &put.body["kind"]), (StatusCode::OK, &json!("HorizontalPodAutoscaler")), "{}", put.text);
    assert_eq!(target(&api.get(&format!("{V2}/web")).await.body), 70);

    // What the older version has no field for survives it.
    let metrics = json!([
        {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}},
        {"type": "Resource", "resource": {"name": "memory", "target": {"type": "Utilization", "averageUtilization": 80}}},
    ]);
    let two = api.patch(&format!("{V2}/web"), "merge-patch+json", json!({"spec": {"metrics": metrics}})).await;
    assert_eq!(two.status, StatusCode::OK, "{}", two.text);
    let shown = api.get(&one).await.body;
    assert!(shown["metadata"]["annotations"]["autoscaling.alpha.kubernetes.io/metrics"].is_string(), "{shown}");
    let again = api.put(&one, shown).await;
    assert_eq!(again.status, StatusCode::OK, "{}", again.text);
    let kept = api.get(&format!("{V2}/web")).await.body;
    assert_eq!(kept["spec"]["metrics"], metrics);
    assert_eq!(kept["metadata"]["annotations"], Value::Null);

    let mut applied = autoscaler(40);
    applied["metadata"]["name"] = "applied".into();
    let path = format!("{V1}/applied?fieldManager=me");
    let applied = api.patch(&path, "apply-patch+yaml", applied).await;
    assert_eq!(applied.status, StatusCode::CREATED, "{}", applied.text);
    assert_eq!(applied.body["spec"]["targetCPUUtilizationPercentage"], 40);

    let wrong = api.post(V1, json!({"apiVersion": "autoscaling/v2", "metadata": {"name": "x"}})).await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST, "{}", wrong.text);
    let unknown = json!({"metadata": {"name": "x"}, "spec": {"metrics": []}});
    let unknown = api.post(&format!("{V1}?fieldValidation=Strict"), unknown).await;
    assert!(unknown.text.contains("unknown field"), "{}", unknown.text);
    let gone = api.delete(&one, json!(null)).await;
    assert_eq!(gone.status, StatusCode::OK);
    assert_eq!(api.get(&format!("{V2}/web")).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn an_event_has_other_names_in_the_newer_group() {
    let api = Api::new().await;
    let event = |name: &str, about: &str| {
        json!({
            "metadata": {"name": name}, "regarding": {"kind": "Pod", "name": about, "namespace": "default"},
            "note": "it happened", "reason": "Happened", "type": "Normal", "action": "Happening",
            "reportingController": "example.com/c", "reportingInstance": "c-1",
            "eventTime": "2026-01-01T00:00:00.000000Z",
        })
    };
    let made = api.post(EVENTS, event("a", "p")).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    assert_eq!((&made.body["apiVersion"], &made.body["note"]), (&json!("events.k8s.io/v1"), &json!("it happened")));
    let stored = api.get(&format!("{CORE}/a")).await.body;
    assert_eq!((&stored["message"], &stored["involvedObject"]["name"]), (&json!("it happened"), &json!("p")));

    let response = api.raw("GET", &format!("{EVENTS}?watch=true"), &[], Vec::new()).await;
    let mut watch = response.into_body().into_data_stream();
    api.post(EVENTS, event("b", "q")).await;
    let old = json!({"metadata": {"name": "c"}, "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"}, "message": "m"});
    assert_eq!(api.post(CORE, old).await.status, StatusCode::CREATED);
    let seen = frames(&mut watch, 3).await;
    assert_eq!(brief(&seen), ["ADDED a", "ADDED b", "ADDED c"]);
    assert_eq!((&seen[2]["object"]["note"], &seen[2]["object"]["message"]), (&json!("m"), &Value::Null));

    let list = api.get(&format!("{EVENTS}?fieldSelector=regarding.name=p")).await.body;
    assert_eq!((&list["kind"], &list["apiVersion"]), (&json!("EventList"), &json!("events.k8s.io/v1")));
    let names: Vec<&Value> =
        list["items"].as_array().into_iter().flatten().map(|item| &item["metadata"]["name"]).collect();
    assert_eq!(names, ["a", "c"]);
    assert!(list["items"].as_array().is_some_and(|all| all.iter().all(|item| item["regarding"].is_object())));
    let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json")];
    let table = api.send("GET", &format!("{EVENTS}?includeObject=Object"), &table, Vec::new()).await.body;
    assert_eq!(table["rows"][0]["object"]["note"], "it happened");
    assert_eq!(table["columnDefinitions"][0]["name"], "Last Seen");
    let patched = api.patch(&format!("{EVENTS}/a"), "merge-patch+json", json!({"note": "again"})).await;
    assert_eq!(patched.body["note"], "again", "{}", patched.text);
    let all = api.delete(&format!("{EVENTS}?fieldSelector=regarding.name=p"), json!(null)).await;
    assert_eq!(all.status, StatusCode::OK, "{}", all.text);
    assert_eq!(api.get(CORE).await.body["items"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn discovery_shows_both_versions() {
    const V2_FORM: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let api = Api::new().await;
    let groups = api.get("/apis").await.body;
    let find =
        |name: &str| groups["groups"].as_array().into_iter().flatten().find(|group| group["name"] == name).cloned();
    let autoscaling = find("autoscaling").expect("there");
    assert_eq!(autoscaling["preferredVersion"]["version"], "v2");
    assert_eq!(autoscaling["versions"].as_array().map(Vec::len), Some(2));
    assert!(find("events.k8s.io").is_some());
    let list = api.get("/apis/autoscaling/v1").await.body;
    let names: Vec<&Value> = list["resources"].as_array().into_iter().flatten().map(|row| &row["name"]).collect();
    assert_eq!(names, ["horizontalpodautoscalers", "horizontalpodautoscalers/status"]);
    let aggregated = api.send("GET", "/apis", &[("accept", V2_FORM)], Vec::new()).await.body;
    let group = aggregated["items"].as_array().into_iter().flatten().find(|g| g["metadata"]["name"] == "autoscaling");
    let versions: Vec<Value> = group.cloned().unwrap_or_default()["versions"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|version| version["version"].clone())
        .collect();
    assert_eq!(versions, ["v2", "v1"]);
    let index = api.get("/openapi/v3").await.body;
    for place in ["apis/autoscaling/v1", "apis/events.k8s.io/v1"] {
        let url = index["paths"][place]["serverRelativeURL"].as_str().unwrap_or("").to_owned();
        let document = api.get(&url).await.body;
        assert!(document["paths"].as_object().is_some_and(|paths| paths.len() >= 2), "{place}");
        assert!(document["components"]["schemas"].as_object().is_some_and(|all| !all.is_empty()), "{place}");
    }
}
