//! A whole node on the hollow runtime, against masters that are only a desk: they hand out assignments and take writes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rpc::pb::master_message::Message as Down;
use rpc::pb::node_message::Message as Up;
use rpc::pb::node_session_server::{NodeSession, NodeSessionServer};
use rpc::pb::{self, write::Write as W};
use rpc::pki::{ApiName, Credential, Dir, Issuers, Lifetimes, NodeName, files, signing_request, unix_now};
use rpc::tls;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::UnderWay;
use crate::outbox::Outbox;
use crate::runtime::Runtime;
use crate::runtime::hollow::Hollow;
use crate::{Capacity, Config};

const LIFE: Duration = Duration::from_secs(3600);

type Downs = mpsc::Sender<Result<pb::MasterMessage, Status>>;

/// What the test sees of the nodes that come.
enum Seen {
    Session(Downs),
    Up(Up),
    Stream(String, Vec<pb::StreamFrame>),
}

struct Desk(mpsc::Sender<Seen>);

#[tonic::async_trait]
impl NodeSession for Desk {
    type SessionStream = ReceiverStream<Result<pb::MasterMessage, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<pb::NodeMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (down, stream) = mpsc::channel(16);
        let seen = self.0.clone();
        let mut up = request.into_inner();
        tokio::spawn(async move {
            let _ = seen.send(Seen::Session(down)).await;
            while let Ok(Some(message)) = up.message().await {
                if let Some(message) = message.message
                    && seen.send(Seen::Up(message)).await.is_err()
                {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    type StreamStream = ReceiverStream<Result<pb::StreamFrame, Status>>;

    async fn stream(
        &self,
        request: Request<Streaming<pb::StreamFrame>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let id = request.metadata().get("hactl-stream").and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned();
        let mut incoming = request.into_inner();
        let mut frames = Vec::new();
        while let Some(frame) = incoming.message().await? {
            let last = frame.eof;
            frames.push(frame);
            if last {
                break;
            }
        }
        let _ = self.0.send(Seen::Stream(id, frames)).await;
        Ok(Response::new(ReceiverStream::new(mpsc::channel(1).1)))
    }

    async fn renew_certificate(&self, _: Request<pb::RenewRequest>) -> Result<Response<pb::RenewResponse>, Status> {
        Err(Status::unimplemented("not at this desk"))
    }
}

/// A master: its address, what it sees, and what ends it with all its connections.
struct Master {
    address: String,
    seen: mpsc::Receiver<Seen>,
    task: tokio::task::JoinHandle<()>,
}

fn signed(sign: impl FnOnce(&str) -> Result<String, rpc::pki::Error>) -> Credential {
    let (key_pem, csr_pem) = signing_request().expect("a request");
    Credential { certificate_pem: sign(&csr_pem).expect("a certificate"), key_pem }
}

async fn master(issuers: &Issuers) -> Master {
    let name = ApiName { member: 1, hosts: vec!["127.0.0.1".into()], service_ip: None };
    let credential = signed(|csr| issuers.issue_api(csr, &name, LIFE, unix_now()));
    let certificate = tls::Certificate::new(&credential, "api").expect("a pair");
    let acceptor = TlsAcceptor::from(tls::api_server(&certificate, &issuers.bundles(), LIFE).expect("a server"));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let incoming = futures::stream::unfold((listener, acceptor), |(listener, acceptor)| async move {
        let (stream, _) = listener.accept().await.ok()?;
        Some((acceptor.accept(stream).await, (listener, acceptor)))
    });
    let (sender, seen) = mpsc::channel(64);
    let server = tonic::transport::Server::builder().add_service(NodeSessionServer::new(Desk(sender)));
    let task = tokio::spawn(async move { drop(server.serve_with_incoming(incoming).await) });
    Master { address, seen, task }
}

impl Master {
    async fn until<T>(&mut self, what: &str, mut fits: impl FnMut(Seen) -> Option<T>) -> T {
        let search = async {
            loop {
                let seen = self.seen.recv().await.expect("the desk is open");
                if let Some(found) = fits(seen) {
                    return found;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(30), search).await.unwrap_or_else(|_| panic!("never saw {what}"))
    }

    /// Takes the next session's Hello and welcomes the node, as a master that knows less.
    async fn welcome(&mut self) -> (Downs, pb::Hello) {
        self.welcome_as(0).await
    }

    async fn welcome_as(&mut self, wire_version: u32) -> (Downs, pb::Hello) {
        let down = self
            .until("a session", |seen| match seen {
                Seen::Session(down) => Some(down),
                _ => None,
            })
            .await;
        let hello = self
            .until("a Hello", |seen| match seen {
                Seen::Up(Up::Hello(hello)) => Some(hello),
                _ => None,
            })
            .await;
        let welcome = pb::Welcome { epoch: 1, cluster_id: "c".into(), wire_version, ..Default::default() };
        send(&down, Down::Welcome(welcome)).await;
        (down, hello)
    }

    /// The first write that fits, unanswered; all before it are acknowledged.
    async fn write(&mut self, down: &Downs, what: &str, fits: impl Fn(&W) -> bool) -> u64 {
        loop {
            let (id, write) = self
                .until(what, |seen| match seen {
                    Seen::Up(Up::Write(pb::Write { id, write: Some(write) })) => Some((id, write)),
                    _ => None,
                })
                .await;
            if fits(&write) {
                return id;
            }
            send(down, Down::WriteResult(pb::WriteResult { id, code: 200, message: String::new() })).await;
        }
    }
}

async fn send(down: &Downs, message: Down) {
    down.send(Ok(pb::MasterMessage { message: Some(message) })).await.expect("the node listens");
}

fn assignment(revision: u64) -> pb::Assignment {
    let pod = json!({ "metadata": { "name": "web", "namespace": "default", "uid": "u1" },
        "spec": { "containers": [{ "name": "web", "image": "hactl.local/sample:1" }] } });
    let name =
        pb::ObjectName { resource: "pods".into(), namespace: "default".into(), name: "web".into(), uid: "u1".into() };
    let object = pb::AssignedObject { name: Some(name), revision: 5, json: pod.to_string().into() };
    pb::Assignment {
        epoch: 1,
        revision,
        full: true,
        objects: vec![object],
        pod_cidr: "198.18.255.0/28".into(),
        ..Default::default()
    }
}

fn config(dir: &Path, issuers: &Issuers, masters: Vec<String>) -> Config {
    let name = NodeName { cluster_id: "c".into(), name: "node-1".into(), uid: "n".into() };
    let credential = signed(|csr| issuers.issue_node(csr, &name, LIFE, unix_now()));
    let pki = Dir::of(dir);
    pki.write_bundles(&issuers.bundles()).expect("written");
    pki.write_credential(files::NODE, &credential).expect("written");
    Config {
        data_dir: dir.to_owned(),
        cluster_id: "c".into(),
        epoch: 1,
        node_name: "node-1".into(),
        node_uid: "n".into(),
        docker_host: String::new(),
        masters,
        node_ip: None,
        capacity: Capacity::default(),
        labels: BTreeMap::new(),
    }
}

fn ready(write: &W) -> bool {
    let W::PodStatus(status) = write else { return false };
    let status: serde_json::Value = serde_json::from_slice(&status.status_json).expect("a status");
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

/// What is taken next, by its subject and text.
fn next(outbox: &Outbox, under_way: &mut UnderWay) -> Option<(u64, bytes::Bytes)> {
    let sent = under_way.begin(outbox.take(&under_way.busy)?);
    match sent.write {
        Some(W::NodeStatus(text)) => Some((sent.id, text)),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_write_that_is_made_again_never_comes_after_a_newer_one() {
    let (outbox, mut under_way) = (Outbox::default(), UnderWay::default());
    let answer = |id, code| pb::WriteResult { id, code, message: String::new() };
    outbox.node("old".into());
    let (id, _) = next(&outbox, &mut under_way).expect("the old one");
    under_way.end(&outbox, &answer(id, 503));
    outbox.node("new".into());
    assert_eq!(next(&outbox, &mut under_way), None, "it rests, the newer one too");
    under_way.rested().await;
    let (id, text) = next(&outbox, &mut under_way).expect("the new one");
    assert_eq!(text, "new");
    under_way.end(&outbox, &answer(id, 200));
    assert!(under_way.resting.is_empty() && under_way.busy.is_empty());
    assert_eq!(next(&outbox, &mut under_way), None, "the old one is gone");

    // Nothing newer: the same again, at the latest on the next session.
    outbox.node("last".into());
    let (id, _) = next(&outbox, &mut under_way).expect("the last one");
    under_way.end(&outbox, &answer(id, 429));
    under_way.put_back(&outbox);
    assert_eq!(next(&outbox, &mut under_way).map(|(_, text)| text), Some("last".into()));
}

#[tokio::test]
async fn a_node_registers_runs_reports_and_moves_on() {
    let issuers = Issuers::create("c", &Lifetimes::default(), unix_now()).expect("issuers");
    let (mut first, mut second) = (master(&issuers).await, master(&issuers).await);
    let dir = tempfile::tempdir().expect("a directory");
    let config = config(dir.path(), &issuers, vec![first.address.clone()]);
    let runtime = Arc::new(Hollow::new("c", "n"));
    let stop = CancellationToken::new();
    let node = tokio::spawn(crate::run::run_on(config, runtime.clone(), stop.clone()));

    let (down, hello) = first.welcome().await;
    assert_eq!((hello.node.as_str(), hello.uid.as_str(), hello.revision), ("node-1", "n", 0));
    let object: serde_json::Value = serde_json::from_slice(&hello.node_json).expect("a node");
    assert_eq!(object["status"]["allocatable"]["pods"], "110");
    let both = vec![first.address.clone(), second.address.clone()];
    send(&down, Down::Masters(pb::Masters { api_addresses: both })).await;
    send(&down, Down::Assignment(assignment(7))).await;
    // Not answered: the write must be made again.
    first.write(&down, "a ready pod", ready).await;

    let open = pb::StreamOpen { uid: "u1".into(), container: "web".into(), ..Default::default() };
    send(&down, Down::Stream(pb::StreamRequest { id: "s9".into(), open: Some(open) })).await;
    let (id, frames) = first
        .until("the log", |seen| match seen {
            Seen::Stream(id, frames) => Some((id, frames)),
            _ => None,
        })
        .await;
    assert_eq!(id, "s9");
    assert!(frames.last().is_some_and(|frame| frame.eof && frame.error.is_none()), "{frames:?}");

    let before: Vec<_> = runtime.list(None).await.expect("a list").into_iter().map(|c| c.id).collect();
    first.task.abort();
    drop((first, down));
    let (down, hello) = second.welcome().await;
    assert_eq!(hello.revision, 7);
    let id = second.write(&down, "the status again", ready).await;
    let busy = pb::WriteResult { id, code: 503, message: "no leader".into() };
    send(&down, Down::WriteResult(busy)).await;
    let id = second.write(&down, "the status a third time", ready).await;
    send(&down, Down::WriteResult(pb::WriteResult { id, code: 200, message: String::new() })).await;
    send(&down, Down::Assignment(assignment(7))).await;
    let after: Vec<_> = runtime.list(None).await.expect("a list").into_iter().map(|c| c.id).collect();
    assert_eq!(before, after);

    stop.cancel();
    node.await.expect("ends").expect("ends well");
    let saved = crate::saved::Store::open(dir.path()).expect("a store").load();
    assert_eq!((saved.revision, saved.objects.len(), saved.masters.len()), (7, 1, 2));
    assert_eq!(runtime.list(None).await.expect("a list").len(), 2, "containers run on");
    second.task.abort();
}

#[tokio::test]
async fn a_node_tells_what_it_uses_to_masters_that_take_it() {
    let issuers = Issuers::create("c", &Lifetimes::default(), unix_now()).expect("issuers");
    let (mut old, mut new) = (master(&issuers).await, master(&issuers).await);
    let dir = tempfile::tempdir().expect("a directory");
    let config = config(dir.path(), &issuers, vec![old.address.clone()]);
    let stop = CancellationToken::new();
    let node = tokio::spawn(crate::run::run_on(config, Arc::new(Hollow::new("c", "n")), stop.clone()));
    let (down, _) = old.welcome().await;
    send(&down, Down::Masters(pb::Masters { api_addresses: vec![new.address.clone()] })).await;
    send(&down, Down::Assignment(assignment(7))).await;
    old.write(&down, "a ready pod", ready).await;
    // Measured by then, but not told to this one.
    for _ in 0..6 {
        // Whoever says nothing is left.
        send(&down, Down::Masters(pb::Masters { api_addresses: vec![new.address.clone()] })).await;
        old.until("a heartbeat", |seen| match seen {
            Seen::Up(Up::Usage(usage)) => panic!("{usage:?}"),
            Seen::Up(Up::Heartbeat(_)) => Some(()),
            _ => None,
        })
        .await;
    }
    old.task.abort();
    drop((old, down));
    let (down, _) = new.welcome_as(rpc::version::WIRE).await;
    let usage = new
        .until("what it uses", |seen| match seen {
            Seen::Up(Up::Usage(usage)) if !usage.pods.is_empty() => Some(usage),
            _ => None,
        })
        .await;
    assert!(usage.window_ms > 0 && usage.node.is_some_and(|node| node.memory_bytes > 0), "{usage:?}");
    let pods: Vec<_> = usage.pods.iter().map(|pod| (pod.namespace.as_str(), pod.name.as_str())).collect();
    assert_eq!(pods, [("default", "web")]);
    drop(down);
    stop.cancel();
    node.await.expect("ends").expect("ends well");
    new.task.abort();
}
