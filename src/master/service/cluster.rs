//! Leaving, tokens and status (and joining, see `join`): what `hactl cluster …` asks. All but `Issuers` and `Join` is the administrator's;
//! a node may also take its own leave.

use std::sync::Arc;

use consensus::Error as Failed;
use rpc::Identity;
use rpc::pb::{self, cluster_server::Cluster};
use rpc::token::Token;
use state::{Command, Expect, Key, Op, Refusal, State};
use tonic::{Request, Response, Status};

use super::{Shared, admin, caller, snapshots, status};
use crate::issuers;
use crate::records;
use crate::rotate::{self, Steps};

const TTL_DEFAULT_S: u64 = 24 * 3600;
const TTL_MAX_S: u64 = 365 * 24 * 3600;

pub struct ClusterService(pub Arc<Shared>);

pub(super) fn malformed(error: impl std::fmt::Display) -> Status {
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
    async fn issuers(&self, request: Request<pb::IssuersRequest>) -> Result<Response<pb::IssuersResponse>, Status> {
        let bundles = self.0.trust.bundles();
        let token = records::token(&self.0.replica.root(), &request.get_ref().token_id);
        Ok(Response::new(pb::IssuersResponse {
            peer_issuer_pem: bundles.peer,
            node_issuer_pem: bundles.node,
            client_issuer_pem: bundles.client,
            token_known: token.is_some_and(|token| token.expires > self.0.unix() && token.pin == request.get_ref().pin),
        }))
    }

    async fn join(&self, request: Request<pb::JoinRequest>) -> Result<Response<pb::JoinResponse>, Status> {
        Ok(Response::new(self.admit(request.get_ref()).await?))
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
        // Before anything is changed.
        self.not_the_last(leaves.member_id)?;
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
        let pin = self.0.trust.bundles().pin().map_err(|error| Status::internal(error.to_string()))?;
        let token = Token::generate(&pin).map_err(|error| Status::internal(error.to_string()))?;
        let expires = self.0.unix() + i64::try_from(ttl).unwrap_or(i64::MAX);
        let stored = records::Token {
            id: token.id.clone(),
            hash: token.hashed(),
            master: request.master,
            node: request.node,
            expires,
            description: request.description,
            pin,
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
        let pin = self.0.trust.bundles().pin().map_err(|error| Status::internal(error.to_string()))?;
        let tokens = records::tokens(&root)
            .into_iter()
            .filter(|token| token.expires > now)
            .map(|token| pb::TokenInfo {
                id: token.id,
                master: token.master,
                node: token.node,
                expires: token.expires,
                description: token.description,
                outdated: !token.pin.is_empty() && token.pin != pin,
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
        self.0.consensus.ask_to_transfer(request.get_ref().to).await.map_err(failed)?;
        Ok(Response::new(pb::TransferLeaderResponse {}))
    }

    type SaveSnapshotStream = snapshots::Parts;

    async fn save_snapshot(
        &self,
        request: Request<pb::SaveSnapshotRequest>,
    ) -> Result<Response<Self::SaveSnapshotStream>, Status> {
        admin(&request)?;
        Ok(Response::new(snapshots::save(&self.0).await?))
    }

    async fn set_recovery_key(
        &self,
        request: Request<pb::SetRecoveryKeyRequest>,
    ) -> Result<Response<pb::SetRecoveryKeyResponse>, Status> {
        admin(&request)?;
        Ok(Response::new(snapshots::set_key(&self.0, request.into_inner()).await?))
    }

    type RotateStream = Steps;

    async fn rotate(&self, request: Request<pb::RotateRequest>) -> Result<Response<Self::RotateStream>, Status> {
        admin(&request)?;
        let steps = rotate::rotate(&self.0, request.get_ref().what()).await?;
        Ok(Response::new(steps))
    }

    async fn renew_certificates(
        &self,
        request: Request<pb::RenewCertificatesRequest>,
    ) -> Result<Response<pb::RenewCertificatesResponse>, Status> {
        admin(&request)?;
        let Identity::User { name, groups } = caller(&request) else {
            return Err(Status::permission_denied("only a user has a kubeconfig"));
        };
        let [group] = groups.as_slice() else {
            return Err(Status::failed_precondition(format!(
                "user {name} is in several groups, so hactl did not make that certificate: renew it where it was made"
            )));
        };
        let issuers = self.0.trust.issuers();
        let life = self.0.config.lifetimes.user;
        let csr = &request.get_ref().csr_pem;
        let certificate_pem = issuers.issue_user(csr, &name, Some(group), life, self.0.unix()).map_err(malformed)?;
        let client_issuer_pem = issuers.bundles().client;
        let mut answer = pb::RenewCertificatesResponse { certificate_pem, client_issuer_pem, ..Default::default() };
        let members = if request.get_ref().only_user { Vec::new() } else { self.0.addresses.members() };
        for member in members {
            match issuers::renew(&self.0, &member).await {
                Ok(nodes) => {
                    answer.masters.push(member.name);
                    answer.nodes.extend(nodes);
                }
                Err(status) => answer.failed.push(format!("{}: {}", member.name, status.message())),
            }
        }
        answer.nodes.sort();
        Ok(Response::new(answer))
    }
}

impl ClusterService {
    pub(super) async fn read(&self) -> Result<Arc<State>, Status> {
        self.0.replica.read().await.map_err(|error| Status::unavailable(error.to_string()))
    }

    pub(super) async fn leave_node(&self, name: &str, uid: Option<String>) -> Result<(), Status> {
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

    /// # Errors
    /// When the cluster would end with this member.
    fn not_the_last(&self, id: u64) -> Result<(), Status> {
        match self.0.members().as_slice() {
            [last] if last.id == id => {
                Err(Status::failed_precondition("this is the last master: with it the cluster ends"))
            }
            _ => Ok(()),
        }
    }

    /// Takes a member out of the cluster, then its certificate its worth. A member that removes itself cannot propose the
    /// second any more: the leader that carried out the first does so for it.
    pub(super) async fn leave_member(&self, id: u64) -> Result<(), Status> {
        self.not_the_last(id)?;
        if self.0.members().iter().any(|member| member.id == id) {
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
