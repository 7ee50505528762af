//! Certificates by issuer, both ports' TLS, tokens and joining, over loopback with port 0.

use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::TlsAcceptor;
use tonic::{Request, Response, Status};

use crate::identity::Identity;
use crate::pb;
use crate::pki::{ApiName, Bundles, Credential, Dir, Issuers, Lifetimes, NodeName, PeerName, inspect, signing_request};
use crate::tls;
use crate::token::Token;
use crate::transport::{Listener, Tcp, Transport, connect_tls};

const CLUSTER: &str = "0b1c";
const LIFE: Duration = Duration::from_secs(3600);
const GRACE: Duration = Duration::from_secs(600);

struct World {
    issuers: Issuers,
    bundles: Bundles,
    now: i64,
}

impl World {
    fn new() -> Self {
        let now = crate::pki::unix_now();
        let issuers = Issuers::create(CLUSTER, &Lifetimes::default(), now).expect("issuers");
        Self { bundles: issuers.bundles(), issuers, now }
    }

    fn made(&self, sign: impl FnOnce(&Issuers, &str) -> Result<String, crate::pki::Error>) -> Credential {
        let (key_pem, csr_pem) = signing_request().expect("request");
        Credential { certificate_pem: sign(&self.issuers, &csr_pem).expect("certificate"), key_pem }
    }

    fn peer(&self, member: u64) -> Credential {
        let name = PeerName { cluster_id: CLUSTER.into(), epoch: 1, member };
        self.made(|issuers, csr| issuers.issue_peer(csr, &name, LIFE, self.now))
    }

    fn node(&self) -> Credential {
        let name = NodeName { cluster_id: CLUSTER.into(), name: "node-1".into(), uid: "u-1".into() };
        self.made(|issuers, csr| issuers.issue_node(csr, &name, LIFE, self.now))
    }

    fn user(&self) -> Credential {
        self.made(|issuers, csr| issuers.issue_user(csr, "admin", Some("system:masters"), LIFE, self.now))
    }

    fn api(&self) -> Credential {
        let name = ApiName { member: 1, hosts: vec!["10.1.2.3".into()], service_ip: "10.96.0.1".parse().ok() };
        self.made(|issuers, csr| issuers.issue_api(csr, &name, LIFE, self.now))
    }
}

fn node_identity() -> Identity {
    Identity::Node { cluster_id: CLUSTER.into(), name: "node-1".into(), uid: "u-1".into() }
}

fn admin_identity() -> Identity {
    Identity::User { name: "admin".into(), groups: vec!["system:masters".into()] }
}

#[test]
fn the_issuer_decides_the_identity() {
    let world = World::new();
    let cases = [
        (world.peer(7), Some(Identity::Peer { cluster_id: CLUSTER.into(), epoch: 1, member: 7 })),
        (world.node(), Some(node_identity())),
        (world.user(), Some(admin_identity())),
    ];
    for (credential, want) in cases {
        assert_eq!(inspect::identity_of_pem(&credential.certificate_pem, &world.bundles).expect("parses"), want);
        let strangers = World::new().bundles;
        assert_eq!(inspect::identity_of_pem(&credential.certificate_pem, &strangers).expect("parses"), None);
    }
}

#[test]
fn a_certificate_is_back_dated_and_renewed_at_two_thirds() {
    let world = World::new();
    let expiry = crate::pki::expiry(&world.node().certificate_pem, "node").expect("parses");
    assert_eq!(expiry.not_before, world.now - 3600);
    assert_eq!(expiry.not_after, world.now + 3600);
    assert_eq!((expiry.issued(), expiry.renew_at()), (world.now, world.now + 2400));
    assert!(!expiry.is_over(world.now) && expiry.is_over(world.now + 3600));
    assert!(!expiry.is_late(world.now + 2700) && expiry.is_late(world.now + 2701));
    for life in [10, 60, 90 * 24 * 3600] {
        let name = NodeName { cluster_id: CLUSTER.into(), name: "node-1".into(), uid: "u-1".into() };
        let life_ = Duration::from_secs(life);
        let made = world.made(|issuers, csr| issuers.issue_node(csr, &name, life_, world.now));
        let expiry = crate::pki::expiry(&made.certificate_pem, "node").expect("parses");
        let third = i64::try_from(life).expect("fits") / 3;
        assert_eq!((expiry.issued(), (expiry.renew_at() - world.now) / third), (world.now, 2), "{life}");
    }
}

