//! What other masters ask of this one. Raft's own messages go to consensus as they are.

use std::sync::Arc;
use std::time::Duration;

use consensus::transport::Change;
use control::authz::{Attributes, Authorizer, User};
use futures::StreamExt;
use futures::stream::BoxStream;
use rpc::Identity;
use rpc::pb::membership_request::Change as Asked;
use rpc::pb::{self, peer_server::Peer};
use rpc::peer;
use state::{Key, State};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{Shared, caller, status};
use crate::rotate::{self, Steps};
use crate::{agreement, issuers, peers, records};

pub struct PeerService(pub Arc<Shared>);

impl PeerService {
    /// The calling member, after every check.
    fn member<T>(&self, request: &Request<T>) -> Result<u64, Status> {
        let config = &self.0.config;
        let caller = caller(request);
        let member = peer::check(request.metadata(), &caller, &config.cluster_id, config.epoch).inspect_err(|_| {
            // Its certificate is our issuer's: a master of a later epoch.
            if let Identity::Peer { cluster_id, epoch, .. } = &caller
                && *cluster_id == config.cluster_id
            {
                self.0.peers.heard_of_epoch(*epoch);
            }
        })?;
        self.0.still_member(member)?;
        self.0.peers.note_heard(member);
        Ok(member)
    }
}

impl Shared {
    fn still_member(&self, member: u64) -> Result<(), Status> {
        if records::is_removed(&self.replica.root(), member) {
            return Err(peer::removed(member));
        }
        Ok(())
    }
}

fn body(bytes: bytes::Bytes) -> Response<pb::RaftMessage> {
    Response::new(pb::RaftMessage { body: bytes })
}

#[tonic::async_trait]
impl Peer for PeerService {
    async fn vote(&self, request: Request<pb::RaftMessage>) -> Result<Response<pb::RaftMessage>, Status> {
        self.member(&request)?;
        Ok(body(self.0.consensus.peers().vote(request.into_inner().body).await?))
    }

    type HeartbeatsStream = BoxStream<'static, Result<pb::RaftMessage, Status>>;

    async fn heartbeats(
        &self,
        request: Request<Streaming<pb::RaftMessage>>,
    ) -> Result<Response<Self::HeartbeatsStream>, Status> {
        let member = self.member(&request)?;
        let shared = self.0.clone();
        let answers = request.into_inner().then(move |message| {
            let shared = shared.clone();
            async move {
                shared.still_member(member)?;
                shared.peers.note_heard(member);
                let body = shared.consensus.peers().heartbeat(message?.body).await?;
                Ok(pb::RaftMessage { body })
            }
        });
        Ok(Response::new(answers.boxed()))
    }

    type AppendStream = BoxStream<'static, Result<pb::RaftMessage, Status>>;

    async fn append(
        &self,
        request: Request<Streaming<pb::RaftMessage>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        self.member(&request)?;
        let requests = request.into_inner().map(|message| message.map(|message| message.body));
        let answers = self.0.consensus.peers().append(requests);
        Ok(Response::new(answers.map(|answer| answer.map(|body| pb::RaftMessage { body })).boxed()))
    }

    async fn snapshot(
        &self,
        request: Request<Streaming<pb::SnapshotChunk>>,
    ) -> Result<Response<pb::RaftMessage>, Status> {
        self.member(&request)?;
        let chunks = request.into_inner().map(|chunk| chunk.map(peers::chunk));
        Ok(body(self.0.consensus.peers().snapshot(chunks.boxed()).await?))
    }

    type FetchSnapshotStream = BoxStream<'static, Result<pb::SnapshotChunk, Status>>;

    async fn fetch_snapshot(
        &self,
        request: Request<pb::RaftMessage>,
    ) -> Result<Response<Self::FetchSnapshotStream>, Status> {
        self.member(&request)?;
        let chunks = self.0.consensus.peers().fetch_snapshot(request.into_inner().body).await?;
        Ok(Response::new(chunks.map(|chunk| chunk.map(peers::snapshot_chunk)).boxed()))
    }

