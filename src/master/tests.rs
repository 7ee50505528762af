//! One real master: made by `create`, run on free ports, asked over TLS.

use std::time::Duration;

use http::{Request, StatusCode};
use rpc::pb;
use rpc::pki::{Dir, Lifetimes, kubeconfig, unix_now};
use rpc::tls;
use rpc::transport::{Tcp, Transport, connect_tls};
use tokio_util::sync::CancellationToken;

use crate::run::{Bound, run_with};
use crate::{Config, Create, Join, JoinMaster, create, join};

mod bounds;
mod epochs;
mod ports;
mod quota;
mod secrets;
mod store;
mod usage;

const LIMIT: Duration = Duration::from_secs(60);

struct Running {
    _data: tempfile::TempDir,
    config: Config,
    bound: Bound,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), crate::Error>>,
}

async fn start(config: Config, data: tempfile::TempDir) -> Running {
    let shutdown = CancellationToken::new();
    let (send, receive) = tokio::sync::oneshot::channel();
    let task = tokio::spawn(run_with(config.clone(), shutdown.clone(), move |bound| {
        let _ = send.send(bound);
    }));
    match receive.await {
        Ok(bound) => Running { _data: data, config, bound, shutdown, task },
        Err(_) => panic!("the master did not start: {:?}", task.await),
    }
}

async fn first() -> Running {
    first_with(|_| {}).await
}

async fn first_with(change: impl FnOnce(&mut Config)) -> Running {
    let data = tempfile::tempdir().expect("tempdir");
    let created = create(&Create {
        data_dir: data.path().to_owned(),
        kubeconfig: data.path().join("admin.kubeconfig"),
        advertise_api: "127.0.0.1:0".into(),
        api_names: Vec::new(),
        node: Some("node-1".into()),
        settings: control::Settings::default(),
        lifetimes: Lifetimes::default(),
    })
    .expect("creates");
    let mut config = local(Config::new(data.path(), created.cluster_id, created.member_id));
    change(&mut config);
    start(config, data).await
}

fn local(config: Config) -> Config {
    Config {
        listen_api: "127.0.0.1:0".into(),
        listen_peer: "127.0.0.1:0".into(),
        advertise_api: "127.0.0.1:0".into(),
        advertise_peer: "127.0.0.1:0".into(),
        ..config
    }
}

