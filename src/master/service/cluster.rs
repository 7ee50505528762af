//! Joining, leaving, tokens and status: what `hactl cluster …` asks. All but `Issuers` and `Join` is the administrator's;
//! a node may also take its own leave.

use std::sync::Arc;

use consensus::Error as Failed;
use rpc::Identity;
use rpc::pb::{self, cluster_server::Cluster};
use rpc::pki::{ApiName, NodeName, PeerName};
use rpc::token::{self, Token};
use state::{Command, Expect, Key, Op, Refusal, State};
use tonic::{Request, Response, Status};

use super::{Shared, admin, caller, status};
use crate::config::first_service_ip;
use crate::{records, sessions, setup};

const TTL_DEFAULT_S: u64 = 24 * 3600;
const TTL_MAX_S: u64 = 365 * 24 * 3600;

pub struct ClusterService(pub Arc<Shared>);

fn malformed(error: impl std::fmt::Display) -> Status {
    Status::invalid_argument(error.to_string())
}

fn failed(error: Failed) -> Status {
    match error {
        Failed::NotLeader { .. } | Failed::Stopped(_) => Status::unavailable(error.to_string()),
        Failed::Invalid(message) => Status::failed_precondition(message),
        Failed::Timeout(message) => Status::deadline_exceeded(message),
        other => Status::internal(other.to_string()),
    }
}

#[tonic::async_trait]
impl Cluster for ClusterService {
    async fn issuers(&self, _: Request<pb::IssuersRequest>) -> Result<Response<pb::IssuersResponse>, Status> {
        let bundles = &self.0.bundles;
        Ok(Response::new(pb::IssuersResponse {
            peer_issuer_pem: bundles.peer.clone(),
            node_issuer_pem: bundles.node.clone(),
            client_issuer_pem: bundles.client.clone(),
        }))
    }

    async fn join(&self, request: Request<pb::JoinRequest>) -> Result<Response<pb::JoinResponse>, Status> {
        let request = request.into_inner();
        let root = self.read().await?;
        self.check_token(&root, &request)?;
        let config = &self.0.config;
        let mut answer = pb::JoinResponse {
            cluster_id: config.cluster_id.clone(),
            epoch: config.epoch,
            peer_issuer_pem: self.0.bundles.peer.clone(),
            node_issuer_pem: self.0.bundles.node.clone(),
            client_issuer_pem: self.0.bundles.client.clone(),
            api_addresses: self.0.addresses.api(),
            cluster_cidr: config.settings.cluster_cidr.to_string(),
            ..Default::default()
        };
        // Everything that can be refused comes before anything is registered.
        if request.master {
            self.check_addresses(&request)?;
        }
        if request.node {
            self.join_node(&request, &mut answer).await?;
        }
        if request.master
            && let Err(refused) = self.join_master(&request, &mut answer).await
        {
            // The Node would stand in the way of the next try.
            if request.node
                && let Err(left) = self.leave_node(&request.name, Some(answer.node_uid)).await
            {
                tracing::warn!(node = request.name, message = left.message(), "a half joined node stays; delete it");
            }
            return Err(refused);
        }
        tracing::info!(name = request.name, member = answer.member_id, node = answer.node_uid, "joined");
        Ok(Response::new(answer))
    }

    async fn leave(&self, request: Request<pb::LeaveRequest>) -> Result<Response<pb::LeaveResponse>, Status> {
        let own = match caller(&request) {
            Identity::Node { name, uid, .. } => Some((name, uid)),
            _ => None,
        };
        let leaves = request.get_ref();
        let itself = leaves.member_id == 0 && own.as_ref().is_some_and(|(name, _)| *name == leaves.node);
        if !itself {
            admin(&request)?;
        }
        let leaves = request.into_inner();
        if !leaves.node.is_empty() {
            self.leave_node(&leaves.node, own.filter(|_| itself).map(|(_, uid)| uid)).await?;
        }
        if leaves.member_id != 0 {
            self.leave_member(leaves.member_id).await?;
        }
        Ok(Response::new(pb::LeaveResponse {}))
    }

    async fn status(
        &self,
        request: Request<pb::ClusterStatusRequest>,
    ) -> Result<Response<pb::ClusterStatusResponse>, Status> {
        admin(&request)?;
        Ok(Response::new(status::cluster(&self.0).await))
    }

