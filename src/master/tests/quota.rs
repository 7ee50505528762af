//! The bound on all objects, as users meet it.

use axum::body::Body;
use http::Method;
use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};

use super::*;

const QUOTA: u64 = 2 << 20;
const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

pub(super) struct Api(pub(super) hyper::client::conn::http2::SendRequest<Body>);

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

/// The session of a master's own node, which heartbeats go through.
pub(super) struct Session {
    pub(super) up: tokio::sync::mpsc::Sender<pb::NodeMessage>,
    down: tonic::Streaming<pb::MasterMessage>,
    _beats: tokio_util::task::AbortOnDropHandle<()>,
}

pub(super) fn up(message: pb::node_message::Message) -> pb::NodeMessage {
    pb::NodeMessage { message: Some(message) }
}

impl Session {
    pub(super) async fn open(one: &Running) -> Self {
        let dir = Dir::of(&one.config.data_dir);
        let bundles = dir.bundles().expect("bundles");
        let pair = dir.credential("node").expect("pair");
        let certificate = tls::Certificate::new(&pair, "node").expect("pair");
        let tls = tls::api_client(&bundles.client, Some(&certificate)).expect("client");
        let masters = rpc::client::Masters::new(vec![one.bound.api.to_string()], tls);
        let channel = reach(&masters).await;
        let uid = match rpc::pki::inspect::identity_of_pem(&pair.certificate_pem, &bundles) {
            Ok(Some(rpc::Identity::Node { uid, .. })) => uid,
            other => panic!("{other:?}"),
        };
        let hello = pb::Hello { node: "node-1".into(), uid, node_json: "{}".into(), ..Default::default() };
        let (sender, messages) = tokio::sync::mpsc::channel(8);
        sender.send(up(pb::node_message::Message::Hello(hello))).await.expect("room");
        let messages = tokio_stream::wrappers::ReceiverStream::new(messages);
        let mut client = pb::node_session_client::NodeSessionClient::new(channel);
        let down = client.session(messages).await.expect("a session").into_inner();
        let beats = sender.clone();
        let beats = tokio::spawn(async move {
            let mut every = tokio::time::interval(Duration::from_millis(500));
            for sequence in 0.. {
                every.tick().await;
                let beat = pb::node_message::Message::Heartbeat(pb::Heartbeat { sequence });
                if beats.send(up(beat)).await.is_err() {
                    return;
                }
            }
        });
        Self { up: sender, down, _beats: tokio_util::task::AbortOnDropHandle::new(beats) }
    }

    /// The node reports its status, with so many bytes in it; the answer's code.
    async fn report(&mut self, id: u64, bytes: usize) -> u32 {
        let status = json!({"metadata": {"name": "node-1"}, "status": {"images": [{"names": ["x".repeat(bytes)]}]}});
        let write = pb::write::Write::NodeStatus(status.to_string().into());
        self.up.send(up(pb::node_message::Message::Write(pb::Write { id, write: Some(write) }))).await.expect("open");
        loop {
            let message = self.down.message().await.expect("open").expect("open").message;
            if let Some(pb::master_message::Message::WriteResult(result)) = message
                && result.id == id
            {
                return result.code;
            }
        }
    }
}

impl Running {
    /// Waits until the quota binds: as soon as the state's version is raised, and the quota is in it.
    async fn quota_is_in_force(&self) {
        let in_force = async {
            loop {
                let status = self.leads().await;
                let own = status.members[0].status.as_ref();
                let quota = own.and_then(|own| own.disk).is_some_and(|disk| disk.store_quota_bytes == QUOTA);
                if quota && own.is_some_and(|own| own.state_version == state::VERSION) {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LIMIT, in_force).await.expect("in time");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nodes_report_and_their_leases_go_on_while_the_store_is_full() {
    const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/node-1";
    let one = first_with(|config| config.bounds.quota = QUOTA).await;
    one.quota_is_in_force().await;
    let mut session = Session::open(&one).await;
    let mut api = one.api().await;
    assert_eq!(session.report(1, 100).await, 200);
    let renewed = async |api: &mut Api, after: &str| {
        let lease = async {
            loop {
                let (status, lease) = api.send(Method::GET, LEASE, Value::Null).await;
                let time = lease["spec"]["renewTime"].as_str().unwrap_or_default().to_owned();
                if status == StatusCode::OK && time.as_str() > after {
                    return time;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(LIMIT, lease).await.expect("the Lease is renewed in time")
    };
    renewed(&mut api, "").await;

    // Users fill it up to the last bytes, and then what their changes may take beyond.
    let mut number = 0;
    for bytes in [200_000, 20_000, 2_000, 200] {
        loop {
            number += 1;
            let body = json!({"metadata": {"name": format!("big-{number}")}, "data": {"value": "x".repeat(bytes)}});
            match api.send(Method::POST, CONFIG_MAPS, body).await {
                (StatusCode::CREATED, _) => {}
                (StatusCode::INSUFFICIENT_STORAGE, _) => break,
                other => panic!("{other:?}"),
            }
        }
    }
    let mut size = 200_000;
    loop {
        size += 10_000;
        let body = json!({"metadata": {"name": "big-1"}, "data": {"value": "x".repeat(size)}});
        match api.send(Method::PUT, &format!("{CONFIG_MAPS}/big-1"), body).await {
            (StatusCode::OK, _) => {}
            (StatusCode::INSUFFICIENT_STORAGE, _) => break,
            other => panic!("{other:?}"),
        }
    }
    let full = renewed(&mut api, "").await;
    assert_eq!(session.report(2, 30_000).await, 200, "what a node reports may grow");
    renewed(&mut api, &full).await;
    assert_eq!(session.report(3, 500_000).await, 507, "but not without end; it is told to try again");
    assert_eq!(session.report(4, 200).await, 200, "and what shrinks is always taken");

    // Deletes are accepted, and there is room again without anybody's doing.
    assert_eq!(api.send(Method::DELETE, &format!("{CONFIG_MAPS}/big-1"), json!({})).await.0, StatusCode::OK);
    assert_eq!(api.create("again").await.0, StatusCode::CREATED);
    drop(session);
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_store_refuses_what_is_new_takes_deletions_and_opens_by_itself() {
    let one = first_with(|config| config.bounds.quota = QUOTA).await;
    one.leads().await;
    let mut api = one.api().await;
    one.quota_is_in_force().await;
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
