//! What watchers and lists cost in memory, under an allocator that counts. One test, since all share the count.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use apiserver::{Check, Config, Health, Link, LogOptions, LogStream, PodRef, Session, StreamError, Streams};
use axum::body::{Body, BodyDataStream};
use bytes::Bytes;
use control::authz::{MASTERS, User};
use futures::{Stream, StreamExt};
use http::Request;
use objects::Kinds;
use serde_json::{Value, json};
use state::{Command, Op};
use tower::ServiceExt;

#[path = "../../../tests/support/counting.rs"]
mod counting;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

struct Nobody;

impl Health for Nobody {
    fn live(&self) -> Vec<Check> {
        Vec::new()
    }

    fn ready(&self) -> Vec<Check> {
        Vec::new()
    }
}

#[async_trait::async_trait]
impl Streams for Nobody {
    async fn logs(&self, _: &User, _: PodRef, _: LogOptions) -> Result<LogStream, StreamError> {
        Err(StreamError::Unavailable("no node".into()))
    }

    async fn open(&self, _: &User, _: PodRef, _: Session) -> Result<Link, StreamError> {
        Err(StreamError::Unavailable("no node".into()))
    }
}

struct Api {
    router: axum::Router,
    replica: replica::Replica,
}

impl Api {
    fn new() -> Self {
        let replica = replica::memory::start();
        let config = Config {
            replica: replica.clone(),
            settings: Arc::default(),
            streams: Arc::new(Nobody),
            usages: Arc::new(()),
            tokens: None,
            audit: None,
            health: Arc::new(Nobody),
            metrics: None,
            limits: apiserver::Limits::default(),
            now: Arc::new(|| "2026-01-01T00:00:00Z".parse().expect("a time")),
            seed: 1,
            version: String::new(),
            commit: String::new(),
            shutdown: tokio_util::sync::CancellationToken::new(),
        };
        Self { router: apiserver::service(config), replica }
    }

    async fn put(&self, resource: &str, object: &Value) {
        let kind = Kinds::builtin().by_resource("", resource).expect("a kind");
        let put = control::record::put(kind, object).expect("complete");
        let outcome = self.replica.propose(Command { ops: vec![Op::put(put)], ..Command::default() }).await;
        assert_eq!(outcome.expect("applied").refusal, None);
    }

    async fn config_map(&self, name: &str, bytes: usize) {
        let data = "x".repeat(bytes);
        let metadata = json!({"name": name, "namespace": "default", "uid": name});
        self.put("configmaps", &json!({"metadata": metadata, "data": {"k": data}})).await;
    }

    async fn body(&self, path: &str) -> BodyDataStream {
        let mut request = Request::get(path).body(Body::empty()).expect("a request");
        request.extensions_mut().insert(User::authenticated("admin", vec![MASTERS.into()]));
        let response = self.router.clone().oneshot(request).await.expect("infallible");
        assert_eq!(response.status(), 200, "{path}");
        response.into_body().into_data_stream()
    }
}

/// Lets a watch begin to wait. True if it has something to say instead.
async fn speaks(stream: &mut BodyDataStream) -> bool {
    poll_fn(|cx| Poll::Ready(std::pin::Pin::new(&mut *stream).poll_next(cx).is_ready())).await
}

#[tokio::test]
async fn watchers_and_lists_stay_small() {
    let api = Api::new();
    api.put("namespaces", &json!({"metadata": {"name": "default", "uid": "default"}})).await;
    let revision = api.replica.root().revision();

    // Ten thousand watchers, each on an object of its own.
    let count = 10_000;
    let mut watchers = Vec::with_capacity(count);
    let before = counting::in_use();
    for i in 0..count {
        let path = format!("{MAPS}?watch=1&resourceVersion={revision}&fieldSelector=metadata.name%3Dm{i}");
        let mut watcher = api.body(&path).await;
        assert!(!speaks(&mut watcher).await);
        watchers.push(watcher);
    }
    let each = (counting::in_use() - before) / count as i64;
    println!("{count} watchers: {each} bytes each");
    assert!(each <= 5_000, "{each} bytes per watcher, beside what its connection takes");
    api.config_map("m7", 10).await;
    let said = watchers[7].next().await.expect("open").expect("no error");
    assert!(said.starts_with(b"{\"type\":\"ADDED\""), "{said:?}");
    drop(watchers);

    // A change of a large object is one piece of memory for all who watch it.
    let count = 200;
    let mut watchers = Vec::new();
    for _ in 0..count {
        let mut watcher = api.body(&format!("{MAPS}?watch=1&resourceVersion={}", api.replica.root().revision())).await;
        assert!(!speaks(&mut watcher).await);
        watchers.push(watcher);
    }
    api.config_map("large", 500_000).await;
    let before = counting::in_use();
    let mut said: Vec<Bytes> = Vec::new();
    for watcher in &mut watchers {
        said.push(watcher.next().await.expect("open").expect("no error"));
    }
    let took = counting::in_use() - before;
    assert!(said.iter().all(|frame| frame == &said[0] && frame.len() > 500_000));
    assert!(took < 3 * 500_000, "{took} bytes for {count} watchers of one change");
    drop((watchers, said));

    // A list of any length is written in pieces, and holds no more than a piece while it is.
    for i in 0..4_000 {
        api.config_map(&format!("list-{i}"), 2_000).await;
    }
    let before = counting::in_use();
    let mut list = api.body(&format!("{MAPS}?fieldSelector=metadata.name!%3Dlarge")).await;
    let (mut bytes, mut most) = (0, 0);
    while let Some(chunk) = list.next().await {
        most = most.max(counting::in_use() - before);
        bytes += chunk.expect("no error").len();
    }
    println!("a list of {bytes} bytes: {most} bytes at most at one time");
    assert!(bytes > 8_000_000 && most < 300_000, "{most} bytes for a list of {bytes}");
}