    async fn create_token(
        &self,
        request: Request<pb::CreateTokenRequest>,
    ) -> Result<Response<pb::CreateTokenResponse>, Status> {
        admin(&request)?;
        let request = request.into_inner();
        if !request.master && !request.node {
            return Err(malformed("say what the token may become: master, node or both"));
        }
        let ttl = if request.ttl_seconds == 0 { TTL_DEFAULT_S } else { request.ttl_seconds };
        if ttl > TTL_MAX_S {
            return Err(malformed("a token lives at most a year"));
        }
        let pin = self.0.bundles.pin().map_err(|error| Status::internal(error.to_string()))?;
        let token = Token::generate(&pin).map_err(|error| Status::internal(error.to_string()))?;
        let expires = self.0.unix() + i64::try_from(ttl).unwrap_or(i64::MAX);
        let stored = records::Token {
            id: token.id.clone(),
            hash: token.hashed(),
            master: request.master,
            node: request.node,
            expires,
            description: request.description,
        };
        self.forget_expired_tokens().await?;
        records::put_token(&self.0.replica, &stored, self.0.now()).await?;
        Ok(Response::new(pb::CreateTokenResponse { token: token.to_string(), id: token.id, expires }))
    }

    async fn list_tokens(
        &self,
        request: Request<pb::ListTokensRequest>,
    ) -> Result<Response<pb::ListTokensResponse>, Status> {
        admin(&request)?;
        let root = self.read().await?;
        let now = self.0.unix();
        let tokens = records::tokens(&root)
            .into_iter()
            .filter(|token| token.expires > now)
            .map(|token| pb::TokenInfo {
                id: token.id,
                master: token.master,
                node: token.node,
                expires: token.expires,
                description: token.description,
            })
            .collect();
        Ok(Response::new(pb::ListTokensResponse { tokens }))
    }

    async fn revoke_token(
        &self,
        request: Request<pb::RevokeTokenRequest>,
    ) -> Result<Response<pb::RevokeTokenResponse>, Status> {
        admin(&request)?;
        let id = request.into_inner().id;
        let root = self.read().await?;
        if records::token(&root, &id).is_none() {
            return Err(Status::not_found(format!("there is no token {id}; `hactl cluster token list` shows all")));
        }
        records::delete_tokens(&self.0.replica, &[id], self.0.now()).await?;
        Ok(Response::new(pb::RevokeTokenResponse {}))
    }

    async fn transfer_leader(
        &self,
        request: Request<pb::TransferLeaderRequest>,
    ) -> Result<Response<pb::TransferLeaderResponse>, Status> {
        admin(&request)?;
        let to = request.get_ref().to;
        let leadership = self.0.replica.leadership().borrow().clone();
        if leadership.leading.is_none() {
            let leader = self.0.addresses.api_of(leadership.leader).unwrap_or_else(|| "unknown".into());
            return Err(Status::failed_precondition(format!("this master does not lead; ask the leader ({leader})")));
        }
        self.0.consensus.transfer_leader(to).await.map_err(failed)?;
        Ok(Response::new(pb::TransferLeaderResponse {}))
    }
}

impl ClusterService {
    async fn read(&self) -> Result<Arc<State>, Status> {
        self.0.replica.read().await.map_err(|error| Status::unavailable(error.to_string()))
    }

    fn check_token(&self, root: &State, request: &pb::JoinRequest) -> Result<(), Status> {
        let wrong = || {
            Status::permission_denied(
                "the token is unknown, revoked or expired; make a new one with `hactl cluster token create`",
            )
        };
        let stored = records::token(root, &request.token_id).ok_or_else(wrong)?;
        // The hashes are public to nobody and of random secrets, so comparing them in constant time would gain nothing.
        if stored.hash != token::hash(&request.token_id, &request.token_secret) || stored.expires <= self.0.unix() {
            return Err(wrong());
        }
        if !request.master && !request.node {
            return Err(malformed("say what to join as: master, node or both"));
        }
        if (request.master && !stored.master) || (request.node && !stored.node) {
            let may = match (stored.master, stored.node) {
                (true, true) => "master and node",
                (true, false) => "master",
                _ => "node",
            };
            return Err(Status::permission_denied(format!(
                "this token admits as {may} only; make another for the rest"
            )));
        }
        Ok(())
    }

    async fn join_node(&self, request: &pb::JoinRequest, answer: &mut pb::JoinResponse) -> Result<(), Status> {
        let uid = uuid::Uuid::new_v4().to_string();
        let name =
            NodeName { cluster_id: self.0.config.cluster_id.clone(), name: request.name.clone(), uid: uid.clone() };
        let life = self.0.config.lifetimes.node;
        answer.node_certificate_pem =
            self.0.issuers.issue_node(&request.node_csr_pem, &name, life, self.0.unix()).map_err(malformed)?;
        answer.node_uid.clone_from(&uid);
        register_node(&self.0, &request.name, &uid).await
    }

