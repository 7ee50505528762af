//! The API over a store in memory, on plain HTTP, with every caller as `system:masters`: for trying clients by hand.
//!
//! ```sh
//! cargo run -p apiserver --example memory -- 127.0.0.1:8001
//! kubectl --server http://127.0.0.1:8001 get namespaces
//! ```
//!
//! With a directory as second argument, the body of each write is kept there: how `tests/golden/requests` was made.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use apiserver::{Check, Config, Health, Link, LogOptions, LogStream, PodRef, Session, StreamError, Streams};
use axum::extract::Request;
use axum::middleware::{self, Next};
use control::authz::{MASTERS, User};
use http_body_util::BodyExt;

struct Nobody;

impl Health for Nobody {
    fn live(&self) -> Vec<Check> {
        Vec::new()
    }

    fn ready(&self) -> Vec<Check> {
        vec![Check { name: "leader", result: Ok(()) }]
    }
}

#[async_trait::async_trait]
impl Streams for Nobody {
    async fn logs(&self, _: &User, pod: PodRef, _: LogOptions) -> Result<LogStream, StreamError> {
        Err(StreamError::Unavailable(format!("node {:?} is not connected", pod.node)))
    }

    async fn open(&self, _: &User, pod: PodRef, _: Session) -> Result<Link, StreamError> {
        Err(StreamError::Unavailable(format!("node {:?} is not connected", pod.node)))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:0".into());
    let keep = arguments.next();
    let replica = replica::memory::start();
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        seed(&replica, name).await?;
    }
    let config = Config {
        replica,
        settings: Arc::default(),
        streams: Arc::new(Nobody),
        usages: Arc::new(()),
        tokens: None,
        audit: None,
        health: Arc::new(Nobody),
        metrics: None,
        limits: apiserver::Limits::default(),
        now: Arc::new(jiff::Timestamp::now),
        seed: jiff::Timestamp::now().as_nanosecond() as u64,
        version: env!("CARGO_PKG_VERSION").into(),
        commit: String::new(),
        shutdown: tokio_util::sync::CancellationToken::new(),
    };
    let number = Arc::new(AtomicU32::new(0));
    let everyone = middleware::from_fn(move |request: Request, next: Next| {
        let (keep, number) = (keep.clone(), number.clone());
        async move {
            let (mut parts, body) = request.into_parts();
            parts.extensions.insert(User::authenticated("someone", vec![MASTERS.into()]));
            let bytes = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
            let line = format!("{} {}", parts.method, parts.uri);
            let media = parts.headers.get("content-type").and_then(|v| v.to_str().ok()).unwrap_or("-").to_owned();
            if let (Some(directory), false) = (&keep, bytes.is_empty()) {
                let n = number.fetch_add(1, Ordering::Relaxed);
                let _ = std::fs::write(format!("{directory}/{n:03}.body"), &bytes);
                let _ = std::fs::write(format!("{directory}/{n:03}.head"), format!("{line}\n{media}\n"));
            }
            let response = next.run(Request::from_parts(parts, bytes.into())).await;
            println!("{} {line} {media}", response.status().as_u16());
            response
        }
    });
    let router = apiserver::service(config).layer(everyone);
    let listener = tokio::net::TcpListener::bind(&address).await?;
    println!("http://{}", listener.local_addr()?);
    serve(listener, router).await
}

async fn serve(listener: tokio::net::TcpListener, router: axum::Router) -> Result<(), Box<dyn std::error::Error>> {
    loop {
        let (socket, _) = listener.accept().await?;
        let service = hyper_util::service::TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let builder = hyper_util::server::conn::auto::Builder::new(hyper_util::rt::TokioExecutor::new());
            let _ = builder.serve_connection(hyper_util::rt::TokioIo::new(socket), service).await;
        });
    }
}

async fn seed(replica: &replica::Replica, name: &str) -> Result<(), Box<dyn std::error::Error>> {
    let kind = objects::Kinds::builtin().by_resource("", "namespaces").ok_or("no namespaces")?;
    let object = serde_json::json!({
        "metadata": {"name": name, "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"},
    });
    let put = control::record::put(kind, &object)?;
    let command = state::Command { ops: vec![state::Op::put(put)], ..state::Command::default() };
    replica.propose(command).await?;
    Ok(())
}