/// Connects, also where a machine under load takes longer for a handshake than a master in need may.
async fn reach(masters: &rpc::client::Masters) -> tonic::transport::Channel {
    let connected = async {
        loop {
            if let Ok((_, channel)) = masters.connect().await {
                return channel;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, connected).await.expect("connects in time")
}

impl Running {
    fn admin(&self) -> std::sync::Arc<rustls::ClientConfig> {
        let issuers = Dir::of(&self.config.data_dir).issuers().expect("issuers");
        let admin = kubeconfig::admin_credential(&issuers, &Lifetimes::default(), unix_now()).expect("admin");
        let certificate = tls::Certificate::new(&admin, "admin").expect("pair");
        tls::api_client(&issuers.bundles().client, Some(&certificate)).expect("client")
    }

    async fn cluster(&self) -> pb::cluster_client::ClusterClient<tonic::transport::Channel> {
        let masters = rpc::client::Masters::new(vec![self.bound.api.to_string()], self.admin());
        pb::cluster_client::ClusterClient::new(reach(&masters).await)
    }

    async fn get(&self, path: &str) -> StatusCode {
        let transport: std::sync::Arc<dyn Transport> = std::sync::Arc::new(Tcp);
        let stream = connect_tls(&transport, &self.bound.api.to_string(), tls::API_NAME, self.admin(), LIMIT).await;
        let io = hyper_util::rt::TokioIo::new(stream.expect("connects"));
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(hyper_util::rt::TokioExecutor::new(), io).await.expect("handshake");
        tokio::spawn(connection);
        let request = Request::get(format!("https://kubernetes{path}")).body(axum::body::Body::empty());
        sender.send_request(request.expect("request")).await.expect("answers").status()
    }

    async fn leads(&self) -> pb::ClusterStatusResponse {
        let mut client = self.cluster().await;
        let status = async {
            loop {
                let status = client.status(pb::ClusterStatusRequest {}).await.expect("answers").into_inner();
                if status.leader != 0 {
                    return status;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LIMIT, status).await.expect("a leader in time")
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.expect("no panic").expect("a clean end");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_starts_answers_and_admits_another() {
    let one = first().await;
    assert_eq!(one.get("/livez").await, StatusCode::OK);
    let status = one.leads().await;
    assert_eq!((status.leader, status.members.len()), (1, 1), "{status:?}");

    let mut client = one.cluster().await;
    let ask = pb::CreateTokenRequest { master: true, node: false, ttl_seconds: 60, description: String::new() };
    let token = tokio::time::timeout(LIMIT, async {
        loop {
            match client.create_token(ask.clone()).await {
                Ok(token) => return token.into_inner().token,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    })
    .await
    .expect("a token in time");

    let data = tempfile::tempdir().expect("tempdir");
    let mut options = Join {
        data_dir: data.path().to_owned(),
        address: one.bound.api.to_string(),
        token: token.clone(),
        master: Some(JoinMaster {
            name: "two".into(),
            advertise_api: "127.0.0.1:1".into(),
            advertise_peer: "127.0.0.1:2".into(),
            kubeconfig: data.path().join("admin.kubeconfig"),
        }),
        node: Some("node-2".into()),
        version: String::new(),
        nonce: "of two".into(),
        replaces: None,
        epoch: 0,
    };
    let refused = join(&options).await.expect_err("a master's token makes no node").to_string();
    assert!(refused.contains("master only"), "{refused}");
    assert!(!data.path().join("pki").exists(), "nothing half made");
    options.node = None;
    let mut wrong = options.clone();
    wrong.token = token.replacen("hactl-", "hactl-0", 1);
    wrong.token.remove("hactl-0".len() + 7);
    assert!(join(&wrong).await.is_err());

    // As if the first answer had been lost: the same machine is given the same id, another one is not.
    let first_answer = join(&options).await.expect("joins");
    let joined = join(&options).await.expect("joins again");
    assert_eq!((joined.member_id, first_answer.member_id), (Some(2), Some(2)));
    assert_eq!(joined.settings["service-cidr"], control::Settings::default().service_cidr.to_string());
    let two = start(local(Config::new(data.path(), joined.cluster_id, 2)), data).await;
    let voters = async {
        loop {
            let status = one.leads().await;
            if status.members.iter().filter(|member| member.voter).count() == 2 {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, voters).await.expect("the second becomes a voter in time");
    assert_eq!(two.get("/livez").await, StatusCode::OK);

    // Leadership goes where it is asked to, whoever is asked.
    let transfer = pb::TransferLeaderRequest { to: 2 };
    two.cluster().await.transfer_leader(transfer).await.expect("hands over");
    assert_eq!(two.leads().await.leader, 2);
    let refused =
        one.cluster().await.transfer_leader(pb::TransferLeaderRequest { to: 9 }).await.expect_err("no member");
    assert!(refused.message().contains("no voter"), "{refused}");

    // It leaves by asking itself, whoever leads.
    let leave = pb::LeaveRequest { member_id: 2, node: String::new() };
    two.cluster().await.leave(leave).await.expect("leaves");
    let alone = async {
        while one.leads().await.members.len() != 1 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, alone).await.expect("one is left in time");
    two.stop().await;
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_has_a_session_until_its_node_is_deleted() {
    use pb::master_message::Message as Down;
    let one = first().await;
    one.leads().await;
    let dir = Dir::of(&one.config.data_dir);
    let certificate = tls::Certificate::new(&dir.credential("node").expect("pair"), "node").expect("pair");
    let tls = tls::api_client(&dir.bundles().expect("bundles").client, Some(&certificate)).expect("client");
    let masters = rpc::client::Masters::new(vec![one.bound.api.to_string()], tls);
    let channel = reach(&masters).await;
    let mut client = pb::node_session_client::NodeSessionClient::new(channel.clone());
    let pem = dir.credential("node").expect("pair").certificate_pem;
    let uid = match rpc::pki::inspect::identity_of_pem(&pem, &dir.bundles().expect("bundles")) {
        Ok(Some(rpc::Identity::Node { uid, .. })) => uid,
        other => panic!("{other:?}"),
    };
    let hello = |uid: &str| {
        let hello = pb::Hello { node: "node-1".into(), uid: uid.into(), node_json: "{}".into(), ..Default::default() };
        let hello = pb::NodeMessage { message: Some(pb::node_message::Message::Hello(hello)) };
        futures::StreamExt::chain(futures::stream::iter([hello]), futures::stream::pending())
    };
    let refused = client.session(hello("another")).await.expect_err("another's uid");
    assert_eq!(refused.code(), tonic::Code::PermissionDenied, "{refused}");

    // The Node appears as soon as the first master has begun.
    let mut down = tokio::time::timeout(LIMIT, async {
        loop {
            match client.session(hello(&uid)).await {
                Ok(down) => return down.into_inner(),
                Err(_) => tokio::task::yield_now().await,
            }
        }
    })
    .await
    .expect("a session in time");
    let trusted = dir.bundles().expect("bundles").client;
    let mut seen = Vec::new();
    while seen.len() < 4 {
        let message = down.message().await.expect("open").expect("open").message;
        seen.push(match message {
            Some(Down::Welcome(welcome)) => format!("welcome to {}", welcome.epoch),
            Some(Down::Masters(_)) => "masters".to_owned(),
            Some(Down::Trust(trust)) => format!("trust the same: {}", trust.client_issuer_pem == trusted),
            Some(Down::Assignment(assignment)) => format!("full: {}", assignment.full),
            other => panic!("{other:?}"),
        });
    }
    assert_eq!(seen, ["welcome to 1", "masters", "trust the same: true", "full: true"]);

    // A node is no administrator, but takes its own leave.
    let mut cluster = pb::cluster_client::ClusterClient::new(channel);
    let denied = cluster.status(pb::ClusterStatusRequest {}).await.expect_err("not an administrator");
    assert_eq!(denied.code(), tonic::Code::PermissionDenied);
    let leave = |node: &str| pb::LeaveRequest { member_id: 0, node: node.into() };
    assert_eq!(cluster.leave(leave("node-2")).await.expect_err("another's").code(), tonic::Code::PermissionDenied);
    cluster.leave(leave("node-1")).await.expect("leaves");
    let ended = async { while let Ok(Some(_)) = down.message().await {} };
    tokio::time::timeout(LIMIT, ended).await.expect("the session ends in time");
    assert!(client.session(hello(&uid)).await.is_err(), "deleting the Node revoked its certificate");
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_cannot_work_says_why() {
    let one = first().await;
    let taken = Config { listen_api: one.bound.api.to_string(), ..one.config.clone() };
    let error = crate::run(taken, CancellationToken::new()).await.expect_err("the port is taken").to_string();
    assert!(error.contains("--listen-api") && error.contains(&one.bound.api.to_string()), "{error}");
    let another = local(Config::new(&one.config.data_dir, "another-cluster", 1));
    let error = crate::run(another, CancellationToken::new()).await.expect_err("another's data dir").to_string();
    assert!(error.contains("another-cluster") && error.contains("--data-dir"), "{error}");
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_asks_again_is_the_same_and_another_machine_is_not() {
    let one = first().await;
    one.leads().await;
    let mut client = one.cluster().await;
    let ask = pb::CreateTokenRequest { master: false, node: true, ttl_seconds: 60, description: String::new() };
    let token = tokio::time::timeout(LIMIT, async {
        loop {
            match client.create_token(ask.clone()).await {
                Ok(token) => return token.into_inner().token,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    })
    .await
    .expect("a token in time");
    let data = tempfile::tempdir().expect("tempdir");
    let options = |nonce: &str| Join {
        data_dir: data.path().to_owned(),
        address: one.bound.api.to_string(),
        token: token.clone(),
        master: None,
        node: Some("worker".into()),
        version: String::new(),
        nonce: nonce.into(),
        replaces: None,
        epoch: 0,
    };
    let before = join(&options("a")).await.expect("joins");
    let again = join(&options("a")).await.expect("joins again");
    assert!(before.node_uid.is_some());
    assert_eq!(before.node_uid, again.node_uid);
    let other = join(&options("b")).await.expect_err("another machine of that name").to_string();
    assert!(other.contains("worker exists already") && other.contains("--node-name"), "{other}");
    one.stop().await;
}
