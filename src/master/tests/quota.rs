//! The bound on all objects, as users meet it.

use axum::body::Body;
use http::Method;
use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};

use super::*;

const QUOTA: u64 = 2 << 20;
const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

pub(super) struct Api(hyper::client::conn::http2::SendRequest<Body>);

impl Api {
    pub(super) async fn send(&mut self, method: Method, path: &str, body: Value) -> (StatusCode, Value) {
        let request = Request::builder()
            .method(method)
            .uri(format!("https://kubernetes{path}"))
            .header("content-type", "application/json")
            .body(Body::from(body.to_string()));
        let answer = self.0.send_request(request.expect("a request")).await.expect("answers");
        let status = answer.status();
        let bytes = answer.into_body().collect().await.expect("a body").to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or_default())
    }

    async fn create(&mut self, name: &str) -> (StatusCode, Value) {
        let body = json!({"metadata": {"name": name}, "data": {"value": "x".repeat(200_000)}});
        self.send(Method::POST, CONFIG_MAPS, body).await
    }
}

impl Running {
    pub(super) async fn api(&self) -> Api {
        let transport: std::sync::Arc<dyn Transport> = std::sync::Arc::new(Tcp);
        let stream = connect_tls(&transport, &self.bound.api.to_string(), tls::API_NAME, self.admin(), LIMIT).await;
        let io = TokioIo::new(stream.expect("connects"));
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.expect("handshake");
        tokio::spawn(connection);
        Api(sender)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_store_refuses_what_is_new_takes_deletions_and_opens_by_itself() {
    let one = first_with(|config| config.bounds.quota = QUOTA).await;
    one.leads().await;
    let mut api = one.api().await;
    // As soon as the state's version is raised, and the quota is in it.
    let in_force = async {
        loop {
            let status = one.leads().await;
            let disk = status.members[0].status.as_ref().and_then(|own| own.disk);
            if disk.is_some_and(|disk| disk.store_quota_bytes == QUOTA) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, in_force).await.expect("in time");
    let mut created = Vec::new();
    let refused = loop {
        let name = format!("big-{}", created.len());
        match api.create(&name).await {
            (StatusCode::CREATED, _) => created.push(name),
            (StatusCode::INSUFFICIENT_STORAGE, body) => break body,
            other => panic!("{other:?}"),
        }
    };
    assert!(created.len() > 5, "{created:?}");
    let said = refused["message"].as_str().expect("a message");
    assert_eq!((&refused["reason"], &refused["code"]), (&"InsufficientStorage".into(), &507.into()));
    assert!(said.contains("store-quota") && said.contains("delete"), "what to raise, and what else to do: {said}");

    // What is there can be changed, within the headroom.
    let labelled = json!({"metadata": {"labels": {"seen": "yes"}}});
    let path = format!("{CONFIG_MAPS}/{}", created[0]);
    let request = Request::patch(format!("https://kubernetes{path}"))
        .header("content-type", "application/merge-patch+json")
        .body(Body::from(labelled.to_string()));
    let answer = api.0.send_request(request.expect("a request")).await.expect("answers");
    assert_eq!(answer.status(), StatusCode::OK, "an update has headroom");

    // Deleting is always allowed, and clears it.
    while api.create("again").await.0 == StatusCode::INSUFFICIENT_STORAGE {
        let name = created.pop().expect("there was room for less than one");
        let path = format!("{CONFIG_MAPS}/{name}");
        assert_eq!(api.send(Method::DELETE, &path, json!({})).await.0, StatusCode::OK);
    }
    one.stop().await;
}
