//! Joining: who may, what a machine becomes, and that asking again gives the same answer.
//!
//! **Invariant:** a joiner that asks again with its nonce, because the answer was lost, gets the Node uid and the member id
//! it was given the first time; no other machine ever does.

use std::collections::BTreeMap;
use std::time::Duration;

use rpc::pb;
use rpc::pki::files::Other;
use rpc::pki::{ApiName, NodeName, PeerName, fingerprint};
use rpc::token;
use state::{Key, Refusal, State};
use tonic::Status;

use super::cluster::{ClusterService, malformed};
use super::{Shared, status};
use crate::config::first_service_ip;
use crate::{records, sessions, setup};

impl ClusterService {
    /// Carries out a join.
    pub(super) async fn admit(&self, request: &pb::JoinRequest) -> Result<pb::JoinResponse, Status> {
        let root = self.read().await?;
        self.check_token(&root, request)?;
        let config = &self.0.config;
        if request.epoch > config.epoch {
            return Err(Status::failed_precondition(setup::of_before(config.epoch, request.epoch)));
        }
        let bundles = self.0.trust.bundles();
        let mut answer = pb::JoinResponse {
            cluster_id: config.cluster_id.clone(),
            epoch: config.epoch,
            peer_issuer_pem: bundles.peer,
            node_issuer_pem: bundles.node,
            client_issuer_pem: bundles.client,
            api_addresses: self.0.members().into_iter().map(|member| member.api_address).collect(),
            cluster_cidr: config.settings.cluster_cidr.to_string(),
            settings: shared_settings(&config.settings),
            ..Default::default()
        };
        // Everything that can be refused comes before anything is registered, or removed.
        if request.master {
            let dead = self.whose_place(&root, request).await?;
            self.check_addresses(&root, request, dead)?;
            if request.node {
                self.check_node(&root, request)?;
            }
            if let Some(dead) = dead {
                tracing::warn!(member = dead, name = request.replaces, "a dead master is replaced");
                self.leave_member(dead).await?;
            }
        }
        if request.node {
            self.join_node(request, &mut answer).await?;
        }
        if request.master
            && let Err(refused) = self.join_master(request, &mut answer).await
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
        Ok(answer)
    }

