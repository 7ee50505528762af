//! The bounds of a running master, met by clients that mean no good: others are served all the same.

use axum::body::Body;
use http::header::RETRY_AFTER;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rpc::pki::{Credential, signing_request};
use rpc::transport::Io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::PortLimits;

const NAMESPACES: &str = "/api/v1/namespaces?resourceVersion=0";
const OWN_NODE: &str = "/api/v1/nodes/node-1";

impl Running {
    /// An administrator of this name.
    fn administrator(&self, name: &str) -> Credential {
        self.administrator_for(name, Lifetimes::default().user)
    }

    /// For so long.
    fn administrator_for(&self, name: &str, life: Duration) -> Credential {
        let issuers = Dir::of(&self.config.data_dir).issuers().expect("issuers");
        let (key_pem, csr) = signing_request().expect("a key");
        let certificate_pem =
            issuers.issue_user(&csr, name, Some(kubeconfig::ADMIN_GROUP), life, unix_now()).expect("signed");
        Credential { certificate_pem, key_pem }
    }

    async fn tls(&self, credential: &Credential) -> tokio_rustls::client::TlsStream<Io> {
        let transport: std::sync::Arc<dyn Transport> = std::sync::Arc::new(Tcp);
        let certificate = tls::Certificate::new(credential, "client").expect("pair");
        let trust = Dir::of(&self.config.data_dir).bundles().expect("bundles").client;
        let config = tls::api_client(&trust, Some(&certificate)).expect("client");
        connect_tls(&transport, &self.bound.api.to_string(), tls::API_NAME, config, LIMIT).await.expect("connects")
    }

    async fn client(&self, credential: &Credential) -> Client {
        let io = TokioIo::new(self.tls(credential).await);
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.expect("handshake");
        Client { sender, _connection: tokio::spawn(connection) }
    }
}

struct Client {
    sender: SendRequest<Body>,
    _connection: tokio::task::JoinHandle<Result<(), hyper::Error>>,
}

impl Client {
    async fn send(&mut self, method: &str, path: &str, body: Body) -> Response<Incoming> {
        let request = Request::builder().method(method).uri(format!("https://kubernetes{path}")).body(body);
        self.sender.send_request(request.expect("a request")).await.expect("answers")
    }

    async fn status(&mut self, path: &str) -> StatusCode {
        self.send("GET", path, Body::empty()).await.status()
    }

    async fn text(&mut self, path: &str) -> String {
        let body = self.send("GET", path, Body::empty()).await.into_body().collect().await.expect("a body");
        String::from_utf8_lossy(&body.to_bytes()).into_owned()
    }

    /// A request that stays in flight: its body never comes.
    fn hang(&self) -> tokio::task::JoinHandle<()> {
        let mut sender = self.sender.clone();
        tokio::spawn(async move {
            let body = Body::from_stream(futures::stream::pending::<Result<bytes::Bytes, std::io::Error>>());
            let request = Request::post("https://kubernetes/api/v1/namespaces").body(body).expect("a request");
            let _ = sender.send_request(request).await;
        })
    }

