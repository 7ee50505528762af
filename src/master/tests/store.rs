//! What goes by itself from the store, as users see it.

use axum::body::Body;
use http::Method;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::*;

const EVENTS: &str = "/api/v1/namespaces/default/events";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_expire_by_a_change_that_every_watcher_sees() {
    let one = first_with(|config| config.settings.event_ttl = Duration::from_secs(2)).await;
    one.leads().await;
    let mut api = one.api().await;
    let event = json!({
        "metadata": { "name": "once" }, "reason": "Tested", "message": "It was.", "type": "Normal",
        "involvedObject": { "kind": "Pod", "name": "p", "namespace": "default" },
    });
    let created = async {
        loop {
            match api.send(Method::POST, EVENTS, event.clone()).await {
                (StatusCode::CREATED, created) => return created,
                // The namespace is being made.
                (StatusCode::NOT_FOUND, _) => tokio::task::yield_now().await,
                other => panic!("{other:?}"),
            }
        }
    };
    let created = tokio::time::timeout(LIMIT, created).await.expect("created in time");
    let version = created["metadata"]["resourceVersion"].as_str().expect("a version").to_owned();
    let path = format!("{EVENTS}?watch=1&resourceVersion={version}&fieldSelector=metadata.name=once");
    let mut other = one.api().await;
    let (status, changes) = tokio::time::timeout(LIMIT, other.first_frame(&path)).await.expect("it goes in time");
    assert_eq!(status, StatusCode::OK);
    assert_eq!((&changes["type"], &changes["object"]["metadata"]["name"]), (&json!("DELETED"), &json!("once")));
    assert_eq!(api.send(Method::GET, &format!("{EVENTS}/once"), Value::Null).await.0, StatusCode::NOT_FOUND);
    one.stop().await;
}

impl quota::Api {
    /// The first line of an answer that does not end.
    async fn first_frame(&mut self, path: &str) -> (StatusCode, Value) {
        let request = Request::get(format!("https://kubernetes{path}")).body(Body::empty()).expect("a request");
        let answer = self.0.send_request(request).await.expect("answers");
        let status = answer.status();
        let frame = answer.into_body().frame().await.expect("a frame").expect("it is open");
        (status, serde_json::from_slice(&frame.into_data().expect("data")).expect("JSON"))
    }
}