    fn check_token(&self, root: &State, request: &pb::JoinRequest) -> Result<(), Status> {
        let denied = |why: &str| {
            let cure = "make a new one with `hactl cluster token create`";
            Status::permission_denied(format!("{why}; {cure}"))
        };
        let stored = records::token(root, &request.token_id)
            .ok_or_else(|| denied("the token is unknown: it was revoked, or expired some time ago"))?;
        // The hashes are public to nobody and of random secrets, so comparing them in constant time would gain nothing.
        if stored.hash != token::hash(&request.token_id, &request.token_secret) {
            return Err(denied("the token's secret is wrong, so it was not copied whole"));
        }
        if stored.expires <= self.0.unix() {
            return Err(denied("the token has expired"));
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

    /// The dead master whose place is taken, if it is still there. One that answers is not dead.
    async fn whose_place(&self, root: &State, request: &pb::JoinRequest) -> Result<Option<u64>, Status> {
        let asked = request.replaces.as_str();
        if asked.is_empty() {
            return Ok(None);
        }
        let is_it = |id: u64, name: &str| name == asked || id.to_string() == asked;
        let members = self.0.members();
        let found: Vec<_> = members.iter().filter(|member| is_it(member.id, &member.name)).collect();
        let member = match found.as_slice() {
            [member] => *member,
            [] if records::members(root).iter().any(|(id, record)| record.removed && is_it(*id, &record.name)) => {
                return Ok(None);
            }
            [] => {
                return Err(Status::not_found(format!(
                    "there is no master {asked}; `hactl cluster status` shows all, `hactl cluster join --master` adds one"
                )));
            }
            _ => {
                let ids: Vec<String> = found.iter().map(|member| member.id.to_string()).collect();
                return Err(malformed(format!("several masters are called {asked}; give an id: {}", ids.join(", "))));
            }
        };
        // Asked again: the place was taken by this very machine.
        let own = joiner(request);
        if !own.is_empty() && records::member(root, member.id).is_some_and(|record| record.joiner == own) {
            return Ok(None);
        }
        if member.id == self.0.config.member_id || status::ask(&self.0, member).await.is_some() {
            return Err(Status::failed_precondition(format!(
                "master {} ({}) answers, so it is not dead: stop it first, or take it out with `hactl cluster remove {}`",
                member.name, member.api_address, member.id
            )));
        }
        Ok(Some(member.id))
    }

    /// `dead` gives its addresses up.
    fn check_addresses(&self, root: &State, request: &pb::JoinRequest, dead: Option<u64>) -> Result<(), Status> {
        if request.peer_address.is_empty() || request.api_address.is_empty() {
            return Err(malformed("a master must say where it is reached"));
        }
        let own = joiner(request);
        let members = self.0.members();
        let same = |m: &&pb::MemberInfo| m.peer_address == request.peer_address || m.api_address == request.api_address;
        let another = |m: &&pb::MemberInfo| {
            own.is_empty() || records::member(root, m.id).is_none_or(|record| record.joiner != own)
        };
        // One that was just removed may still be among them.
        let present = |m: &&pb::MemberInfo| Some(m.id) != dead && !records::is_removed(root, m.id);
        match members.iter().filter(same).filter(present).find(another) {
            None => Ok(()),
            Some(member) => Err(Status::already_exists(format!(
                "master {} ({}) has that address already; give another with --advertise, `hactl cluster leave` there first, or \
                 take its place with `hactl cluster replace {}` if it is dead",
                member.name, member.api_address, member.id
            ))),
        }
    }

    /// That the node can be registered, as it is known now.
    fn check_node(&self, root: &State, request: &pb::JoinRequest) -> Result<(), Status> {
        let uid = node_uid(&self.0.config.cluster_id, request);
        sessions::new_node(&request.name, &uid, self.0.now()).map_err(|refused| malformed(refused.1))?;
        match root.get(&Key::node(&request.name)) {
            Some(node) if node.header.uid != uid => Err(another_machine(&request.name)),
            _ => Ok(()),
        }
    }

    async fn join_node(&self, request: &pb::JoinRequest, answer: &mut pb::JoinResponse) -> Result<(), Status> {
        let uid = node_uid(&self.0.config.cluster_id, request);
        let name =
            NodeName { cluster_id: self.0.config.cluster_id.clone(), name: request.name.clone(), uid: uid.clone() };
        let life = self.0.config.lifetimes.node;
        answer.node_certificate_pem =
            self.0.trust.issuers().issue_node(&request.node_csr_pem, &name, life, self.0.unix()).map_err(malformed)?;
        answer.node_uid.clone_from(&uid);
        register_node(&self.0, &request.name, &uid).await
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
            joiner: joiner(request),
        };
        let now = self.0.unix();
        let id = records::register_member(&self.0.replica, &record, self.0.now()).await?;
        let peer = PeerName { cluster_id: config.cluster_id.clone(), epoch: config.epoch, member: id };
        let api = ApiName {
            member: id,
            hosts: setup::api_hosts(&request.api_address, &[]),
            service_ip: first_service_ip(&config.settings),
        };
        let issuers = self.0.trust.issuers();
        let lifetimes = &config.lifetimes;
        answer.member_id = id;
        answer.peer_certificate_pem =
            issuers.issue_peer(&request.peer_csr_pem, &peer, lifetimes.peer, now).map_err(malformed)?;
        answer.api_certificate_pem =
            self.0.trust.serves().issue_api(&request.api_csr_pem, &api, lifetimes.api, now).map_err(malformed)?;
        answer.master_secrets = serde_json::to_vec(&issuers.keys_pem()).map_err(malformed)?.into();
        if let Some(keys) = self.0.trust.other_keys(Other::Previous).map_err(malformed)? {
            answer.previous_secrets = serde_json::to_vec(&keys).map_err(malformed)?.into();
        }
        answer.data_keys = self.0.keys.to_json().map_err(malformed)?.into();
        answer.members = self.0.members();
        Ok(())
    }
}

/// What the store remembers of a joiner's nonce; empty for a joiner that made none.
fn joiner(request: &pb::JoinRequest) -> String {
    if request.nonce.is_empty() {
        return String::new();
    }
    fingerprint(format!("hactl joiner {}", request.nonce).as_bytes())
}

/// The uid of a joining node. It follows from the nonce and the name, so that nothing must be remembered to give it again.
fn node_uid(cluster_id: &str, request: &pb::JoinRequest) -> String {
    if request.nonce.is_empty() {
        return uuid::Uuid::new_v4().to_string();
    }
    let hash = fingerprint(format!("hactl node {cluster_id} {} {}", request.name, request.nonce).as_bytes());
    let mut bytes = [0; 16];
    // A fingerprint is 64 hex digits.
    let _ = hex::decode_to_slice(&hash[..32], &mut bytes);
    uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
}

/// What all masters must agree on, by the names of docs/settings.md.
fn shared_settings(settings: &control::Settings) -> std::collections::HashMap<String, String> {
    let text = |time: Duration| format!("{}ms", time.as_millis());
    let toleration = Duration::from_secs(u64::try_from(settings.toleration_s).unwrap_or(0));
    BTreeMap::from([
        ("cluster-cidr", settings.cluster_cidr.to_string()),
        ("service-cidr", settings.service_cidr.to_string()),
        ("node-silence", text(settings.node_grace)),
        ("eviction-after", text(toleration)),
    ])
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

fn another_machine(name: &str) -> Status {
    Status::already_exists(format!(
        "a node named {name} exists already and is another machine; give this one another --node-name, or remove \
         that one first (`kubectl delete node {name}`)"
    ))
}

/// Creates the Node of a joining machine, unless the same machine has done so before.
///
/// # Errors
/// When the name cannot be a Node's or belongs to another machine.
pub async fn register_node(shared: &Shared, name: &str, uid: &str) -> Result<(), Status> {
    let mut command = sessions::new_node(name, uid, shared.now()).map_err(|refused| malformed(refused.1))?;
    command.time_ms = shared.now().as_millisecond();
    command.system = true;
    match records::propose(&shared.replica, command).await?.refusal {
        None => Ok(()),
        Some(Refusal::AlreadyExists(_)) => {
            let root = shared.replica.root();
            if root.get(&Key::node(name)).is_some_and(|node| node.header.uid == uid) {
                return Ok(());
            }
            Err(another_machine(name))
        }
        Some(other) => Err(Status::internal(format!("{other:?}"))),
    }
}