    /// Asks until the answer has this status.
    async fn until(&mut self, path: &str, wanted: StatusCode) -> Response<Incoming> {
        let asked = async {
            loop {
                let answer = self.send("GET", path, Body::empty()).await;
                if answer.status() == wanted {
                    return answer;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LIMIT, asked).await.expect("the status in time")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_one_user_leaves_others_and_nodes_served() {
    let limits = crate::Limits {
        requests: 8,
        requests_per_user: 6,
        requests_system: 2,
        watches: 4,
        watches_per_user: 3,
        ..crate::Limits::default()
    };
    let one = first_with(|config| config.api_limits = limits).await;
    one.leads().await;
    let node = Dir::of(&one.config.data_dir).credential("node").expect("pair");
    let mut node = one.client(&node).await;
    node.until(OWN_NODE, StatusCode::OK).await;

    let mut flood = one.client(&one.administrator("flood")).await;
    let hanging: Vec<_> = (0..6).map(|_| flood.hang()).collect();
    let refused = flood.until(NAMESPACES, StatusCode::TOO_MANY_REQUESTS).await;
    assert_eq!(refused.headers()[RETRY_AFTER], "1");
    let body = refused.into_body().collect().await.expect("a body").to_bytes();
    let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!((&body["reason"], &body["details"]["retryAfterSeconds"]), (&"TooManyRequests".into(), &1.into()));
    assert!(body["message"].as_str().is_some_and(|text| text.contains("api-requests-per-user")), "{body}");

    let mut other = one.client(&one.administrator("other")).await;
    assert_eq!(other.status(NAMESPACES).await, StatusCode::OK, "another user has room");
    assert_eq!(node.status(OWN_NODE).await, StatusCode::OK);
    let more: Vec<_> = (0..2).map(|_| other.hang()).collect();
    other.until(NAMESPACES, StatusCode::TOO_MANY_REQUESTS).await;
    for _ in 0..20 {
        assert_eq!(node.status(OWN_NODE).await, StatusCode::OK, "nodes have a share of their own");
        assert_eq!(flood.status("/readyz").await, StatusCode::OK, "health is never refused");
        assert_eq!(flood.status(OWN_NODE).await, StatusCode::OK, "nor an administrator's look at a node");
    }
    let metrics = flood.text("/metrics").await;
    // Other masters of this process record into the same: that it shows is all that can be said.
    for line in [
        "hactl_bound{setting=\"api-requests-per-user\"}",
        "hactl_bound_used{setting=\"api-requests\"}",
        "hactl_bound_refused_total{setting=\"api-requests-per-user\"}",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }

    // What was abandoned gives its place back.
    hanging.into_iter().chain(more).for_each(|request| request.abort());
    flood.until(NAMESPACES, StatusCode::OK).await;

    let watch = "/api/v1/namespaces?watch=1";
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(flood.until(watch, StatusCode::OK).await);
    }
    assert_eq!(flood.status(watch).await, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(flood.status(NAMESPACES).await, StatusCode::OK, "watches are counted apart");
    assert_eq!(other.status(watch).await, StatusCode::OK);
    drop(open);
    flood.until(watch, StatusCode::OK).await;
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_nobody_reads_ends_its_connection() {
    let limits = PortLimits { stalled: Duration::from_millis(300), ..PortLimits::default() };
    let one = first_with(|config| config.port_limits = limits).await;
    one.leads().await;
    let admin = one.administrator("admin");
    let mut other = one.client(&admin).await;
    let object = serde_json::json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "large" },
        "data": { "text": "x".repeat(500_000) },
    });
    let path = "/api/v1/namespaces/default/configmaps";
    let made = async {
        while other.send("POST", path, Body::from(object.to_string())).await.status() != StatusCode::CREATED {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, made).await.expect("created");
    // It takes one window's worth and then nothing, but answers pings.
    let io = TokioIo::new(one.tls(&admin).await);
    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (mut sender, connection) =
        builder.initial_stream_window_size(65_535).handshake::<_, Body>(io).await.expect("handshake");
    let connection = tokio::spawn(connection);
    let request = Request::get(format!("https://kubernetes{path}")).body(Body::empty()).expect("a request");
    let unread = sender.send_request(request).await.expect("answers");
    assert_eq!(unread.status(), StatusCode::OK);
    let _ended = tokio::time::timeout(LIMIT, connection).await.expect("closed in time");
    assert!(unread.into_body().collect().await.is_err(), "never sent as a whole");
    assert_eq!(other.text(&format!("{path}/large")).await.matches("xxxx").count(), 125_000, "others get all of it");
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_open_ends_with_the_certificate_that_opened_it() {
    let one = first().await;
    one.leads().await;
    let mut lasting = one.client(&one.administrator("lasting")).await;
    let mut watches = Vec::new();
    let brief = one.administrator_for("brief", Duration::from_secs(5));
    let mut short = one.client(&brief).await;
    for client in [&mut short, &mut lasting] {
        let watch = client.until("/api/v1/namespaces?watch=1", StatusCode::OK).await;
        watches.push(tokio::spawn(watch.into_body().collect()));
    }
    let going_on = watches.pop().expect("two");
    let ended = watches.pop().expect("two");
    let _seen = tokio::time::timeout(LIMIT, ended).await.expect("it ends by itself").expect("no panic");
    let _closed = tokio::time::timeout(LIMIT, short._connection).await.expect("closed in time").expect("no panic");
    assert!(!going_on.is_finished(), "that of another certificate goes on");
    let refused = one.tls(&brief).await.read_u8().await.expect_err("it opens nothing any more").to_string();
    assert!(refused.contains("xpired"), "and says why: {refused}");
    going_on.abort();
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_do_nothing_are_closed() {
    let limits = PortLimits {
        connections_per_address: 3,
        handshake_time: Duration::from_millis(300),
        header_time: Duration::from_millis(300),
        idle: Duration::from_millis(300),
        ..PortLimits::default()
    };
    let one = first_with(|config| config.port_limits = limits).await;
    let admin = one.administrator("admin");
    /// Reads until the other side closes.
    async fn closed(mut stream: impl tokio::io::AsyncRead + Unpin) {
        let mut bytes = Vec::new();
        let _ = tokio::time::timeout(LIMIT, stream.read_to_end(&mut bytes)).await.expect("closed in time");
    }
    let connect = || async { tokio::net::TcpStream::connect(one.bound.api).await.expect("connects") };

    // One that never shakes hands, and one more than an address may have.
    let silent = [connect().await, connect().await, connect().await];
    closed(connect().await).await;
    for stream in silent {
        closed(stream).await;
    }
    // One whose request never ends, and one that never makes any.
    let mut slow = one.tls(&admin).await;
    slow.write_all(b"GET /healthz HTTP/1.1\r\nHost: kub").await.expect("writes");
    closed(slow).await;
    closed(one.tls(&admin).await).await;
    // One that asked and went quiet.
    let Client { mut sender, _connection: connection } = one.client(&admin).await;
    let request = Request::get("https://kubernetes/livez").body(Body::empty()).expect("a request");
    assert_eq!(sender.send_request(request).await.expect("answers").status(), StatusCode::OK);
    let ended = tokio::time::timeout(LIMIT, connection).await.expect("closed in time").expect("no panic");
    assert!(ended.is_ok(), "closed in good order: {ended:?}");
    one.stop().await;
}