    async fn transfer_leader(&self, request: Request<pb::RaftMessage>) -> Result<Response<pb::RaftMessage>, Status> {
        self.member(&request)?;
        Ok(body(self.0.consensus.peers().transfer_leader(request.into_inner().body).await?))
    }

    async fn propose(&self, request: Request<pb::ProposeRequest>) -> Result<Response<pb::ProposeResponse>, Status> {
        self.member(&request)?;
        let proposed = self.0.consensus.peers().propose(request.into_inner().commands).await?;
        Ok(Response::new(pb::ProposeResponse { outcomes: proposed.outcomes, index: proposed.index }))
    }

    async fn read_index(
        &self,
        request: Request<pb::ReadIndexRequest>,
    ) -> Result<Response<pb::ReadIndexResponse>, Status> {
        self.member(&request)?;
        let index = self.0.consensus.peers().read_index().await?;
        Ok(Response::new(pb::ReadIndexResponse { index }))
    }

    async fn nodes_alive(
        &self,
        request: Request<pb::NodesAliveRequest>,
    ) -> Result<Response<pb::NodesAliveResponse>, Status> {
        self.member(&request)?;
        for node in request.into_inner().nodes {
            self.0.heard.heard(&node.name, Duration::from_millis(node.silent_ms));
        }
        // Who told must know that no leader heard it: its nodes are better off elsewhere.
        let leadership = self.0.replica.leadership().borrow().clone();
        if leadership.leading.is_none() {
            return Err(Status::failed_precondition("this master does not lead"));
        }
        Ok(Response::new(pb::NodesAliveResponse { term: leadership.term }))
    }

    type RelayStream = ReceiverStream<Result<pb::StreamFrame, Status>>;

    async fn relay(&self, request: Request<Streaming<pb::StreamFrame>>) -> Result<Response<Self::RelayStream>, Status> {
        self.member(&request)?;
        let mut frames = request.into_inner();
        let open = frames
            .message()
            .await?
            .and_then(|frame| frame.open)
            .ok_or_else(|| Status::invalid_argument("the first frame must open a stream"))?;
        reaches(&open, &self.0.replica.root(), &self.0.authorizer)?;
        match self.0.sessions.open_stream(open.clone()).await {
            Some(dialled) => Ok(Response::new(crate::sessions::relayed(dialled?, frames.boxed()))),
            None => Err(Status::not_found(format!("no session of node {} here", open.node))),
        }
    }

    type UsagesStream = BoxStream<'static, Result<pb::HeldUsage, Status>>;

    async fn usages(&self, request: Request<pb::UsagesRequest>) -> Result<Response<Self::UsagesStream>, Status> {
        self.member(&request)?;
        let held = self.0.sessions.usages(request.get_ref());
        Ok(Response::new(futures::stream::iter(held.into_iter().map(Ok)).boxed()))
    }

    async fn change_membership(
        &self,
        request: Request<pb::MembershipRequest>,
    ) -> Result<Response<pb::MembershipResponse>, Status> {
        let caller = self.member(&request)?;
        let asked = request.into_inner().change.ok_or_else(|| Status::invalid_argument("no change"))?;
        let change = match asked {
            Asked::AddLearner(info) if info.id == caller => Change::AddLearner(peers::member(info)),
            Asked::Promote(id) if id == caller => Change::Promote(id),
            Asked::AddLearner(_) | Asked::Promote(_) => {
                return Err(Status::permission_denied("a master asks for its own membership only"));
            }
            Asked::Remove(id) => Change::Remove(id),
            Asked::Transfer(id) => Change::Transfer(id),
        };
        self.0.consensus.peers().change_membership(change.clone()).await?;
        if let Change::Remove(id) = change {
            records::remove_member(&self.0.replica, id, self.0.now()).await?;
            self.0.peers.forget(id);
        }
        let leader = self.0.replica.leadership().borrow().leader.unwrap_or_default();
        Ok(Response::new(pb::MembershipResponse { leader }))
    }

