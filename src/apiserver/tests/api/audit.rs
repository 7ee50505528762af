//! The audit log: one line for each request for an object, when its answer is sent.

use std::sync::{Mutex, PoisonError};

use control::authz::User;
use http::StatusCode;
use serde_json::{Value, json};

use super::{Api, MAPS, PODS, frames};

/// Keeps the lines.
#[derive(Default)]
pub struct Lines(Mutex<Vec<String>>);

impl apiserver::Audit for Lines {
    fn note(&self, line: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }
}

impl Lines {
    fn take(&self) -> Vec<Value> {
        let lines = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        lines.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }
}

#[tokio::test]
async fn who_did_what_is_written_down() {
    let mut api = Api::new().await;
    api.lines.take();
    let body = json!({"metadata": {"name": "a"}, "data": {"k": "hunter2"}}).to_string().into_bytes();
    let headers = [
        ("content-type", "application/json"),
        ("user-agent", "kubectl/v1.33.0"),
        ("impersonate-user", "jane"),
        ("impersonate-group", "system:masters"),
    ];
    let made = api.send("POST", &format!("{MAPS}?fieldManager=m"), &headers, body).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    let lines = api.lines.take();
    let [line] = lines.as_slice() else { panic!("{lines:?}") };
    assert!(!line.to_string().contains("hunter2"), "{line}");
    for (pointer, value) in [
        ("/kind", json!("Event")),
        ("/apiVersion", json!("audit.k8s.io/v1")),
        ("/level", json!("Metadata")),
        ("/stage", json!("ResponseComplete")),
        ("/verb", json!("create")),
        ("/requestURI", json!(format!("{MAPS}?fieldManager=m"))),
        ("/user/username", json!("admin")),
        ("/impersonatedUser/username", json!("jane")),
        ("/userAgent", json!("kubectl/v1.33.0")),
        ("/objectRef", json!({"resource": "configmaps", "apiVersion": "v1", "namespace": "default"})),
        ("/responseStatus/code", json!(201)),
        ("/annotations/authorization.k8s.io~1decision", json!("allow")),
        ("/requestReceivedTimestamp", json!("2026-01-01T00:00:00.000000Z")),
        ("/stageTimestamp", json!("2026-01-01T00:00:00.000000Z")),
    ] {
        assert_eq!(line.pointer(pointer), Some(&value), "{pointer}: {line}");
    }

    api.user = Some(User::authenticated("eve", vec![]));
    for path in ["/livez", "/version", "/apis", "/openapi/v3"] {
        api.get(path).await;
    }
    assert_eq!(api.lines.take(), Vec::<Value>::new(), "they say nothing of anybody");
    assert_eq!(api.get(&format!("{PODS}/p")).await.status, StatusCode::FORBIDDEN);
    api.user = None;
    let bad = api.send("GET", PODS, &[("authorization", "Bearer forged")], Vec::new()).await;
    assert_eq!(bad.status, StatusCode::UNAUTHORIZED);
    let lines = api.lines.take();
    let brief: Vec<(&Value, &Value, &Value)> = lines
        .iter()
        .map(|line| {
            let decision = &line["annotations"]["authorization.k8s.io/decision"];
            (&line["user"]["username"], &line["responseStatus"]["code"], decision)
        })
        .collect();
    let (eve, nobody) = (json!("eve"), json!(""));
    assert_eq!(brief, [(&eve, &json!(403), &json!("forbid")), (&nobody, &json!(401), &Value::Null)]);
    assert!(!lines[1].to_string().contains("forged"), "{}", lines[1]);
}

#[tokio::test]
async fn a_watch_is_written_down_when_it_ends() {
    let api = Api::new().await;
    api.config_map("a", json!({})).await;
    api.lines.take();
    let answer = api.raw("GET", &format!("{MAPS}?watch=true"), &[], Vec::new()).await;
    let mut body = answer.into_body().into_data_stream();
    frames(&mut body, 1).await;
    assert_eq!(api.lines.take(), Vec::<Value>::new(), "it goes on");
    drop(body);
    let lines = api.lines.take();
    assert_eq!(lines.iter().map(|line| &line["verb"]).collect::<Vec<_>>(), ["watch"]);
}