    fn check_addresses(&self, request: &pb::JoinRequest) -> Result<(), Status> {
        if request.peer_address.is_empty() || request.api_address.is_empty() {
            return Err(malformed("a master must say where it is reached"));
        }
        let members = self.0.addresses.members();
        let same = |m: &&pb::MemberInfo| m.peer_address == request.peer_address || m.api_address == request.api_address;
        match members.iter().find(same) {
            None => Ok(()),
            Some(member) => Err(Status::already_exists(format!(
                "master {} ({}) has that address already; give another with --advertise, or `hactl cluster leave` there first",
                member.name, member.api_address
            ))),
        }
    }

    async fn join_master(&self, request: &pb::JoinRequest, answer: &mut pb::JoinResponse) -> Result<(), Status> {
        let config = &self.0.config;
        let record = records::MemberRecord {
            name: if request.member_name.is_empty() {
                request.api_address.clone()
            } else {
                request.member_name.clone()
            },
            peer_address: request.peer_address.clone(),
            api_address: request.api_address.clone(),
            removed: false,
        };
        let now = self.0.unix();
        let id = records::register_member(&self.0.replica, &record, self.0.now()).await?;
        let peer = PeerName { cluster_id: config.cluster_id.clone(), epoch: config.epoch, member: id };
        let api = ApiName {
            member: id,
            hosts: setup::api_hosts(&request.api_address, &[]),
            service_ip: first_service_ip(&config.settings),
        };
        let issuers = &self.0.issuers;
        let lifetimes = &config.lifetimes;
        answer.member_id = id;
        answer.peer_certificate_pem =
            issuers.issue_peer(&request.peer_csr_pem, &peer, lifetimes.peer, now).map_err(malformed)?;
        answer.api_certificate_pem =
            issuers.issue_api(&request.api_csr_pem, &api, lifetimes.api, now).map_err(malformed)?;
        answer.master_secrets = serde_json::to_vec(&issuers.keys_pem()).map_err(malformed)?.into();
        answer.members = self.0.addresses.members();
        Ok(())
    }

    async fn leave_node(&self, name: &str, uid: Option<String>) -> Result<(), Status> {
        let key = Key::node(name);
        let mut expects = vec![Expect::exists(key.clone())];
        if let Some(uid) = uid {
            expects.push(Expect::uid(key.clone(), uid));
        }
        let command = Command {
            expects,
            ops: vec![Op::delete(key)],
            time_ms: self.0.now().as_millisecond(),
            ..Command::default()
        };
        match records::propose(&self.0.replica, command).await?.refusal {
            None | Some(Refusal::NotFound(_)) => Ok(()),
            Some(Refusal::Conflict(_)) => Err(Status::permission_denied(format!("node {name} is another machine now"))),
            Some(other) => Err(Status::internal(format!("{other:?}"))),
        }
    }

    /// Takes a member out of the cluster, then its certificate its worth. A member that removes itself cannot propose the
    /// second any more: the leader that carried out the first does so for it.
    async fn leave_member(&self, id: u64) -> Result<(), Status> {
        let members = self.0.addresses.members();
        if members.iter().any(|member| member.id == id) {
            if members.len() == 1 {
                return Err(Status::failed_precondition(
                    "this is the last master: leaving would end the cluster. Remove its data dir instead",
                ));
            }
            self.0.consensus.remove(id).await.map_err(failed)?;
            if id == self.0.config.member_id {
                return Ok(());
            }
            self.0.peers.forget(id);
        }
        records::remove_member(&self.0.replica, id, self.0.now()).await
    }

    async fn forget_expired_tokens(&self) -> Result<(), Status> {
        let now = self.0.unix();
        let expired: Vec<String> = records::tokens(&self.0.replica.root())
            .into_iter()
            .filter(|token| token.expires <= now)
            .map(|token| token.id)
            .collect();
        if expired.is_empty() {
            return Ok(());
        }
        records::delete_tokens(&self.0.replica, &expired, self.0.now()).await
    }
}

/// Creates the Node of a joining machine.
///
/// # Errors
/// When the name cannot be a Node's or belongs to another machine.
pub async fn register_node(shared: &Shared, name: &str, uid: &str) -> Result<(), Status> {
    let mut command = sessions::new_node(name, uid, shared.now()).map_err(|refused| malformed(refused.1))?;
    command.time_ms = shared.now().as_millisecond();
    match records::propose(&shared.replica, command).await?.refusal {
        None => Ok(()),
        Some(Refusal::AlreadyExists(_)) => Err(Status::already_exists(format!(
            "a node named {name} exists already; give this machine another --node-name, or remove that one first \
             (`kubectl delete node {name}`)"
        ))),
        Some(other) => Err(Status::internal(format!("{other:?}"))),
    }
}
