//! Who hears that the cluster went on without it stops, and stays away.

use rpc::Identity;
use rpc::peer::{Lane, PeerClients};
use rpc::pki::{PeerName, files, inspect};

use super::*;

const LATER: u64 = 99;

impl Running {
    fn dir(&self) -> Dir {
        Dir::of(&self.config.data_dir)
    }

    /// What a master of a later epoch of this cluster has.
    fn of_later_epoch(&self) -> (PeerName, rpc::pki::Credential) {
        let issuers = self.dir().issuers().expect("issuers");
        let name = PeerName { cluster_id: self.config.cluster_id.clone(), epoch: LATER, member: 7 };
        let credential = crate::own::peer(&issuers, &name, &Lifetimes::default(), unix_now()).expect("signed");
        (name, credential)
    }

    /// Its node says hello with this; what the master answers.
    async fn hello(
        &self,
        change: impl FnOnce(&mut pb::Hello),
    ) -> Result<tonic::Streaming<pb::MasterMessage>, tonic::Status> {
        let (dir, bundles) = (self.dir(), self.dir().bundles().expect("bundles"));
        let node = dir.credential(files::NODE).expect("pair");
        let uid = match inspect::identity_of_pem(&node.certificate_pem, &bundles) {
            Ok(Some(Identity::Node { uid, .. })) => uid,
            other => panic!("{other:?}"),
        };
        let certificate = tls::Certificate::new(&node, "node").expect("pair");
        let tls = tls::api_client(&bundles.client, Some(&certificate)).expect("client");
        let masters = rpc::client::Masters::new(vec![self.bound.api.to_string()], tls);
        let channel = reach(&masters).await;
        let mut hello = pb::Hello { node: "node-1".into(), uid, node_json: "{}".into(), ..Default::default() };
        change(&mut hello);
        let hello = pb::NodeMessage { message: Some(pb::node_message::Message::Hello(hello)) };
        let up = futures::StreamExt::chain(futures::stream::iter([hello]), futures::stream::pending());
        pb::node_session_client::NodeSessionClient::new(channel).session(up).await.map(tonic::Response::into_inner)
    }