    async fn member_status(
        &self,
        request: Request<pb::MemberStatusRequest>,
    ) -> Result<Response<pb::MemberStatusResponse>, Status> {
        let caller = self.member(&request)?;
        let at = request.get_ref().hash_at_revision;
        let mut answer = status::own(&self.0).await;
        answer.state_hash_at = self.0.consensus.hash_at(at).map(agreement::text).unwrap_or_default();
        let members = self.0.consensus.members();
        answer.members = members.iter().map(|known| peers::info(&known.member)).collect();
        let known = members.into_iter().find(|known| known.member.id == caller);
        answer.acknowledged_index = known.and_then(|known| known.matched).unwrap_or_default();
        Ok(Response::new(answer))
    }

    async fn install_data_keys(
        &self,
        request: Request<pb::InstallDataKeysRequest>,
    ) -> Result<Response<pb::InstallDataKeysResponse>, Status> {
        self.member(&request)?;
        let request = request.into_inner();
        self.0.keys.install(request.data_keys, request.only).await?;
        Ok(Response::new(pb::InstallDataKeysResponse {}))
    }

    async fn install_issuers(
        &self,
        request: Request<pb::InstallIssuersRequest>,
    ) -> Result<Response<pb::InstallIssuersResponse>, Status> {
        self.member(&request)?;
        issuers::install_here(&self.0, request.into_inner()).await?;
        Ok(Response::new(pb::InstallIssuersResponse {}))
    }

    async fn renew_own(&self, request: Request<pb::RenewOwnRequest>) -> Result<Response<pb::RenewOwnResponse>, Status> {
        self.member(&request)?;
        Ok(Response::new(pb::RenewOwnResponse { nodes: issuers::renew_here(&self.0).await? }))
    }

    type RotateStream = Steps;

    async fn rotate(&self, request: Request<pb::RotateRequest>) -> Result<Response<Self::RotateStream>, Status> {
        self.member(&request)?;
        Ok(Response::new(rotate::here(&self.0, request.get_ref().what())?))
    }
}

/// Whether the stream may be opened, as this master knows it, whatever the one that relays it has found: the user may do to
/// the pod what is asked, and the pod is bound to that node under that uid.
fn reaches(open: &pb::StreamOpen, root: &State, authorizer: &Authorizer) -> Result<(), Status> {
    let user = match open.user.as_str() {
        "" => return Err(Status::permission_denied("a relayed stream names no user")),
        name => User { name: name.to_owned(), groups: open.groups.clone(), ..User::default() },
    };
    let asked = Attributes { namespace: open.namespace.clone(), ..asked(open)? };
    authorizer.authorize(&user, &asked, root).map_err(Status::permission_denied)?;
    let pod = root.get(&Key::new("", "pods", &open.namespace, &open.pod));
    if pod.is_some_and(|pod| pod.header.uid == open.uid && pod.header.node == open.node) {
        return Ok(());
    }
    Err(Status::not_found(format!("pod {}/{} is not on node {}", open.namespace, open.pod, open.node)))
}

/// What the user asked of the API.
fn asked(open: &pb::StreamOpen) -> Result<Attributes, Status> {
    let of_pod = |verb: &str, subresource: &str| Attributes {
        verb: verb.to_owned(),
        resource: "pods".to_owned(),
        subresource: subresource.to_owned(),
        name: open.pod.clone(),
        ..Attributes::default()
    };
    Ok(match open {
        pb::StreamOpen { exec: Some(_), .. } => of_pod("create", "exec"),
        pb::StreamOpen { attach: Some(_), .. } => of_pod("create", "attach"),
        pb::StreamOpen { connect: Some(connect), .. } => match connect.resource.as_str() {
            "" => of_pod("create", "portforward"),
            "pods" | "services" => Attributes {
                verb: connect.verb.clone(),
                resource: connect.resource.clone(),
                subresource: "proxy".to_owned(),
                name: connect.name.clone(),
                ..Attributes::default()
            },
            other => return Err(Status::permission_denied(format!("there is no proxy of {other}"))),
        },
        _ => of_pod("get", "log"),
    })
}