#[test]
fn the_directory_gives_back_what_was_put_in() {
    let world = World::new();
    let temporary = tempfile::tempdir().expect("tempdir");
    let dir = Dir::of(temporary.path());
    dir.write_issuers(&world.issuers).expect("writes");
    let peer = world.peer(1);
    dir.write_credential("peer", &peer).expect("writes");
    assert_eq!(dir.bundles().expect("reads"), world.bundles);
    assert_eq!(dir.credential("peer").expect("reads"), peer);
    let again = dir.issuers().expect("opens");
    assert_eq!(again.keys_pem(), world.issuers.keys_pem());
    use std::os::unix::fs::PermissionsExt;
    for entry in std::fs::read_dir(dir.path()).expect("lists") {
        let entry = entry.expect("entry");
        assert_eq!(entry.metadata().expect("stat").permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
    }
    let sealed = std::fs::read(dir.path().join("issuers.sealed")).expect("reads");
    assert!(!sealed.windows(7).any(|window| window == b"PRIVATE"));
    std::fs::write(dir.path().join("seal.key"), "00".repeat(32)).expect("writes");
    let error = dir.issuers().expect_err("another key").to_string();
    assert!(error.contains("issuers.sealed"), "{error}");
}

#[test]
fn tokens_parse_and_show_no_secret() {
    let pin = World::new().bundles.pin().expect("pin");
    let token = Token::generate(&pin).expect("token");
    assert_eq!(Token::parse(&format!(" {token}\n")).expect("parses"), token);
    assert!(!format!("{token:?}").contains(&token.secret));
    for bad in ["", "hactl-", "hactl-a.b", "abcdef.0123456789abcdef", &token.to_string()[1..], &format!("{token}0")] {
        assert!(Token::parse(bad).is_err(), "{bad}");
    }
    let other = Token { id: "00000000".into(), ..token.clone() };
    assert_ne!(other.hashed(), token.hashed());
}

/// One handshake; what the server made of the client, or its refusal as the client learns of it.
async fn handshake(
    server: Arc<rustls::ServerConfig>,
    client: Arc<rustls::ClientConfig>,
    name: &str,
    bundles: &Bundles,
) -> Result<Identity, String> {
    let identifier = tls::Identifier::new(bundles).expect("identifier");
    let listener = Tcp.listen("127.0.0.1:0").await.expect("listens");
    let address = listener.local_address().expect("address").to_string();
    let serve = async {
        let (stream, _) = listener.accept().await.map_err(|e| e.to_string())?;
        let stream = TlsAcceptor::from(server).accept(stream).await.map_err(|e| e.to_string())?;
        identifier
            .identify(stream.get_ref().1.peer_certificates(), crate::pki::unix_now())
            .ok_or_else(|| "names nobody".to_owned())
    };
    let transport: Arc<dyn Transport> = Arc::new(Tcp);
    let dial = connect_tls(&transport, &address, name, client, Duration::from_secs(20));
    let (served, dialled) = tokio::join!(serve, dial);
    dialled.map_err(|e| e.to_string())?;
    served
}

#[tokio::test]
async fn the_peer_port_takes_peers_only() {
    let world = World::new();
    let certificate = |credential: Credential| tls::Certificate::new(&credential, "test").expect("pair");
    let server = tls::peer_server(&certificate(world.peer(1)), &world.bundles).expect("server");
    let name = PeerName::dns(CLUSTER, 1);
    let member = tls::peer_client(&certificate(world.peer(2)), &world.bundles).expect("client");
    let got = handshake(server.clone(), member.clone(), &name, &world.bundles).await;
    assert_eq!(got, Ok(Identity::Peer { cluster_id: CLUSTER.into(), epoch: 1, member: 2 }));
    for (what, credential) in [("node", world.node()), ("user", world.user()), ("stranger", World::new().peer(2))] {
        let client = tls::peer_client(&certificate(credential), &world.bundles).expect("client");
        let got = handshake(server.clone(), client, &name, &world.bundles).await;
        assert!(got.is_err(), "{what}: {got:?}");
    }
    let got = handshake(server, member, &PeerName::dns(CLUSTER, 3), &world.bundles).await;
    assert!(got.is_err(), "another member answered: {got:?}");
}

#[tokio::test]
async fn the_api_port_knows_nodes_users_and_nobody() {
    let world = World::new();
    let certificate = |credential: Credential| tls::Certificate::new(&credential, "test").expect("pair");
    let server = tls::api_server(&certificate(world.api()), &world.bundles, GRACE).expect("server");
    let cases = [
        (None, Some(Identity::Anonymous)),
        (Some(world.node()), Some(node_identity())),
        (Some(world.user()), Some(admin_identity())),
        (Some(world.peer(2)), None),
        (Some(World::new().user()), None),
    ];
    for (credential, want) in cases {
        let own = credential.map(certificate);
        let client = tls::api_client(&world.bundles.client, own.as_ref()).expect("client");
        let got = handshake(server.clone(), client, tls::API_NAME, &world.bundles).await;
        assert_eq!(got.clone().ok(), want, "{got:?}");
    }
    let client = tls::api_client(&world.bundles.client, None).expect("client");
    for name in ["localhost", "10.1.2.3", "10.96.0.1", "kubernetes.default.svc.cluster.local"] {
        let got = handshake(server.clone(), client.clone(), name, &world.bundles).await;
        assert_eq!(got, Ok(Identity::Anonymous), "{name}");
    }
    let got = handshake(server, client, "example.org", &world.bundles).await;
    assert!(got.is_err());
}

/// Shows the issuers it was given; everything else is unimplemented.
struct Shows(Bundles);

#[tonic::async_trait]
impl pb::cluster_server::Cluster for Shows {
    type RotateStream = tokio_stream::Pending<Result<pb::Progress, Status>>;

    async fn rotate(&self, _: Request<pb::RotateRequest>) -> Result<Response<Self::RotateStream>, Status> {
        Err(Status::internal(""))
    }

    async fn renew_certificates(
        &self,
        _: Request<pb::RenewCertificatesRequest>,
    ) -> Result<Response<pb::RenewCertificatesResponse>, Status> {
        Err(Status::internal(""))
    }

    async fn issuers(&self, _: Request<pb::IssuersRequest>) -> Result<Response<pb::IssuersResponse>, Status> {
        let Bundles { peer, node, client } = self.0.clone();
        Ok(Response::new(pb::IssuersResponse {
            peer_issuer_pem: peer,
            node_issuer_pem: node,
            client_issuer_pem: client,
            token_known: false,
        }))
    }
    async fn join(&self, _: Request<pb::JoinRequest>) -> Result<Response<pb::JoinResponse>, Status> {
        Err(Status::internal("the secret must not arrive"))
    }
    async fn leave(&self, _: Request<pb::LeaveRequest>) -> Result<Response<pb::LeaveResponse>, Status> {
        Err(Status::internal(""))
    }
    async fn status(
        &self,
        _: Request<pb::ClusterStatusRequest>,
    ) -> Result<Response<pb::ClusterStatusResponse>, Status> {
        Err(Status::internal(""))
    }
    async fn create_token(
        &self,
        _: Request<pb::CreateTokenRequest>,
    ) -> Result<Response<pb::CreateTokenResponse>, Status> {
        Err(Status::internal(""))
    }
    async fn list_tokens(&self, _: Request<pb::ListTokensRequest>) -> Result<Response<pb::ListTokensResponse>, Status> {
        Err(Status::internal(""))
    }
    async fn revoke_token(
        &self,
        _: Request<pb::RevokeTokenRequest>,
    ) -> Result<Response<pb::RevokeTokenResponse>, Status> {
        Err(Status::internal(""))
    }
    async fn transfer_leader(
        &self,
        _: Request<pb::TransferLeaderRequest>,
    ) -> Result<Response<pb::TransferLeaderResponse>, Status> {
        Err(Status::internal(""))
    }
    type SaveSnapshotStream = tokio_stream::Empty<Result<pb::SnapshotPart, Status>>;
    async fn save_snapshot(
        &self,
        _: Request<pb::SaveSnapshotRequest>,
    ) -> Result<Response<Self::SaveSnapshotStream>, Status> {
        Err(Status::internal(""))
    }
    async fn set_recovery_key(
        &self,
        _: Request<pb::SetRecoveryKeyRequest>,
    ) -> Result<Response<pb::SetRecoveryKeyResponse>, Status> {
        Err(Status::internal(""))
    }
}

/// Serves `shown` behind the API certificate of `world`; the address.
async fn serve_issuers(world: &World, shown: Bundles) -> String {
    let certificate = tls::Certificate::new(&world.api(), "api").expect("pair");
    let acceptor = TlsAcceptor::from(tls::api_server(&certificate, &world.bundles, GRACE).expect("server"));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("listens");
    let address = listener.local_address().expect("address").to_string();
    let incoming = futures::stream::unfold((listener, acceptor), |(listener, acceptor)| async move {
        let (stream, _) = listener.accept().await.ok()?;
        Some((acceptor.accept(stream).await, (listener, acceptor)))
    });
    let service = pb::cluster_server::ClusterServer::new(Shows(shown));
    tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
    address
}

#[tokio::test]
async fn a_joiner_refuses_a_cluster_that_its_token_does_not_pin() {
    let world = World::new();
    let stranger = World::new();
    let token = Token::generate(&world.bundles.pin().expect("pin")).expect("token");

    let address = serve_issuers(&world, world.bundles.clone()).await;
    let (_, bundles) = crate::join::connect(&address, &token).await.expect("the right cluster");
    assert_eq!(bundles, world.bundles);

    let address = serve_issuers(&stranger, stranger.bundles.clone()).await;
    let error = crate::join::connect(&address, &token).await.expect_err("another cluster");
    assert!(matches!(error, crate::join::Error::WrongCluster { .. }), "{error}");

    // One that shows our issuers but cannot prove to hold their certificate.
    let address = serve_issuers(&stranger, world.bundles.clone()).await;
    assert!(crate::join::connect(&address, &token).await.is_err());
}

#[tokio::test]
async fn a_client_moves_on_to_a_master_that_answers() {
    let world = World::new();
    let good = serve_issuers(&world, world.bundles.clone()).await;
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("listens");
    let closed = free.local_addr().expect("address").to_string();
    drop(free);
    let tls = tls::api_client(&world.bundles.client, None).expect("client");
    let masters = crate::client::Masters::new(vec![closed.clone(), good.clone()], tls);
    for _ in 0..2 {
        let (address, _) = masters.connect().await.expect("one answers");
        assert_eq!(address, good);
    }
    masters.set_addresses(vec![closed.clone()]);
    let error = masters.connect().await.expect_err("none answers").to_string();
    assert!(error.contains(&closed), "{error}");
}

#[tokio::test]
async fn a_call_that_found_nobody_says_so() {
    let world = World::new();
    let closed = Tcp.listen("127.0.0.1:0").await.expect("a port").local_address().expect("bound");
    let target = crate::channel::Target {
        transport: Arc::new(Tcp),
        tls: tls::api_client(&world.bundles.client, None).expect("a configuration").into(),
        address: closed.to_string(),
        name: tls::API_NAME.to_owned(),
        connect_limit: Duration::from_secs(5),
        keep_alive: Duration::from_secs(5),
        bulk: false,
        severed: Default::default(),
    };
    let mut client = pb::cluster_client::ClusterClient::new(target.lazy());
    let refused = client.issuers(pb::IssuersRequest::default()).await.expect_err("nobody listens");
    assert!(crate::channel::NeverConnected::is_behind(&refused), "{refused:?}");
    assert!(!crate::channel::NeverConnected::is_behind(&Status::unavailable("broken later")));
}

#[tokio::test]
async fn a_node_whose_certificate_does_not_hold_now_is_let_in_as_such_and_nobody_else() {
    let world = World::new();
    let certificate = |credential: Credential| tls::Certificate::new(&credential, "test").expect("pair");
    let server = tls::api_server(&certificate(world.api()), &world.bundles, GRACE).expect("server");
    let node = NodeName { cluster_id: CLUSTER.into(), name: "node-1".into(), uid: "u-1".into() };
    let minute = Duration::from_secs(60);
    // Each lived a minute; how long ago it ended.
    let ended = |ago: i64| world.now - 60 - ago;
    let node_of = |ago| world.made(|issuers, csr| issuers.issue_node(csr, &node, minute, ended(ago)));
    let late = Identity::LateNode { cluster_id: CLUSTER.into(), name: "node-1".into(), uid: "u-1".into() };
    let user_of =
        |ago| world.made(|issuers, csr| issuers.issue_user(csr, "admin", Some("system:masters"), minute, ended(ago)));
    let strangers = World::new();
    let stranger = strangers.made(|issuers, csr| issuers.issue_node(csr, &node, minute, ended(10)));
    for (what, credential, want) in [
        ("a node of a moment ago", node_of(10), Some(late.clone())),
        ("a node of long ago", node_of(700), None),
        ("a node of a master whose clock was ahead", node_of(-7200), Some(late)),
        ("a user", user_of(10), None),
        ("a user of later", user_of(-7200), None),
        ("a node of another cluster", stranger, None),
    ] {
        let own = certificate(credential);
        let client = tls::api_client(&world.bundles.client, Some(&own)).expect("client");
        let got = handshake(server.clone(), client, tls::API_NAME, &world.bundles).await;
        assert_eq!(got.clone().ok(), want, "{what}: {got:?}");
    }
}

#[test]
fn issuers_overlap_while_they_rotate() {
    use crate::pki::files::Other;
    let world = World::new();
    let lifetimes = Lifetimes::default();
    let old = world.issuers.keys_pem();
    let new = Issuers::create(CLUSTER, &lifetimes, world.now).expect("issuers");
    let both = world.bundles.and(&new.bundles()).expect("merged");
    assert_eq!(both, both.and(&world.bundles).expect("merged"), "each once");
    let turned = new.bundles().and(&world.bundles).expect("merged");
    assert_eq!(both.pin().expect("pin"), turned.pin().expect("pin"), "whichever comes first");
    assert_ne!(both.pin().expect("pin"), world.bundles.pin().expect("pin"));

    let temporary = tempfile::tempdir().expect("tempdir");
    let dir = Dir::of(temporary.path());
    dir.write_issuers(&world.issuers).expect("writes");
    // Trusted, signing, alone.
    let trusted = Issuers::from_parts(&both, &old).expect("fits");
    assert!(trusted.are_rotating() && trusted.own() == world.bundles);
    dir.write_other_keys(Other::Next, Some(&new.keys_pem())).expect("writes");
    dir.write_issuers(&trusted).expect("writes");
    assert_eq!(dir.other_keys(Other::Next).expect("reads"), Some(new.keys_pem()));
    assert_eq!(dir.issuers().expect("opens").keys_pem(), old);
    let signing = Issuers::from_parts(&both, &new.keys_pem()).expect("fits");
    let key = signing_request().expect("request");
    let name = NodeName { cluster_id: CLUSTER.into(), name: "node-1".into(), uid: "u-1".into() };
    let made = signing.issue_node(&key.1, &name, LIFE, world.now).expect("signs");
    let of_new = inspect::about(&made, &new.bundles().node, "node").expect("parses");
    assert!(
        !of_new.issuer.is_empty() && of_new.issuer == inspect::about(&made, &both.node, "node").expect("parses").issuer
    );
    assert_eq!(inspect::about(&made, &world.bundles.node, "node").expect("parses").issuer, "");
    dir.write_issuers(&signing).expect("writes");
    dir.write_other_keys(Other::Next, None).expect("removes");
    dir.write_other_keys(Other::Next, None).expect("is gone already");
    assert_eq!(dir.issuers().expect("opens").own(), new.bundles());
    // A crash after the keys were written, and before the bundles: both certificates are there, whichever the key is of.
    dir.write_issuers(&new).expect("writes");
    assert!(!dir.issuers().expect("opens").are_rotating());
    assert_eq!(dir.bundles().expect("reads"), new.bundles());
}

#[test]
fn a_kubeconfig_of_ours_is_renewed_and_no_other() {
    use crate::pki::kubeconfig::{self, Server};
    let world = World::new();
    let servers = [Server { context: "a".into(), url: "https://h:1".into(), tls_name: Some("kubernetes".into()) }];
    let before = world.user();
    let text = kubeconfig::render("admin", &servers, &before, &world.bundles);
    assert_eq!(kubeconfig::certificate(&text).expect("ours"), before.certificate_pem);
    let after = world.user();
    let other = World::new().bundles;
    let renewed = kubeconfig::renewed(&text, &after, &other.client).expect("ours");
    assert_eq!(renewed, kubeconfig::render("admin", &servers, &after, &other));
    for foreign in ["", "apiVersion: v1", "{\"users\":[]}", &text.replace("client-key-data", "token")] {
        assert!(kubeconfig::renewed(foreign, &after, &other.client).is_err(), "{foreign}");
    }
}