    /// Its node is registered.
    async fn knows_its_node(&self) {
        let registered = async {
            while self.get("/api/v1/nodes/node-1").await != StatusCode::OK {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LIMIT, registered).await.expect("in time");
    }

    /// It ends by itself, says why, and does not start again.
    async fn ends_for_good(self) {
        let ended = tokio::time::timeout(LIMIT, self.task).await.expect("it ends").expect("no panic");
        for why in [ended, crate::run(self.config.clone(), CancellationToken::new()).await] {
            let why = why.expect_err("overtaken").to_string();
            assert!(why.contains(&format!("went on in epoch {LATER} without this member")), "{why}");
            assert!(why.contains("hactl cluster leave --force"), "the cure: {why}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_proves_a_later_epoch_ends_a_master_of_before() {
    let one = first().await;
    one.leads().await;
    one.knows_its_node().await;
    // Words alone, or another's certificate, end nobody: any node could say them.
    let own = one.dir().credential(files::NODE).expect("pair").certificate_pem;
    for proof in [String::new(), "nonsense".to_owned(), own] {
        let refused = one.hello(|hello| (hello.epoch, hello.epoch_proof) = (LATER, proof.into())).await;
        assert_eq!(refused.expect_err("a later epoch").code(), tonic::Code::FailedPrecondition);
        assert_eq!(one.get("/livez").await, StatusCode::OK);
    }
    let (_, proof) = one.of_later_epoch();
    let _ = one.hello(|hello| hello.epoch_proof = proof.certificate_pem.into()).await;
    one.ends_for_good().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_from_a_later_epoch_ends_a_master_of_before() {
    let one = first().await;
    one.leads().await;
    let (name, credential) = one.of_later_epoch();
    let certificate = tls::Certificate::new(&credential, "peer").expect("pair");
    let tls = tls::peer_client(&certificate, &one.dir().bundles().expect("bundles")).expect("client");
    let peers = PeerClients::new(std::sync::Arc::new(Tcp), tls, name);
    let mut client = peers.client(one.config.member_id, &one.bound.peer.to_string(), Lane::General);
    let refused = client.member_status(pb::MemberStatusRequest::default()).await.expect_err("of another epoch");
    assert_eq!(refused.code(), tonic::Code::PermissionDenied, "{refused}");
    one.ends_for_good().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_from_an_earlier_epoch_hears_of_this_one() {
    const NOW: u64 = 5;
    let one = first_with(|config| config.epoch = NOW).await;
    one.leads().await;
    one.knows_its_node().await;

    // A master of before is refused, told the epoch, and stops by it.
    let issuers = one.dir().issuers().expect("issuers");
    let name = PeerName { cluster_id: one.config.cluster_id.clone(), epoch: NOW - 1, member: 7 };
    let credential = crate::own::peer(&issuers, &name, &Lifetimes::default(), unix_now()).expect("signed");
    let certificate = tls::Certificate::new(&credential, "peer").expect("pair");
    let tls = tls::peer_client(&certificate, &one.dir().bundles().expect("bundles")).expect("client");
    let peers = PeerClients::new(std::sync::Arc::new(Tcp), tls, name);
    let mut client = peers.client(one.config.member_id, &one.bound.peer.to_string(), Lane::General);
    let refused = client.member_status(pb::MemberStatusRequest::default()).await.expect_err("of another epoch");
    assert_eq!(refused.code(), tonic::Code::PermissionDenied, "{refused}");
    peers.refused(&refused);
    assert_eq!(*peers.overtaken().borrow(), NOW);
    // Nor may it change anything.
    let propose = pb::ProposeRequest { commands: Vec::new() };
    assert_eq!(client.propose(propose).await.expect_err("refused").code(), tonic::Code::PermissionDenied);

    // A node of before is let in, and follows.
    let mut down = one.hello(|hello| hello.epoch = NOW - 1).await.expect("let in");
    let welcome = loop {
        if let Some(pb::master_message::Message::Welcome(welcome)) =
            down.message().await.expect("open").expect("open").message
        {
            break welcome;
        }
    };
    assert_eq!(welcome.epoch, NOW);
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_joiner_that_knows_a_later_epoch_is_not_admitted_by_a_master_of_before() {
    let one = first().await;
    one.leads().await;
    let ask = pb::CreateTokenRequest { master: false, node: true, ttl_seconds: 60, description: String::new() };
    let token = one.cluster().await.create_token(ask).await.expect("a token").into_inner().token;
    let data = tempfile::tempdir().expect("tempdir");
    let mut options = Join {
        data_dir: data.path().to_owned(),
        address: one.bound.api.to_string(),
        token,
        master: None,
        node: Some("comes-later".into()),
        version: String::new(),
        nonce: "n".into(),
        replaces: None,
        epoch: LATER,
    };
    let refused = join(&options).await.expect_err("refused").to_string();
    assert!(refused.contains(&format!("went on in epoch {LATER}")), "{refused}");
    assert_eq!(one.get("/api/v1/nodes/comes-later").await, StatusCode::NOT_FOUND);
    assert_eq!(std::fs::read_dir(data.path()).expect("a dir").count(), 0, "nothing is left");
    // Of the master's own epoch, or of an earlier one that was told it is over.
    options.epoch = one.config.epoch;
    assert_eq!(join(&options).await.expect("joins").epoch, one.config.epoch);
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_speaks_what_this_master_does_not_is_told_what_to_do() {
    let one = first().await;
    one.leads().await;
    one.knows_its_node().await;
    let refused = one.hello(|hello| (hello.wire_version, hello.wire_needs) = (9, 9)).await.expect_err("too new");
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
    assert!(refused.message().contains("install the newer hactl here"), "{refused}");
    one.stop().await;
}