#[cfg(test)]
mod tests {
    use control::authz;
    use state::{Command, EntryId, Header, Op, Put};

    use super::*;

    #[test]
    fn a_relayed_stream_is_authorized_again() {
        let mut root = State::default();
        let header = |uid: &str, node: &str| Header { uid: uid.into(), node: node.into(), ..Header::default() };
        let put = |key, header| Op::put(Put { key, header, ..Put::default() });
        let ops = vec![
            put(Key::namespace("default"), header("ns", "")),
            put(Key::node("n1"), header("n", "")),
            put(Key::new("", "pods", "default", "web"), header("u1", "n1")),
        ];
        let applied = root.apply(EntryId { term: 1, index: 1 }, &Command { ops, ..Command::default() });
        assert_eq!(applied.outcome.refusal, None);
        let open = pb::StreamOpen {
            node: "n1".into(),
            user: "admin".into(),
            groups: vec![authz::MASTERS.into()],
            namespace: "default".into(),
            pod: "web".into(),
            uid: "u1".into(),
            ..Default::default()
        };
        let authorizer = Authorizer::default();
        reaches(&open, &root, &authorizer).expect("the admin may");
        let denied = tonic::Code::PermissionDenied;
        for (open, code) in [
            (pb::StreamOpen { groups: vec![], ..open.clone() }, denied),
            (pb::StreamOpen { user: String::new(), ..open.clone() }, denied),
            (
                pb::StreamOpen { user: "system:node:n1".into(), groups: vec![authz::NODES.into()], ..open.clone() },
                denied,
            ),
            (
                pb::StreamOpen {
                    connect: Some(pb::ConnectOptions { resource: "secrets".into(), ..Default::default() }),
                    ..open.clone()
                },
                denied,
            ),
            (pb::StreamOpen { uid: "u2".into(), ..open.clone() }, tonic::Code::NotFound),
            (pb::StreamOpen { node: "n2".into(), ..open }, tonic::Code::NotFound),
        ] {
            assert_eq!(reaches(&open, &root, &authorizer).expect_err("refused").code(), code, "{open:?}");
        }
    }

    #[test]
    fn what_is_authorized_again_is_what_was_asked() {
        let open = pb::StreamOpen { pod: "web".into(), ..Default::default() };
        let connect = |verb: &str, resource: &str, name: &str| {
            let [verb, resource, name] = [verb, resource, name].map(str::to_owned);
            pb::StreamOpen { connect: Some(pb::ConnectOptions { port: 80, verb, resource, name }), ..open.clone() }
        };
        for (open, want) in [
            (open.clone(), ("get", "pods", "log", "web")),
            (
                pb::StreamOpen { exec: Some(pb::ExecOptions::default()), ..open.clone() },
                ("create", "pods", "exec", "web"),
            ),
            (
                pb::StreamOpen { attach: Some(pb::AttachOptions::default()), ..open.clone() },
                ("create", "pods", "attach", "web"),
            ),
            (connect("", "", ""), ("create", "pods", "portforward", "web")),
            (connect("patch", "pods", "web:80"), ("patch", "pods", "proxy", "web:80")),
            (connect("get", "services", "s:http"), ("get", "services", "proxy", "s:http")),
        ] {
            let Attributes { verb, resource, subresource, name, .. } = asked(&open).expect("asked");
            assert_eq!((verb.as_str(), resource.as_str(), subresource.as_str(), name.as_str()), want);
        }
    }
}
