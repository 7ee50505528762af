//! Server-side apply through the API: who owns what after each way of writing, conflicts, and what an apply creates.

use http::StatusCode;
use serde_json::{Value, json};

use super::{Answer, Api, DEPLOYMENTS, MAPS};

impl Api {
    async fn apply(&self, path: &str, query: &str, body: Value) -> Answer {
        self.patch(&format!("{path}?{query}"), "apply-patch+yaml", body).await
    }
}

fn map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data})
}

fn deployment(spec: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec})
}

/// Manager, operation, subresource and fields of each entry.
fn owners(object: &Value) -> Vec<(String, String, String, Value)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let of = |one: &Value| {
        (text(&one["manager"]), text(&one["operation"]), text(&one["subresource"]), one["fieldsV1"].clone())
    };
    entries.iter().map(of).collect()
}

#[tokio::test]
async fn an_apply_creates_changes_and_takes_away() {
    let api = Api::new().await;
    let path = format!("{MAPS}/a");
    let made = api.apply(&path, "fieldManager=me", map(json!({"k": "1", "l": "2"}))).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    let mine = |fields: Value| vec![("me".to_owned(), "Apply".to_owned(), String::new(), json!({"f:data": fields}))];
    assert_eq!(owners(&made.body), mine(json!({"f:k": {}, "f:l": {}})));

    let same = api.apply(&path, "fieldManager=me", map(json!({"k": "1", "l": "2"}))).await;
    assert_eq!(same.status, StatusCode::OK);
    assert_eq!(same.body["metadata"]["resourceVersion"], made.body["metadata"]["resourceVersion"], "nothing changed");

    let fewer = api.apply(&path, "fieldManager=me", map(json!({"k": "3"}))).await;
    assert_eq!(fewer.body["data"], json!({"k": "3"}), "{}", fewer.text);
    assert_eq!(owners(&fewer.body), mine(json!({"f:k": {}})));

    let mut other = map(json!({}));
    other["metadata"]["name"] = "b".into();
    let path = format!("{MAPS}/b");
    let dry = api.apply(&path, "fieldManager=me&dryRun=All", other).await;
    assert_eq!(dry.status, StatusCode::CREATED, "{}", dry.text);
    assert_eq!(api.get(&path).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn others_fields_are_a_conflict_until_they_are_taken() {
    let api = Api::new().await;
    let path = format!("{MAPS}/a");
    api.apply(&path, "fieldManager=first", map(json!({"k": "1"}))).await;
    let refused = api.apply(&path, "fieldManager=second", map(json!({"k": "2"}))).await;
    assert_eq!((refused.status, refused.body["reason"].as_str()), (StatusCode::CONFLICT, Some("Conflict")));
    assert_eq!(refused.body["message"], "Apply failed with 1 conflict: conflict with \"first\": .data.k");
    let cause = json!({"reason": "FieldManagerConflict", "message": "conflict with \"first\"", "field": ".data.k"});
    assert_eq!(refused.body["details"]["causes"], json!([cause]));
    let taken = api.apply(&path, "fieldManager=second&force=true", map(json!({"k": "2"}))).await;
    assert_eq!(taken.body["data"], json!({"k": "2"}), "{}", taken.text);
    let shared = api.apply(&path, "fieldManager=third", map(json!({"k": "2"}))).await;
    let names: Vec<String> = owners(&shared.body).into_iter().map(|one| one.0).collect();
    assert_eq!((shared.status, names), (StatusCode::OK, vec!["second".to_owned(), "third".to_owned()]));
}

#[tokio::test]
async fn every_way_of_writing_owns_what_it_wrote() {
    let api = Api::new().await;
    let spec = json!({
        "replicas": 2, "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}},
    });
    let path = format!("{DEPLOYMENTS}/web");
    let agent = [("content-type", "application/json"), ("user-agent", "operator/v1 (linux)")];
    let body = deployment(spec.clone()).to_string().into_bytes();
    let made = api.send("POST", DEPLOYMENTS, &agent, body).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    let [(manager, operation, _, fields)] = owners(&made.body).try_into().expect("one owner");
    assert_eq!((manager.as_str(), operation.as_str()), ("operator", "Update"));
    let container = &fields["f:spec"]["f:template"]["f:spec"]["f:containers"]["k:{\"name\":\"c\"}"];
    assert_eq!(container["f:image"], json!({}), "{fields}");

    let scale = format!("{path}/scale?fieldManager=hpa");
    let scaled = api.patch(&scale, "merge-patch+json", json!({"spec": {"replicas": 5}})).await;
    assert_eq!(scaled.status, StatusCode::OK, "{}", scaled.text);
    let status = json!({"status": {"observedGeneration": 1}});
    let reported = api.patch(&format!("{path}/status?fieldManager=ctl"), "merge-patch+json", status).await;
    let owned = owners(&reported.body);
    let of = |name: &str| owned.iter().find(|one| one.0 == name).cloned().unwrap_or_default();
    assert_eq!((of("hpa").2, of("hpa").3), ("scale".to_owned(), json!({"f:spec": {"f:replicas": {}}})), "{owned:?}");
    assert_eq!((of("ctl").2, of("ctl").3), ("status".to_owned(), json!({"f:status": {"f:observedGeneration": {}}})));
    assert_eq!(of("operator").3["f:spec"]["f:replicas"], Value::Null, "given up to whoever scaled");

    // An apply of another number conflicts with who scaled; one without a number leaves it alone.
    let refused = api.apply(&path, "fieldManager=git", deployment(spec.clone())).await;
    assert_eq!(refused.status, StatusCode::CONFLICT, "{}", refused.text);
    let mut without = spec;
    without["replicas"].take();
    let applied = api.apply(&path, "fieldManager=git", deployment(without)).await;
    assert_eq!((applied.status, &applied.body["spec"]["replicas"]), (StatusCode::OK, &json!(5)), "{}", applied.text);

    let reset = json!({"metadata": {"managedFields": [{}]}});
    let reset = api.patch(&format!("{path}?fieldManager=x"), "merge-patch+json", reset).await;
    assert_eq!(owners(&reset.body), Vec::new(), "{}", reset.text);
}

#[tokio::test]
async fn what_is_no_configuration_is_refused() {
    let api = Api::new().await;
    let path = format!("{MAPS}/a");
    let managed = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "managedFields": []}});
    for (query, body, code, message) in [
        ("", map(json!({})), 422, "fieldManager: Required value: is required for apply patch"),
        ("fieldManager=m", json!({"metadata": {"name": "a"}}), 400, "apiVersion must be set"),
        (
            "fieldManager=m",
            json!({"apiVersion": "v2", "kind": "ConfigMap"}),
            400,
            "does not match the expected API version",
        ),
        ("fieldManager=m", managed, 400, "managedFields must be nil"),
        ("fieldManager=m", json!([]), 400, "must be set"),
        (
            "fieldManager=m&fieldValidation=Strict",
            json!({"apiVersion": "v1", "kind": "ConfigMap", "dat": 1}),
            400,
            "unknown field \"dat\"",
        ),
    ] {
        let refused = api.apply(&path, query, body.clone()).await;
        assert_eq!(refused.status.as_u16(), code, "{query} {body}: {}", refused.text);
        assert!(refused.body["message"].as_str().is_some_and(|text| text.contains(message)), "{}", refused.text);
    }
    let forced = api.patch(&format!("{path}?force=true"), "merge-patch+json", json!({})).await;
    assert_eq!(forced.status.as_u16(), 422, "{}", forced.text);
    assert_eq!(api.get(&path).await.status, StatusCode::NOT_FOUND, "nothing was made");
    // Elsewhere there is no such option.
    let body = json!({"metadata": {"name": "forced"}});
    let made = api.post(&format!("{MAPS}?force=true"), body.clone()).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    let put = api.put(&format!("{MAPS}/forced?force=true"), body).await;
    assert_eq!(put.status, StatusCode::OK, "{}", put.text);
}
